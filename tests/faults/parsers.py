"""Parsers of files and command lines, with inputs for each: nearly valid, damaged, or random.

``test_fuzz.py`` tries some of these inputs, ``python -m tests.faults.fuzz`` many.
"""

import contextlib
import functools
import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import numpy as np
import pytest
import safetensors.torch
from hypothesis import HealthCheck
from hypothesis import strategies as st
from PIL import Image

import graph.config
import graph.data
import graph.evaluate
import graph.scoring
import image.config
import image.evaluate
import sentence.config
import sentence.evaluate
import sentence.models
import sentence.quick_thought
from core.io.archives import unpack
from core.io.errors import InputError
from core.training.cli import flag, parse, parse_config
from core.training.config import MAX_SEED, default_data_root
from core.training.describe import config_from
from core.training.runtime import choose_device
from core.training.settings import MAX_FLOAT, read_settings
from graph.encoder import GIN
from graph.tudataset import load_tu_dataset
from image.folders import split_folders
from image.skipped import Skipped
from sentence.corpora import Faults, find_corpus
from sentence.tasks import SENTEVAL, load_task
from sentence.text import sentences_of
from shared_eval import compare, records, report, reproduce
from shared_eval.outputs import show
from shared_eval.reproduce.recipes import FOLDER, read_recipe
from shared_eval.reproduce.spec import Job
from shared_eval.table_formats import to_markdown, to_terminal
from shared_eval.tables import scores, summarise
from tests.core.io.test_archives import MEMBERS, tar_of, zip_of
from tests.graph.conftest import write_tu_dataset
from tests.image.conftest import read_class_folders
from tests.sentence.conftest import write_senteval
from tests.shared_eval.conftest import write_record

