"""The same seed on the same machine ends in the same weights, and a record says what that hangs on."""

import os

import pytest
import torch

from core.training.records import read_record
from shared_eval.reproduce.run import run_here
from shared_eval.reproduce.spec import Job, RunSpec
from tests.faults.tiny import Tiny


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_same_number_of_threads_ends_in_the_same_weights(tiny, tmp_path, two_threads):
    """Twice at two threads. One thread may sum in another order; that is why the record names the number."""
    for name in ("first", "second"):
        tiny.here(tmp_path / name)
        assert read_record(tmp_path / name / "result.json")["environment"]["threads"] == 2
    assert tiny.weights(tmp_path / "first") == tiny.weights(tmp_path / "second")


def test_sentences_embed_alike_at_any_number_of_threads(tiny_data, whole_runs, tmp_path, two_threads):
    """Bags of words have no sum that is long enough to be split."""
    tiny = Tiny("sentence", tiny_data)
    tiny.here(tmp_path / "run")
    assert tiny.weights(tmp_path / "run") == tiny.weights(whole_runs("sentence"))


def test_weights_are_the_same_at_any_number_of_jobs(tmp_path, monkeypatch):
    """At a number of threads that is set: cells side by side are cells one after the other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weights = []
    for jobs in (1, 2):
        specs = [
            RunSpec("graph", "motifs", "hard", 1.0, 0.1, seed, epochs=1, root=str(tmp_path / f"jobs{jobs}"))
            for seed in range(2)
        ]
        outcomes = list(run_here([Job((spec,)) for spec in specs], jobs))
        assert [outcome.exit_code for outcome in outcomes] == [0, 0], outcomes
        weights.append([(spec.folder / "encoder.safetensors").read_bytes() for spec in specs])
    assert weights[0] == weights[1]
    assert weights[0][0] != weights[0][1]


def test_deterministic_algorithms_are_asked_for_and_recorded(tiny, whole_runs, tmp_path, monkeypatch):
    """On a CPU they are the same ones; the setting does not outlive its run."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    tiny.here(tmp_path / "run", "--deterministic")
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert read_record(tmp_path / "run" / "result.json")["environment"]["deterministic"]
    assert tiny.weights(tmp_path / "run") == tiny.weights(whole_runs(tiny.modality))
    tiny.here(tmp_path / "other")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not read_record(tmp_path / "other" / "result.json")["environment"]["deterministic"]
