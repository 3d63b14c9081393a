"""Parsers of files and command lines, with inputs for each: nearly valid, damaged, or random.

``test_fuzz.py`` tries some of these inputs, ``python -m tests.faults.fuzz`` many.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st

from core.io.errors import InputError
from tests.faults.command_parsers import command_lines, read_command_line
from tests.faults.data_parsers import (
    ARCHIVES,
    BOOKS,
    FORMATS,
    TREES,
    read_books,
    read_graphs,
    read_image_folders,
    read_images,
    read_tasks,
    unpack_archive,
)
from tests.faults.inputs import changed_json, edited, files_below, image_of, with_one_edited
from tests.faults.record_parsers import (
    EXPORT,
    RECORD,
    SMALL,
    read_a_folder,
    read_a_recipe,
    read_an_export,
    read_the_records,
    recipes,
)
from tests.graph.conftest import write_tu_dataset
from tests.sentence.conftest import write_senteval


@dataclass(frozen=True)
class Parser:
    """A parser: ``parse(input, folder)`` in an empty folder returns a value or raises InputError."""

    name: str
    inputs: st.SearchStrategy
    parse: Callable[[Any, Path], object]


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
    Parser("exports", edited(EXPORT), read_an_export),
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
