"""Code, commands and links of README and docs work."""

import re
import shlex
from pathlib import Path

import pytest

import graph.evaluate
import graph.train
import image.evaluate
import image.train
import sentence.embed
import sentence.evaluate
import sentence.train
import shared_eval.compare
import shared_eval.records
import shared_eval.report
import shared_eval.reproduce

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
COMMANDS = {
    "graph.train": graph.train.main,
    "graph.evaluate": graph.evaluate.main,
    "image.train": image.train.main,
    "image.evaluate": image.evaluate.main,
    "sentence.train": sentence.train.main,
    "sentence.embed": sentence.embed.main,
    "sentence.evaluate": sentence.evaluate.main,
    "shared_eval.compare": shared_eval.compare.main,
    "shared_eval.records": shared_eval.records.main,
    "shared_eval.report": shared_eval.report.main,
    "shared_eval.reproduce": shared_eval.reproduce.main,
}


def blocks(language: str) -> list[tuple[str, str]]:
    """The code blocks of a language with the name of their document, without their fences."""
    found = []
    for path in DOCUMENTS:
        code = re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)
        found += [(path.name, block) for block in code]
    return found


PYTHON = blocks("python")


@pytest.mark.parametrize(("name", "code"), PYTHON, ids=[f"{name}-{i}" for i, (name, _) in enumerate(PYTHON)])
def test_python_block_runs_without_an_error(name, code):
    exec(compile(code, name, "exec"), {})


# The words of each command that starts Python, from the module on.
COMMAND_LINES = [
    words[words.index("-m") + 1 :]
    for _, block in blocks("bash")
    for line in block.splitlines()
    if (words := shlex.split(line, comments=True))[:1] in (["python"], ["torchrun"]) and "-m" in words
]


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


def test_make_command_is_a_target_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for _, block in blocks("bash"):
        for line in re.findall(r"^make ([\w -]+)", block, flags=re.MULTILINE):
            for target in line.split():
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
