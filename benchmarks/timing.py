"""How the studies measure: warm-up, interleaved rounds, medians, and the machine they ran on."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.environment import describe_environment
from core.files import write_atomically


def interleaved(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of each subject, after one round to warm up.

    Subjects take turns, so that whatever else the machine does falls on all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for round_ in range(rounds + 1):
        for name, subject in subjects.items():
            started = time.perf_counter()
            subject()
            synchronise()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronise(device: torch.device | None = None) -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        torch.cuda.synchronize(device)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and range of some rounds, in seconds."""
    return {
        "median_seconds": round(statistics.median(seconds), 6),
        "fastest_seconds": round(min(seconds), 6),
        "slowest_seconds": round(max(seconds), 6),
        "rounds": len(seconds),
    }


def write_results(path: Path, results: dict[str, Any], page: str, device: torch.device) -> None:
    """Write ``results`` with the environment as JSON to ``path``, and ``page`` beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = describe_environment(device)
    content = {"environment": environment, "results": results}
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    machine = (
        f"{environment['device_name']}, {environment['threads']} threads, "
        f"Python {environment['python']}, torch {environment['torch']}, revision {environment['revision']}"
    )
    write_atomically(path.with_suffix(".md"), f"{page}\nMeasured on {machine}; all figures: `{path.name}`.\n")
    print(f"written: {path}, {path.with_suffix('.md')}")
