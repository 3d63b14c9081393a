"""What commands import: help and bad input nothing heavy, work only what it uses.

Imports decide how long people wait for a command; a test of seconds would depend on the machine.
"""

import pytest

import benchmarks.startup
from tests.faults.tiny import TinyCommand, write_tiny_data
from tests.imports import ROOT, outcomes
from tests.shared_eval.conftest import write_record

FOLDERS = ("core", "image", "graph", "sentence", "shared_eval")
SUITE = ROOT / "benchmarks" / "__main__.py"
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in [*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), SUITE]
    # A modality's config answers shared_eval.reproduce, not people: it takes no flags.
    if 'if __name__ == "__main__"' in path.read_text() and path.name != "config.py"
)
WRONG_FLAG = "--no-such-flag"
UNKNOWN = {name: command.unknown for name, command in benchmarks.startup.COMMANDS.items()}
BAD_INPUT = [
    *UNKNOWN.items(),
    *((command, (*flags, WRONG_FLAG)) for command, flags in UNKNOWN.items()),
]

TRAINING = {"torch", "numpy", "rich", "safetensors"}  # and what torch imports
IMAGES = TRAINING | {"PIL"}
SENTENCES = TRAINING | {"tokenizers", "sentencex"}
SCIKIT_LEARN = {"sklearn", "scipy", "joblib", "pandas", "pyarrow"}
TABLES = {"numpy", "pandas", "pyarrow", "rich"}
# Commands that end because their data are missing: by then all modules are imported.
WITHOUT_DATA = {
    "graph.train": TRAINING,
    "graph.evaluate": TRAINING,
    "graph.embed": TRAINING,
    "image.train": IMAGES,
    "image.evaluate": IMAGES,
    "image.embed": IMAGES,
    "image.export": IMAGES,
    "sentence.train": SENTENCES,
}
WITH_A_MODEL = {"image.export", "sentence.embed", "sentence.evaluate"}  # they import what the model needs
WITHOUT_FLAGS = {"image.cache": {"rich"}}
MEASURING = {"benchmarks"}  # imports what it measures
# On tiny data. sentence.train diverges in its first step: it would save its model by sentence_transformers.
WITH_DATA = {
    "graph.train": TRAINING | SCIKIT_LEARN,
    "graph.evaluate": TRAINING | SCIKIT_LEARN,
    "graph.embed": TRAINING | {"pandas", "pyarrow"},
    "image.train": IMAGES,
    "image.evaluate": IMAGES,
    "image.embed": IMAGES | {"pandas", "pyarrow"},
    "sentence.train": SENTENCES | SCIKIT_LEARN,
}
ON_RECORDS = {
    "shared_eval.compare": TABLES,
    "shared_eval.records": TABLES,
    "shared_eval.report": TABLES
    | {"scipy", "sklearn", "joblib", "matplotlib", "PIL", "jinja2", "safetensors"},
    "shared_eval.reproduce": TABLES,  # with --dry-run
}


@pytest.fixture(scope="module")
def parsed():
    """Outcomes of help and bad input, from one interpreter that has imported the command line alone."""
    commands = [*((command, ("--help",)) for command in COMMANDS), *BAD_INPUT]
    _, ended = outcomes([(command, *flags) for command, flags in commands], preload=["core.training.cli"])
    return dict(zip(commands, ended, strict=True))


def test_every_command_is_in_these_tests():
    assert sorted(UNKNOWN) == COMMANDS
    assert sorted({*WITH_DATA, *ON_RECORDS, *WITH_A_MODEL, *WITHOUT_FLAGS, *MEASURING}) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(parsed, command):
    help_ = parsed[command, ("--help",)]
    assert help_.code in (None, 0)
    assert f"usage: python -m {command}" in help_.output
    assert help_.imported == set()


@pytest.mark.parametrize(("command", "flags"), BAD_INPUT)
def test_bad_input_imports_nothing_heavy(parsed, command, flags):
    bad = parsed[command, flags]
    assert bad.code == 2
    assert bad.output.startswith("error: ")
    assert bad.output.count("\n") == 1
    assert (WRONG_FLAG if WRONG_FLAG in flags else "no-such-") in bad.output
    assert bad.imported == set()


