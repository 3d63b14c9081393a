"""Code, commands and links of README and docs work."""

import gzip
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import graph.embed
import graph.evaluate
import graph.train
import image.cache
import image.embed
import image.evaluate
import image.export
import image.train
import sentence.embed
import sentence.evaluate
import sentence.train
import shared_eval.compare
import shared_eval.records
import shared_eval.report
import shared_eval.reproduce
from tests.conftest import REAL_DATA_ROOT
from tests.graph.conftest import write_tu_dataset
from tests.image.conftest import write_class_folders
from tests.sentence.conftest import write_books

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
COMMANDS = {
    "graph.train": graph.train.main,
    "graph.evaluate": graph.evaluate.main,
    "graph.embed": graph.embed.main,
    "image.train": image.train.main,
    "image.evaluate": image.evaluate.main,
    "image.embed": image.embed.main,
    "image.cache": image.cache.main,
    "image.export": image.export.main,
    "sentence.train": sentence.train.main,
    "sentence.embed": sentence.embed.main,
    "sentence.evaluate": sentence.evaluate.main,
    "shared_eval.compare": shared_eval.compare.main,
    "shared_eval.records": shared_eval.records.main,
    "shared_eval.report": shared_eval.report.main,
    "shared_eval.reproduce": shared_eval.reproduce.main,
}


def write_novels() -> None:
    """Three novels, real ones if their data are here."""
    stored = sorted((REAL_DATA_ROOT / "books").glob("*.txt.gz"))[:3]
    if not stored:
        write_books(Path("novels"), sizes=(300, 200, 100))
    else:
        Path("novels").mkdir()
        for path in stored:
            Path("novels", path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    Path("other.txt").write_text("\n".join(f"This is sentence {i}." for i in range(20)))


def write_photos() -> None:
    """72 photographs of another size than the default, some in a folder of their own."""
    write_class_folders(Path("all"), per_class=24, size=40)
    Path("photos/holidays").mkdir(parents=True)
    for i, path in enumerate(sorted(Path("all").rglob("*.png"))):
        path.rename(Path("photos/holidays" if i % 3 else "photos") / path.name)


def write_molecules() -> None:
    """MUTAG's files without its labels; a small set's if the real one is not here."""
    write_tu_dataset(Path("small"), graphs=60)
    real, small = (
        root / "TUDataset" / name / "raw"
        for root, name in ((REAL_DATA_ROOT, "MUTAG"), (Path("small"), "TINY"))
    )
    Path("molecules").mkdir()
    for path in (real if real.exists() else small).glob("*_*.txt"):
        if not path.name.endswith("_graph_labels.txt"):
            shutil.copy(path, "molecules")


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of a language with the name of their document, without their fences."""
    found = []
    for path in DOCUMENTS:
        code = re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)
        found += [(path.name, block) for block in code]
    return found


# Pages whose code is one session, from the data that ``write`` makes: see ``test_session_runs``.
SESSIONS = {
    "your-own-images.md": write_photos,
    "your-own-graphs.md": write_molecules,
    "your-own-text.md": write_novels,
}
# Flags that make a command of a session quick.
QUICK = {
    "image.train": "--epochs 1 --arch resnet10 --width 4 --device cpu",
    "image.evaluate": "--epochs 1 --device cpu",
    "image.embed": "--device cpu",
    "image.export": "",
    "graph.train": "--device cpu",
    "graph.embed": "--device cpu",
    "sentence.train": "--epochs 1 --embedding-dim 8 --batch-size 50 --device cpu",
    "sentence.evaluate": "--device cpu",
    "sentence.embed": "--device cpu",
}

PYTHON = [(name, code) for name, code in blocks("python") if name not in SESSIONS]


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[f"{name}-{i}" for i, (name, _) in enumerate(PYTHON)])
def test_python_block_runs_without_an_error(name, code):
    exec(compile(code, name, "exec"), {})


def command_lines(block: str) -> list[list[str]]:
    """The words of each command of a block that starts Python, from the module on."""
    return [
        words[words.index("-m") + 1 :]
        for line in block.splitlines()
        if (words := shlex.split(line, comments=True))[:1] in (["python"], ["torchrun"]) and "-m" in words
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", SESSIONS)
def test_session_runs(name, tmp_path, monkeypatch):
    """Every block of the page in turn, in one folder; commands are made quick by flags at their end."""
    monkeypatch.chdir(tmp_path)
    SESSIONS[name]()
    code = re.findall(r"```(bash|python)\n(.*?)```", (ROOT / "docs" / name).read_text(), flags=re.DOTALL)
    assert {language for language, _ in code} == {"bash", "python"}
    names = {}
    for language, block in code:
        if language == "python":
            exec(compile(block, name, "exec"), names)
            continue
        for module, *flags in command_lines(block):
            if module == "image.export" and find_spec("onnxruntime") is None:
                continue  # it says what to install
            COMMANDS[module]([*flags, *QUICK[module].split()])


COMMAND_LINES = [words for _, block in blocks("bash") for words in command_lines(block)]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_command_knows_every_flag_that_the_documents_use(words, capsys):
    """With ``--help`` added, it prints them all."""
    module, *flags = words
    with pytest.raises(SystemExit) as exit_:
        COMMANDS[module]([*flags, "--help"])
    assert not exit_.value.code
    help_text = capsys.readouterr().out
    for flag in flags:
        if flag.startswith("--"):
            assert flag in help_text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_link_to_a_file_has_its_file(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)[)#]", path.read_text()):
        assert (path.parent / target).exists(), target


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1000


def test_make_command_is_a_target_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for _, block in blocks("bash"):
        for line in re.findall(r"^make ([\w -]+)", block, flags=re.MULTILINE):
            for target in line.split():
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