# Bytes that break parsers: signs, numbers at and beyond their limits, other encodings, other line ends.
PIECES = (
    *(b"", b"\n", b"\r\n", b"\r", b"\0", b"\t", b",", b", ", b" ", b'"', b"'", b":", b"#", b"=", b"[", b"{"),
    *(
        b"0",
        b"-1",
        b"1",
        b"2.5",
        b"1e400",
        b"nan",
        b"inf",
        b"true",
        b"null",
        b"9" * 30,
        b"18446744073709551616",
    ),
    *(b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc3", b"\x1a", "\u0661\u2028\u0085".encode(), b"A. b! C? "),
    *(b"[" * 3000, b"x" * 70_000, b"1," * 5000, b"7\n" * 500),
)


def edited(valid: bytes) -> st.SearchStrategy[bytes]:
    """A file with up to four parts replaced, or truncated, or random bytes."""
    position = st.integers(0, len(valid))
    edit = st.tuples(
        position, st.sampled_from((0, 0, 1, 3, 100)), st.sampled_from(PIECES) | st.binary(max_size=8)
    )

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = valid
        for start, length, piece in edits:
            content = content[:start] + piece + content[start + length :]
        return content

    some = st.lists(edit, min_size=1, max_size=4).map(apply)
    return st.one_of(some, some, position.map(lambda end: valid[:end]), st.binary(max_size=200))


def with_one_edited(files: dict[str, bytes]) -> st.SearchStrategy[dict[str, bytes | None]]:
    """Files of which one is edited or missing (None)."""

    def change(name: str) -> st.SearchStrategy[dict[str, bytes | None]]:
        content = st.one_of(*[edited(files[name])] * 9, st.none())
        return content.map(lambda content: files | {name: content})

    return st.sampled_from(sorted(files)).flatmap(change)


def write_files(folder: Path, files: dict[str, bytes | None]) -> None:
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def files_below(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that ``write(folder)`` makes, by their paths below ``folder``."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Parser:
    """A parser: ``parse(input, folder)`` in an empty folder returns a value or raises InputError."""

    name: str
    inputs: st.SearchStrategy
    parse: Callable[[Any, Path], object]


def read_graphs(files: dict[str, bytes | None], folder: Path) -> None:
    write_files(folder, files)
    load_tu_dataset("TINY", folder / "TUDataset" / "TINY" / "raw")


def read_tasks(files: dict[str, bytes | None], folder: Path) -> None:
    write_files(folder, files)
    for name in SENTEVAL:
        load_task(name, folder)


PROSE = "\n".join(["The river held. It was cold!", "", "“Where?” she said; nobody knew…", "  A new one."] * 8)


def compressed(content: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from((b"", content, content * 3)).map(gzip.compress).flatmap(edited)


def read_books(given: tuple[dict[str, bytes], bool], folder: Path) -> None:
    files, strict = given
    write_files(folder, files)
    faults = Faults(strict)
    corpus = find_corpus(f"folder:{folder}", folder)
    corpus.fingerprint()
    for _, lines in corpus.books(faults):
        for sentence_ in sentences_of(lines):
            assert "\n" not in sentence_
    faults.report()


BOOKS = st.tuples(
    st.fixed_dictionaries(
        {"plain.txt": edited(PROSE.encode())},
        optional={
            "utf16.txt": edited(PROSE.encode("utf-16")),
            "latin.txt": edited("Déjà vu, said he. Là-bas!\n".encode("latin-1") * 9),
            "packed.txt.gz": compressed(PROSE.encode()),
        },
    ),
    st.booleans(),
)


def read_a_recipe(content: bytes, folder: Path) -> None:
    (folder / "recipe.toml").write_bytes(content)
    recipe = read_recipe(folder / "recipe.toml")
    recipe.published_figures()
    kind = getattr(sys.modules[f"{recipe.modality}.config"], f"{recipe.modality.capitalize()}Config")
    for spec in recipe.specs():
        assert Job((spec,)).command()
        with contextlib.suppress(InputError):
            config_from(kind, sys.modules[kind.__module__].defaults_for, spec.settings()).folder()


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


def encoded() -> io.TextIOWrapper:
    """A stdout that raises for text that UTF-8 cannot encode."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from((10**400, "a\nb", "\0", "[/b]", "\udcff", r"$\foo$")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed_json(valid: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """An object with a value replaced at one of two depths; or damaged text."""
    paths = [(key,) for key in valid]
    paths += [(key, inner) for key, value in valid.items() if isinstance(value, dict) for inner in value]

    def change(path: tuple[str, ...], value: Any) -> bytes:
        content = json.loads(json.dumps(valid))
        parent = content if len(path) == 1 else content[path[0]]
        parent[path[-1]] = value
        return json.dumps(content).encode()

    changed = st.builds(change, st.sampled_from(paths), JSON)
    unchanged = st.just(json.dumps(valid).encode())
    return st.one_of(
        changed,
        changed,
        unchanged,
        JSON.map(json.dumps).map(str.encode),
        edited(json.dumps(valid).encode()),
    )


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

TRAINERS = {
    "graph": (graph.config.GraphConfig, graph.config.defaults_for),
    "image": (image.config.ImageConfig, image.config.defaults_for),
    "sentence": (sentence.config.SentenceConfig, sentence.config.defaults_for),
}
EVALUATORS = (
    graph.evaluate.EvaluateConfig,
    image.evaluate.EvaluateConfig,
    sentence.evaluate.EvaluateConfig,
)
# Run in an empty folder, where they have no records, or only plan.
COMMANDS = {
    records.RecordsConfig: records.main,
    compare.CompareConfig: compare.main,
    report.ReportConfig: report.main,
    reproduce.ReproduceConfig: reproduce.main,
}
WORDS = st.sampled_from(
    [
        *("0", "1", "-1", "0.5", "nan", "inf", "-inf", "1e999", "10" * 40, "", " ", "-", "--", "=", "@x"),
        *("hard", "debiased", "simclr", "gru", "MUTAG", "folder:x", "auto", "--help", "None", "True"),
        *("a\nb", "\udcff", "x" * 3000, "x[/bold]", "meta", "demo", "1e30", "1e300", "9" * 9, "1" + 30 * "0"),
    ]
)


def command_lines() -> st.SearchStrategy[tuple[str | type, list[str]]]:
    def flags_for(kind: str | type) -> st.SearchStrategy:
        settings = fields(TRAINERS[kind][0] if isinstance(kind, str) else kind)
        flags = st.sampled_from([flag(field.name) for field in settings])
        parts = st.one_of(
            st.tuples(flags, WORDS),
            st.tuples(flags),
            st.tuples(WORDS),
            st.builds(lambda name, word: (f"{name}={word}",), flags, WORDS),
            st.tuples(st.text(max_size=8).filter(lambda word: not {"\0", "/"} & set(word))),
        )
        return st.lists(parts, max_size=4).map(
            lambda parts: (kind, [word for part in parts for word in part])
        )

    return st.sampled_from([*TRAINERS, *EVALUATORS, *COMMANDS]).flatmap(flags_for)


def read_command_line(given: tuple[str | type, Sequence[str]], folder: Path) -> None:
    """Parse command lines of training and evaluation; run the other commands."""
    kind, argv = given
    try:
        if kind in COMMANDS:
            only = ["--dry-run"] if kind is reproduce.ReproduceConfig else []
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(encoded()):
                patch.chdir(folder)
                COMMANDS[kind].__wrapped__([*argv, *only])
        elif kind in EVALUATORS:
            choose_device(parse(kind, argv, "python -m command").device)
        else:
            config = parse_config(*TRAINERS[kind], argv, f"python -m {kind}.train")
            choose_device(config.device)
            for value in config.as_dict().values():
                most = MAX_FLOAT if isinstance(value, float) else MAX_SEED
                assert not isinstance(value, int | float) or 0 <= value <= most
    except SystemExit as exit_:
        if exit_.code:  # 0 after --help
            raise


def image_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def read_images(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    write_files(folder, {name: content, "b/0.png": image_of("PNG")})
    files = [(path, 0) for path in folder.rglob("*") if path.is_file()]
    images, _ = read_class_folders(files, 8)
    assert images.shape == (2, 3, 8, 8)


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "PCX")


def read_image_folders(given: list[tuple[str, str, str]], folder: Path) -> None:
    """Read folders with folders, links and pipes in them, under names that may end in .png."""
    (folder / "root").mkdir()
    for parent, name, kind in given:
        path = folder / "root" / parent / name
        if os.path.lexists(path):  # writing to a pipe would wait for a reader
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "image":
                path.write_bytes(image_of("PNG"))
            else:
                path.symlink_to({"loop": path, "up": folder / "root", "nowhere": "nowhere"}[kind])
        except OSError:  # the path exists already, as something else
            continue
    train, test, _ = split_folders(folder / "root", Skipped())
    for files in (train, test):
        read_class_folders(files, 8)


COMPLETE = [(parent, "good.png", "image") for parent in ("train/a", "train/b", "test/a", "test/b")]
TREES = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "train/a",
                "train/b",
                "test/a",
                "test/b",
                "a",
                "b",
                ".",
                "train",
                "val/a",
                "Testing/b",
                "a/.x",
                "b/c",
            )
        ),
        st.sampled_from(("0.png", "1.png", "x.png", ".hidden", "a", "\udcff", "new\nline")),
        st.sampled_from(("folder", "pipe", "image", "image", "image", "loop", "up", "nowhere")),
    ),
    max_size=6,
).flatmap(lambda tree: st.sampled_from((tree, COMPLETE + tree, COMPLETE[:3] + tree)))


def unpack_archive(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    (folder / name).write_bytes(content)
    try:
        unpack(folder / name, folder / "out")
    except OSError as error:  # as fetch_archive handles an error of the disk
        raise InputError(str(error)) from error


ARCHIVES = st.one_of(
    edited(zip_of(MEMBERS)).map(lambda content: ("a.zip", content)),
    edited(tar_of(MEMBERS)).map(lambda content: ("a.tar", content)),
    edited(gzip.compress(tar_of(MEMBERS))).map(lambda content: ("a.tar.gz", content)),
)

PARSERS = (
    Parser("TU text files", with_one_edited(files_below(write_tu_dataset)), read_graphs),
    Parser("SentEval files", with_one_edited(files_below(write_senteval)), read_tasks),
    Parser("book folders", BOOKS, read_books),
    Parser(
        "images",
        st.sampled_from(FORMATS).flatmap(
            lambda kind: edited(image_of(kind)).map(lambda content: ("a/0", content))
        ),
        read_images,
    ),
    Parser("image folders", TREES, read_image_folders),
    Parser("archives", ARCHIVES, unpack_archive),
    Parser("recipes", recipes(), read_a_recipe),
    Parser("records", st.tuples(changed_json(RECORD), changed_json(SMALL)), read_the_records),
    Parser("settings", changed_json(SMALL), read_a_folder),
    Parser("command lines", command_lines(), read_command_line),
)


def outcome(parser: Parser, given: Any) -> str:
    """Return ``values``, or ``errors`` for an InputError of one line; other exceptions pass through."""
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=f"{folder}-cache"),
    ):
        try:
            parser.parse(given, Path(folder))
        except InputError as error:
            message = str(error)
        else:
            return "values"
    assert len(message.splitlines()) == 1
    return "errors"


def try_inputs(parser: Parser, examples: int, seed: int | None = None) -> dict[str, int]:
    """Count the outcomes of ``examples`` inputs, which are always the same without a seed."""
    counts = {"inputs": 0, "values": 0, "errors": 0}

    @hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(parser.inputs)
    def attempt(given: Any) -> None:
        counts[outcome(parser, given)] += 1
        counts["inputs"] += 1

    (attempt if seed is None else hypothesis.seed(seed)(attempt))()
    return counts
