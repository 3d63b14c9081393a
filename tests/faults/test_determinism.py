"""The same seed on the same machine gives the same weights; the record says what they depend on."""

import os

import pytest
import torch

from core.training.records import read_record
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.run import run_here
from shared_eval.reproduce.spec import Job, RunSpec
from tests.faults.tiny import TinyCommand


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow  # two threads wait for each other while another worker uses the cores
def test_weights_repeat_at_the_same_number_of_threads(tiny, tmp_path, two_threads):
    """One thread may sum in another order; that is why the record names the number of threads."""
    for name in ("first", "second"):
        tiny.run_inline(tmp_path / name)
        assert read_record(tmp_path / name / "result.json")["environment"]["threads"] == 2
    assert tiny.weights(tmp_path / "first") == tiny.weights(tmp_path / "second")


def test_bag_of_words_weights_do_not_depend_on_threads(tiny_data, finished_runs, tmp_path, two_threads):
    """No sum in a bag of words is long enough to be split among threads."""
    tiny = TinyCommand("sentence", tiny_data)
    tiny.run_inline(tmp_path / "run")
    assert tiny.weights(tmp_path / "run") == tiny.weights(finished_runs("sentence"))


@pytest.mark.slow  # four commands
def test_weights_do_not_depend_on_the_number_of_jobs(tmp_path, monkeypatch):
    """At a fixed number of threads, cells trained side by side equal cells trained one after the other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    specs = locate(
        [
            RunSpec("graph", "motifs", "hard", 1.0, 0.1, seed, epochs=1, root=str(tmp_path / root))
            for root in ("1", "2")
            for seed in range(2)
        ]
    )
    for jobs, cells in ((1, specs[:2]), (2, specs[2:])):
        outcomes = list(run_here([Job((spec,)) for spec in cells], jobs))
        assert [outcome.exit_code for outcome in outcomes] == [0, 0], outcomes
    weights = [(spec.folder / "encoder.safetensors").read_bytes() for spec in specs]
    assert weights[:2] == weights[2:]
    assert weights[0] != weights[1]


def test_deterministic_flag_is_applied_recorded_and_reset(tiny, finished_runs, tmp_path, monkeypatch):
    """On a CPU the algorithms are the same; the next run without the flag is free again."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    tiny.run_inline(tmp_path / "run", "--deterministic")
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert read_record(tmp_path / "run" / "result.json")["environment"]["deterministic"]
    assert tiny.weights(tmp_path / "run") == tiny.weights(finished_runs(tiny.modality))
    tiny.run_inline(tmp_path / "other")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not read_record(tmp_path / "other" / "result.json")["environment"]["deterministic"]