@pytest.fixture(scope="module")
def without_data(tmp_path_factory):
    """What torch imports, and outcomes by command, from one interpreter that has imported torch alone."""
    folder = tmp_path_factory.mktemp("without_data")
    common = ["--data-root", str(folder / "data"), "--device", "cpu"]
    offline = ["--no-download", *common]
    flags = {
        f"{modality}.train": ["--dataset", dataset, "--output-dir", str(folder / modality), *offline]
        for modality, dataset in (("graph", "MUTAG"), ("image", "cifar10"), ("sentence", "bookcorpus"))
    }
    flags |= {f"{modality}.evaluate": [str(folder / modality), *common] for modality in ("graph", "image")}
    for modality in ("graph", "image"):
        flags[f"{modality}.evaluate"].append("--no-download")
    flags["graph.embed"] = [str(folder / "graph"), "MUTAG", "--output", str(folder / "x.csv"), *common]
    flags["image.embed"] = [str(folder / "image"), "cifar10", "--output", str(folder / "x.csv"), *common]
    flags["image.export"] = [str(folder / "image"), "--to", "torchvision"]
    flags["image.export"] += ["--output", str(folder / "x.safetensors")]
    by_torch, ended = outcomes([(command, *flags[command]) for command in flags], preload=["torch"])
    assert "torch" in by_torch
    return by_torch, dict(zip(flags, ended, strict=True))


@pytest.mark.parametrize("command", WITHOUT_DATA)
def test_command_without_data_imports_what_it_uses(without_data, command):
    by_torch, ended = without_data
    assert ended[command].code == 2
    message = "the run is not finished" if command.endswith((".embed", ".export")) else "set --download"
    assert message in ended[command].output
    assert ended[command].imported <= WITHOUT_DATA[command] | by_torch


@pytest.fixture(scope="module")
def with_data(tmp_path_factory):
    """The same as ``without_data``, of whole commands on tiny data."""
    folder = tmp_path_factory.mktemp("with_data")
    data = write_tiny_data(folder / "data")
    flags = {}
    for modality in ("graph", "image", "sentence"):
        flags[f"{modality}.train"] = TinyCommand(modality, data).flags(folder / modality)
    flags["sentence.train"] += ["--lr", "1e30"]
    for modality in ("graph", "image"):
        flags[f"{modality}.evaluate"] = [str(folder / modality), "--data-root", str(data), "--device", "cpu"]
    flags["graph.embed"] = [str(folder / "graph"), "TINY", "--data-root", str(data), "--device", "cpu"]
    flags["graph.embed"] += ["--output", str(folder / "graphs.parquet")]
    flags["image.embed"] = [str(folder / "image"), f"folder:{data / 'images'}", "--device", "cpu"]
    flags["image.embed"] += ["--output", str(folder / "x.parquet")]
    by_torch, ended = outcomes([(command, *flags[command]) for command in flags], preload=["torch"])
    assert "torch" in by_torch
    return by_torch, dict(zip(flags, ended, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("command", WITH_DATA)
def test_command_with_data_imports_what_it_uses(with_data, command):
    by_torch, ended = with_data
    code, text = (1, "became inf in epoch 1, step 1") if command == "sentence.train" else (None, "accuracy")
    text = " embeddings" if command.endswith(".embed") else text
    assert (ended[command].code, text in ended[command].output) == (code, True), ended[command].output
    assert ended[command].imported <= WITH_DATA[command] | by_torch


@pytest.fixture(scope="module")
def tabulated(tmp_path_factory):
    """Outcomes by command, on the records of two runs."""
    folder = tmp_path_factory.mktemp("tabulated")
    runs = [str(write_record(folder / "runs" / str(seed), seed=seed).parent) for seed in (0, 1)]
    flags = {
        "shared_eval.compare": runs,
        "shared_eval.records": runs,
        "shared_eval.report": [*runs, "--output", str(folder / "report.html")],
        "shared_eval.reproduce": ["demo", "--dry-run"],
    }
    _, ended = outcomes([(command, *flags[command]) for command in flags], preload=["core.training.cli"])
    return dict(zip(flags, ended, strict=True))


@pytest.mark.parametrize("command", ON_RECORDS)
def test_tables_import_what_they_use(tabulated, command):
    assert tabulated[command].code in (None, 0), tabulated[command].output
    assert tabulated[command].imported <= ON_RECORDS[command]


@pytest.mark.parametrize("command", WITHOUT_FLAGS)
def test_command_without_flags_imports_what_it_uses(command):
    _, [ended] = outcomes([(command,)], preload=["core.training.cli"])
    assert ended.code in (None, 0), ended.output
    assert ended.imported <= WITHOUT_FLAGS[command]
