"""Parsers of recipes, records and run folders."""

import contextlib
import functools
import json
from importlib import import_module
from pathlib import Path
from unittest import mock

import safetensors.torch
from hypothesis import strategies as st

import graph.config
import graph.data
import graph.evaluate
import graph.scoring
import sentence.models
import sentence.quick_thought
from core.io.errors import InputError
from core.training.config import default_data_root
from core.training.describe import config_from
from core.training.settings import read_settings
from graph.encoder import GIN
from shared_eval import records
from shared_eval.outputs import show
from shared_eval.reproduce.recipes import FOLDER, read_recipe
from shared_eval.reproduce.spec import Job
from shared_eval.table_formats import to_markdown, to_terminal
from shared_eval.tables import scores, summarise
from tests.faults.inputs import edited, encoded, files_below, write_files
from tests.shared_eval.conftest import write_record


def read_a_recipe(content: bytes, folder: Path) -> None:
    (folder / "recipe.toml").write_bytes(content)
    recipe = read_recipe(folder / "recipe.toml")
    recipe.published_figures()
    module = import_module(f"{recipe.modality}.config")
    kind = getattr(module, f"{recipe.modality.capitalize()}Config")
    for spec in recipe.specs():
        assert Job((spec,)).command()
        with contextlib.suppress(InputError):
            config_from(kind, module.defaults_for, spec.settings()).folder()


TOML_VALUES = (
    "1",
    "-1",
    "0",
    "1e999",
    "nan",
    '"x"',
    '""',
    '"\\u0000"',
    "[]",
    "{}",
    "true",
    "[[1]]",
    "10" * 12,
)


def recipes() -> st.SearchStrategy[bytes]:
    """One of the recipes with a value of another type, with an unknown key, or damaged."""
    valid = (FOLDER / "cifar.toml").read_text()
    keys = [line.split(" = ")[0] for line in valid.splitlines() if " = " in line and line[0].isalpha()]

    def retyped(key: str, value: str) -> bytes:
        lines = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in valid.splitlines()]
        return "\n".join(lines).encode()

    values = st.sampled_from(TOML_VALUES)
    retyping = st.builds(retyped, st.sampled_from([*keys, "folder"]), values)
    added = st.builds(
        lambda key, value: f"{key} = {value}\n{valid}".encode(), st.sampled_from(("x", "folder")), values
    )
    return st.one_of(retyping, added, edited(valid.encode()))


def read_the_records(given: tuple[bytes, bytes], folder: Path) -> None:
    """A damaged record is left out and the other stays; whatever is read fits into a table."""
    record, settings = given
    good = write_record(folder / "good")
    write_files(folder / "odd", {"result.json": record, "config.json": settings})
    table = records.read_records([good, folder / "odd" / "result.json"])
    assert str(good) in set(table["path"])
    summary = summarise(scores(table))
    to_markdown(summary)
    with contextlib.redirect_stdout(encoded()):
        show(to_terminal(summary, "a title"))
        records.main.__wrapped__([str(folder), "--csv", str(folder / "all.csv")])
    if table["path"].nunique() < 2:
        raise InputError("one record was left out")


def read_an_export(content: bytes, folder: Path) -> None:
    """Whatever is read fits into a table."""
    (folder / "records.csv").write_bytes(content)
    table = summarise(scores(records.read_export(folder / "records.csv")))
    to_markdown(table)
    with contextlib.redirect_stdout(encoded()):
        show(to_terminal(table, "a title"))


def write_an_export(folder: Path) -> None:
    for seed in range(2):
        write_record(folder / f"{seed}", seed=seed)
    with contextlib.redirect_stdout(encoded()):
        records.main([str(folder), "--csv", str(folder / "records.csv")])


def read_a_folder(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    (folder / "modules.json").write_bytes(content)
    sentence.models.is_run(folder)
    sentence.quick_thought.is_quick_thought(folder)
    settings = records.settings_of(folder)
    read_settings(folder, modality="graph")
    assert isinstance(settings, dict)
    write_files(folder, {"encoder.safetensors": small_encoder()})
    with (
        mock.patch.object(graph.data, "load_dataset", load_graphs),
        mock.patch.object(graph.scoring, "evaluate", return_value=[{}]),  # which takes seconds
    ):
        graph.evaluate.evaluate_run(graph.evaluate.EvaluateConfig(run=folder, device="cpu"))


load_graphs = functools.cache(graph.data.load_dataset)


@functools.cache
def small_encoder() -> bytes:
    encoder = GIN(load_graphs("motifs", default_data_root()).num_features, SMALL["hidden"], SMALL["layers"])
    return safetensors.torch.save({name: x[0].contiguous() for name, x in encoder.state_dict().items()})


SMALL = {"modality": "graph"} | graph.config.defaults_for().as_dict() | {"hidden": 8, "layers": 2}
RECORD = json.loads(files_below(lambda folder: write_record(folder / "a"))["a/result.json"])
EXPORT = files_below(write_an_export)["records.csv"]
