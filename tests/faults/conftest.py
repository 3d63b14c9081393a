"""Tiny runs of every modality, as real processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.tiny import FLAGS, TinyCommand, write_tiny_data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Data root with the tiny datasets of every modality."""
    return write_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def finished_runs(tiny_data, tmp_path_factory) -> Callable[[str], Path]:
    """A function from a modality to the folder of an uninterrupted run, trained on first use."""
    folders: dict[str, Path] = {}

    def finished(modality: str) -> Path:
        if modality not in folders:
            folders[modality] = tmp_path_factory.mktemp("finished") / modality
            TinyCommand(modality, tiny_data).finish(folders[modality])
        return folders[modality]

    return finished


@pytest.fixture(params=list(FLAGS))
def tiny(request, tiny_data) -> TinyCommand:
    """The training command of each modality in turn."""
    return TinyCommand(request.param, tiny_data)


@pytest.fixture
def tiny_graph(tiny_data) -> TinyCommand:
    """The training command for graphs."""
    return TinyCommand("graph", tiny_data)
