"""The objective on random embeddings, forward and backward: time and peak memory over batch sizes."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import alternatives
from benchmarks.measure import Findings, interleaved, operator_seconds, summary
from benchmarks.memory import fresh_processes, measured_on_gpu
from benchmarks.settings import ObjectiveSettings
from core import HardNegativeLoss, NTXentLoss

TITLE = "The objective"
ABOUT = (
    "Forward and backward on random embeddings of unit norm. Ours has beta 0 and tau_plus 0 (NT-Xent), as "
    "the alternatives have; ours hard has beta 1 and tau_plus 0.1. Memory is the peak above what there was "
    "before the call, the embeddings' gradient included: on a CPU the resident set, each number in its own "
    "process, which may use a quarter of the available memory; on a GPU that of its allocator. Tiles are "
    "PyTorch's on a CPU, Triton's kernels on a GPU. Large batches, and calls of over 20 seconds, are timed "
    "once, in the call that is measured for memory."
)
DENSE, TILED, HARD_DENSE, HARD_TILED = "ours, dense", "ours, tiled", "ours hard, dense", "ours hard, tiled"
LONG_SECONDS = 20.0  # a call that takes longer is timed once
TOLERANCE = 1e-5  # relative, between losses that are meant to be the same


def implementations(settings: ObjectiveSettings) -> dict[str, alternatives.PairLoss]:
    """Every loss by name; the others are compared with the first."""
    temperature, tile_size = settings.temperature, settings.tile_size
    return {
        DENSE: NTXentLoss(temperature, normalize=False),
        TILED: NTXentLoss(temperature, normalize=False, tile_size=tile_size),
        HARD_DENSE: HardNegativeLoss(1.0, 0.1, temperature, normalize=False),
        HARD_TILED: HardNegativeLoss(1.0, 0.1, temperature, normalize=False, tile_size=tile_size),
        **alternatives.nt_xent_losses(temperature),
    }


def make_views(batch: int, dim: int, device: str | torch.device) -> Tensor:
    """Two views of random embeddings, the same in every process: [2, batch, dim]."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(2, batch, dim, generator=generator), dim=-1).to(device).requires_grad_()


def prepare(name: str, batch: int, device: str, settings: dict[str, Any]) -> Callable[[], object]:
    """Prepare one call of an implementation, after a small one that does the one-time loading."""
    loss = implementations(ObjectiveSettings(**settings))[name]

    def differentiate(views: Tensor) -> None:
        torch.autograd.grad(loss(*views), views)

    differentiate(make_views(64, settings["dim"], device))
    views = make_views(batch, settings["dim"], device)
    return lambda: differentiate(views)


def same_loss(settings: ObjectiveSettings, findings: Findings) -> dict[str, alternatives.PairLoss]:
    """The implementations, without alternatives whose value on a batch is not NT-Xent's; adds a note."""
    views = make_views(64, settings.dim, "cpu")
    kept = implementations(settings)
    truth, largest = kept[DENSE](*views).item(), 0.0
    for name in [name for name in kept if not name.startswith("ours")]:
        difference = abs(kept[name](*views).item() / truth - 1)
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            del kept[name]
            findings.notes.append(
                f"{name} is not NT-Xent as SimCLR defines it: it differs by {difference:.1e} and is left out."
            )
    for package, version in alternatives.versions().items():
        if version == "not installed":
            findings.notes.append(f"{package}: not installed.")
    if len(kept) > 4:
        findings.notes.append(
            f"The alternatives' values equal ours, at beta 0 and tau_plus 0, to {max(largest, 1e-9):.0e}."
        )
    return kept


def measure(settings: ObjectiveSettings, device: torch.device, findings: Findings) -> None:
    """Time and peak memory of every implementation at every batch size."""
    findings.settings["alternatives"] = alternatives.versions()
    names = list(same_loss(settings, findings))
    has_peaks = device.type == "cuda" or Path("/proc/self/clear_refs").exists()
    if not has_peaks:
        findings.notes.append("Peak memory is not measured: it needs Linux or a GPU.")
    on_cpu = has_peaks and device.type == "cpu"
    with fresh_processes("benchmarks.objective:prepare") if on_cpu else nullcontext() as fresh:
        peak_of = fresh or (functools.partial(measured_on_gpu, prepare) if has_peaks else None)
        for batch in settings.batches:
            measure_batch(batch, names, settings, device, peak_of, findings)
        for batch in settings.large_batches if has_peaks else ():
            measure_batch(batch, [HARD_TILED], settings, device, peak_of, findings, once=True)
    state_goals(findings, device)
    for name in (HARD_DENSE, HARD_TILED):
        step = prepare(name, settings.batches[-1], str(device), vars(settings))
        seconds = operator_seconds(step, device)
        findings.share(f"{name}, batch {settings.batches[-1]:,}, by operator", seconds)


def measure_batch(
    batch: int,
    names: list[str],
    settings: ObjectiveSettings,
    device: torch.device,
    peak_of: Callable[[dict[str, Any]], dict[str, Any]] | None,
    findings: Findings,
    once: bool = False,
) -> None:
    """Measure one batch size: first the memory of each implementation, then rounds of those that ran."""
    found: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], object]] = {}
    for name in names:
        arguments = {"name": name, "batch": batch, "device": str(device), "settings": vars(settings)}
        alone = peak_of(arguments) if peak_of else {"seconds": 0.0}
        found[name] = {key: alone[key] for key in ("peak_bytes", "failed") if key in alone}
        if "failed" in alone:
            continue
        if once or alone["seconds"] > LONG_SECONDS:
            found[name] |= summary([alone["seconds"]])
        else:
            calls[name] = prepare(**arguments)
    for name, seconds in interleaved(calls, settings.rounds).items():
        found[name] |= summary(seconds)
    comparison = findings.add_comparison(f"batch {batch:,}", found)
    comparison["batch"] = batch


def state_goals(findings: Findings, device: torch.device) -> None:
    """Record the goals of tiles, where their batch sizes were measured."""
    by_batch = {comparison["batch"]: comparison["subjects"] for comparison in findings.comparisons}
    subjects = by_batch.get(4096, {})
    for dense, tiled in ((DENSE, TILED), (HARD_DENSE, HARD_TILED)):
        pair = [subjects.get(name, {}) for name in (tiled, dense)]
        wanted = [("peak_bytes", "peak memory", 0.125)]
        # A single call in a fresh process cannot be compared with warm rounds.
        if device.type == "cpu" and pair[0].get("rounds") == pair[1].get("rounds"):
            wanted.append(("median_seconds", "time", 1.3))
        for key, what, at_most in wanted:
            if all(key in one for one in pair):
                ratio = pair[0][key] / pair[1][key]
                findings.goal(f"batch 4,096: {what} of {tiled}, relative to {dense}", ratio, at_most)
    peak = by_batch.get(65_536, {}).get(HARD_TILED, {}).get("peak_bytes")
    if peak is not None:
        findings.goal(f"batch 65,536: peak memory of {HARD_TILED}", peak / 2**30, 2.0, "GiB")
