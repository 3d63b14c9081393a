"""How the suite measures: warm-up, interleaved rounds, medians, ratios, and where the time goes."""

import math
import os
import re
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parents[1]
MIN_ROUND_SECONDS = 0.05  # a shorter call is repeated within a round
MAX_WARM_UP_SECONDS = 1.0  # a first call that takes longer is the only warm-up
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's own log

# Kinds of PyTorch operators; the first pattern that matches the start of an operator's name counts.
OPERATORS = {
    "optimizer": r"fused_|foreach_",
    "convolutions": r"\w*conv",
    "recurrent layers": r"gru|lstm|thnn|mkldnn_rnn|cudnn_rnn",
    "normalisation": r"\w*(batch|layer)_norm",
    "matrix products": r"(add|b|badd|s)?mm|linear|matmul|sparse|cholesky|linalg",
    "log-sum-exp and softmax": r"logsumexp|log_?softmax|softmax|logaddexp|softplus|log_sigmoid|exp_?$",
    "masks": r"masked_|where|(eq|ne|lt|le|gt|ge)_?$|bitwise_|logical_",
    "random numbers": r"rand|uniform|normal|bernoulli",
    "resampling": r"grid_sampl|affine_grid|upsample",
    "moving and indexing": r"copy|to|cat|index|gather|scatter|embedding|clone|select|slice"
    r"|sort|nonzero|fill|zero",
    "reductions": r"sum|mean|amax|amin|(max|min|any|all)$|norm|argm|cumsum",
}


@dataclass
class Findings:
    """Results of a part; all of them can be written as JSON."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Chosen while measuring, in addition to the part's own settings."""
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)
    shares: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(
        self,
        case: str,
        subjects: dict[str, Callable[[], object]],
        rounds: int,
        unit: str | None = None,
        count: int = 1,
    ) -> dict[str, Any]:
        """Time ``subjects``, which process ``count`` of ``unit`` each; ratios are relative to the first."""
        summaries = {name: summary(seconds) for name, seconds in interleaved(subjects, rounds).items()}
        return self.add_comparison(case, summaries, unit, count)

    def add_comparison(
        self, case: str, subjects: dict[str, dict[str, Any]], unit: str | None = None, count: int = 1
    ) -> dict[str, Any]:
        """Record summaries, with rates and with ratios to the first of them."""
        for subject in subjects.values():
            if unit is not None and "median_seconds" in subject:
                subject["per_second"] = round(count / subject["median_seconds"], 1)
        comparison = {
            "case": case,
            "unit": unit,
            "subjects": subjects,
            "ratios": ratios(subjects, "median_seconds"),
            "memory_ratios": ratios(subjects, "peak_bytes"),
        }
        self.comparisons.append(comparison)
        medians = (f"{name} {row.get('median_seconds', 'not run')}" for name, row in subjects.items())
        print(f"{case}: {', '.join(medians)}", flush=True)
        return comparison

    def goal(self, what: str, measured: float, at_most: float, unit: str = "times") -> None:
        """Record a goal and what was measured."""
        self.goals.append({"goal": what, "measured": round(measured, 3), "at_most": at_most, "unit": unit})

    def share(self, what: str, seconds: dict[str, float]) -> None:
        """Record the fractions of the time of ``what``, largest first."""
        total = sum(seconds.values())
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        self.shares.append({"what": what, "parts": {name: round(part / total, 4) for name, part in ordered}})

    def note_waits(self, what: str, step: Callable[[], object], device: torch.device) -> None:
        """Note where the host waits for the GPU in ``step``; nothing on a CPU."""
        if device.type != "cuda":
            return
        waits = waits_for_gpu(step)
        places = ", ".join(f"{place} ({count} times)" for place, count in waits.items())
        self.notes.append(f"In {what} the host {f'waits for the GPU: {places}' if waits else 'never waits'}.")


def ratios(subjects: dict[str, dict[str, Any]], key: str) -> dict[str, float]:
    """Ratios of the other subjects' values to the first one's, where both have a value above 0.

    A peak of 0 bytes is that of a call so small that it fits into memory the process has already.
    """
    (_, first), *others = ((name, subject.get(key)) for name, subject in subjects.items())
    return {name: float(f"{value / first:.3g}") for name, value in others if first and value is not None}


def interleaved(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each subject in every round, after one or two calls to warm up.

    Subjects alternate, so that other load of the machine affects all of them equally.
    """
    calls = {}
    for name, subject in subjects.items():
        first = seconds_of(subject)
        warm = first if first > MAX_WARM_UP_SECONDS else seconds_of(subject)
        calls[name] = max(1, math.ceil(MIN_ROUND_SECONDS / warm))
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            seconds[name].append(seconds_of(subject, calls[name]))
    return seconds


def seconds_of(function: Callable[[], object], calls: int = 1) -> float:
    """Seconds per call, including the GPU's work."""
    synchronise()
    started = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise()
    return (time.perf_counter() - started) / calls


def synchronise(device: torch.device | None = None) -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        torch.cuda.synchronize(device)


def waits_for_gpu(step: Callable[[], object]) -> dict[str, int]:
    """The lines at which the host waits for the GPU in a call, and how often, from PyTorch's own check.

    Warm up before. The check does not see a copy from memory that is not pinned if it is meant not to wait.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing CUDA operation" in str(each.message)]
    return dict(Counter(f"{os.path.relpath(each.filename, ROOT)}:{each.lineno}" for each in waits))


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median and range of the rounds, in seconds."""
    return {
        "median_seconds": round(statistics.median(seconds), 6),
        "fastest_seconds": round(min(seconds), 6),
        "slowest_seconds": round(max(seconds), 6),
        "rounds": len(seconds),
    }


class Stopwatch:
    """Sums the seconds of a step's parts, waiting for the device after each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        synchronise(self.device)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started


Timer = Callable[[str], AbstractContextManager]


def untimed(part: str) -> AbstractContextManager:
    """A timer that does nothing."""
    return nullcontext()


def operator_seconds(step: Callable[[], object], device: torch.device, steps: int = 3) -> dict[str, float]:
    """Seconds of ``steps`` calls by kind of operator, from torch.profiler; warm up before.

    The rest of the total time is Python and the dispatcher. On a GPU, where an operator's time is that of its
    kernels, the rest is kernels that no operator launched, and waiting for the host.
    """
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        total = seconds_of(step, steps) * steps
    seconds: dict[str, float] = {}
    for event in profiler.key_averages():
        spent = (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6
        kind = kind_of_operator(event.key)
        if spent > 0 and kind is not None:
            seconds[kind] = seconds.get(kind, 0.0) + spent
    rest = total - sum(seconds.values())
    if rest > 0:
        seconds["other kernels and waiting" if is_cuda else "Python and dispatch"] = rest
    return seconds


def kind_of_operator(name: str) -> str | None:
    """The kind of a PyTorch operator; None for other events, such as autograd's frames."""
    library, _, operator = name.rpartition("::")
    if library != "aten":
        return None
    operator = operator.lstrip("_")
    return next((kind for kind, pattern in OPERATORS.items() if re.match(pattern, operator)), "elementwise")
