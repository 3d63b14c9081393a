"""Tiny runs of every modality, as real processes."""

from pathlib import Path

import pytest

from tests.faults.tiny import FLAGS, Tiny, write_tiny_data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def whole_runs(tiny_data, tmp_path_factory):
    """The folder of an uninterrupted run of each modality, made when first asked for."""
    made = {}

    def whole(modality: str) -> Path:
        if modality not in made:
            folder = tmp_path_factory.mktemp("whole") / modality
            trainer = Tiny(modality, tiny_data).run(folder)
            assert trainer.wait() == 0, trainer.said()
            made[modality] = folder
        return made[modality]

    return whole


@pytest.fixture(params=list(FLAGS))
def tiny(request, tiny_data) -> Tiny:
    return Tiny(request.param, tiny_data)


@pytest.fixture
def tiny_graph(tiny_data) -> Tiny:
    return Tiny("graph", tiny_data)
