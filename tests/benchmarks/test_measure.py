"""Ratios, shares and peaks against known values."""

import os
import re
import signal
import warnings

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Findings, Stopwatch, interleaved, kind_of_operator, operator_seconds, summary
from benchmarks.memory import fresh_processes

MIB = 2**20


def test_rates_and_ratios_are_relative_to_the_first():
    findings = Findings()
    subjects = {
        "ours": summary([0.2, 0.1, 0.4]) | {"peak_bytes": 100},
        "theirs": summary([0.5, 0.3, 0.7]) | {"peak_bytes": 800},
        "too large": {"failed": "needs more"},
    }
    comparison = findings.add_comparison("case", subjects, "graphs", 60)
    assert comparison["ratios"] == {"theirs": 2.5}
    assert comparison["memory_ratios"] == {"theirs": 8.0}
    assert [subjects[name]["per_second"] for name in ("ours", "theirs")] == [300.0, 120.0]
    ours = subjects["ours"]
    assert (ours["fastest_seconds"], ours["slowest_seconds"], ours["rounds"]) == (0.1, 0.4, 3)


def test_no_ratio_to_a_subject_that_did_not_run():
    subjects = {"ours": {"failed": "needs more"}, "theirs": summary([1.0])}
    assert Findings().add_comparison("case", subjects)["ratios"] == {}


def test_no_ratio_to_a_peak_of_zero():
    subjects = {"ours": {"peak_bytes": 0}, "theirs": {"peak_bytes": 4096}}
    assert Findings().add_comparison("case", subjects)["memory_ratios"] == {}


def test_subjects_alternate_after_a_warm_up(monkeypatch):
    monkeypatch.setattr(measure, "MIN_ROUND_SECONDS", 0.0)
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert "".join(order) == "aabb" + "ab" * 3
    assert [len(rounds) for rounds in seconds.values()] == [3, 3]


def test_short_calls_are_repeated_within_a_round():
    calls = 0

    def call():
        nonlocal calls
        calls += 1

    assert interleaved({"a": call}, rounds=1)["a"][0] < 1e-3
    assert calls > 20


def test_shares_are_fractions_of_the_total_in_order():
    findings = Findings()
    findings.share("a step", {"views": 1.0, "backward": 3.0})
    assert list(findings.shares[0]["parts"].items()) == [("backward", 0.75), ("views", 0.25)]


def test_stopwatch_sums_repeated_parts(monkeypatch):
    now = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(now))
    stopwatch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with stopwatch("part"):
            pass
    assert stopwatch.seconds == {"part": 3.0}


class TestWaits:
    """PyTorch warns of each wait, if it is asked to; here a stand-in for it does."""

    @pytest.fixture
    def modes(self, monkeypatch):
        modes = []
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
        return modes

    def step(self, waits):
        for _ in range(waits):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=2)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)

    def test_lines_and_counts(self, modes):
        found = measure.waits_for_gpu(lambda: self.step(2))
        assert list(found.values()) == [2]
        assert next(iter(found)).startswith("tests/benchmarks/test_measure.py:")
        assert measure.waits_for_gpu(lambda: self.step(0)) == {}
        assert modes == ["warn", "default"] * 2

    def test_mode_is_reset_after_an_error(self, modes):
        with pytest.raises(ZeroDivisionError):
            measure.waits_for_gpu(lambda: 1 / 0)
        assert modes == ["warn", "default"]

    @pytest.mark.parametrize(
        ("waits", "note"),
        [
            (0, r"In a step the host never waits\."),
            (3, r"In a step the host waits for the GPU: .*:\d+ \(3 times\)\."),
        ],
    )
    def test_note(self, waits, note, modes):
        findings = Findings()
        findings.note_waits("a step", lambda: self.step(waits), torch.device("cuda"))
        assert re.fullmatch(note, findings.notes[0])

    def test_nothing_is_noted_of_a_cpu(self, modes):
        findings = Findings()
        findings.note_waits("a step", pytest.fail, torch.device("cpu"))
        assert (findings.notes, modes) == ([], [])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::_softmax_backward_data", "log-sum-exp and softmax"),
        ("aten::exp_", "log-sum-exp and softmax"),
        ("aten::expand", "elementwise"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::native_batch_norm", "normalisation"),
        ("aten::clamp_min_", "elementwise"),
        ("aten::_fused_adam_", "optimizer"),
        ("aten::masked_fill_", "masks"),
        ("autograd::engine::evaluate_function: MulBackward0", None),
        ("Optimizer.step#Adam.step", None),
    ],
)
def test_kind_of_operator(name, kind):
    assert kind_of_operator(name) == kind


def test_profiler_attributes_time_to_matrix_products():
    a = torch.randn(600, 600)
    seconds = operator_seconds(lambda: (a @ a).exp_(), torch.device("cpu"))
    assert max(seconds, key=seconds.get) == "matrix products"
    assert seconds["log-sum-exp and softmax"] > 0


def prepare(how: str, mib: int = 0):
    if how == "refuse":
        raise RuntimeError("no such thing\nand more")
    if how == "die":
        return lambda: os.kill(os.getpid(), signal.SIGKILL)
    torch.ones(2).sum()
    return lambda: torch.ones(mib * MIB // 4).sum()


def test_fresh_process_measures_a_known_allocation():
    """Memory of an earlier call is not counted, and a call that dies does not end the server."""
    with fresh_processes(f"{__name__}:prepare") as call:
        for mib in (200, 20, 80):
            assert call({"how": "take", "mib": mib})["peak_bytes"] / MIB == pytest.approx(mib, abs=4)
        assert call({"how": "take", "mib": 2**30})["failed"].startswith("needs more than ")
        assert call({"how": "refuse"}) == {"failed": "no such thing"}
        assert call({"how": "die"}) == {"failed": "ended by SIGKILL"}
        assert call({"how": "take", "mib": 8})["seconds"] > 0
