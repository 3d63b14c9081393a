"""Large batches: negatives from every rank, and an encoder that processes a batch in chunks.

Every rank runs ``python -m benchmarks.ranks SETTINGS``, started by torchrun.
"""

import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Findings, seconds_of, summary
from benchmarks.memory import ROOT, fresh_processes, measured, measured_on_gpu
from benchmarks.objective import make_views
from benchmarks.settings import RankSettings
from core import HardNegativeLoss
from core.distributed import all_reduce_max, barrier, is_main_process, local_slice, process_group
from core.io.errors import TrainingError
from core.losses.gradient_cache import cached
from core.training.runtime import choose_device
from core.training.seeding import seed_everything
from image.encoder import TwoViews, make_model

TITLE = "Many ranks and large batches"
ABOUT = (
    "The hard objective, forward and backward, with negatives from every rank: as whole rows of the matrix, "
    "in tiles after an all-gather of the embeddings, in tiles with embeddings passed around a ring. On a "
    "CPU the ranks share the cores and use gloo; on GPUs each has its own and they use NCCL. Time is that "
    "of the slowest rank, memory the largest peak relative to the memory before. Then a step of SimCLR with "
    "the whole batch encoded at once, and in chunks by gradient caching."
)
WHOLE = "whole batch"


def objectives(settings: RankSettings) -> dict[str, HardNegativeLoss]:
    """The objective with each way to exchange embeddings."""
    gathered = functools.partial(HardNegativeLoss, normalize=False, gather_distributed=True)
    tiled = functools.partial(gathered, tile_size=settings.tile_size)
    return {
        "gathered, whole rows": gathered(),
        "gathered, in tiles": tiled(exchange="gather"),
        "in a ring, in tiles": tiled(exchange="ring"),
    }


def measure(settings: RankSettings, device: torch.device, findings: Findings) -> None:
    """The objective over processes, then the step with its encoder in chunks."""
    processes = torch.cuda.device_count() if device.type == "cuda" else settings.processes
    if processes > 1:
        measure_ranks(settings, processes, device, findings)
    else:
        findings.notes.append("Only one GPU: no ranks that could share their negatives.")
    measure_chunks(settings, device, findings)


def measure_ranks(settings: RankSettings, processes: int, device: torch.device, findings: Findings) -> None:
    """Peak memory of each objective in its own group of ranks, time of all in one group."""
    names = list(objectives(settings))
    timed = in_group(settings, processes, device, names)
    subjects = {}
    for name in names:
        alone = in_group(settings, processes, device, [name])
        subjects[name] = summary(timed[name]["seconds"]) | {"peak_bytes": alone[name]["peak_bytes"]}
    findings.add_comparison(f"batch {settings.batch:,} of {processes} processes", subjects)


def in_group(
    settings: RankSettings, processes: int, device: torch.device, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Run ``work`` in a group of fresh processes; raises TrainingError if that fails."""
    task = json.dumps({"settings": asdict(settings), "device": device.type, "names": names})
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*group, "--nproc-per-node", str(processes), "-m", "benchmarks.ranks", task]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise TrainingError(
            f"a group of {processes} processes ended with {done.returncode}: {done.stderr[-300:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def work(settings: RankSettings, device: torch.device, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure on this rank: each objective's peak in its first call, then rounds in which they alternate."""
    own = local_slice(settings.batch)
    views = make_views(settings.batch, settings.dim, device).detach()[:, own].clone().requires_grad_()
    results, calls = {}, {}
    for name in names:
        loss = objectives(settings)[name]
        calls[name] = functools.partial(_gradient, loss, views)
        peak = _peak(calls[name], functools.partial(_gradient, loss, views[:, :8]), device)
        results[name] = {"seconds": [], "peak_bytes": all_reduce_max(peak)}
    for _ in range(settings.rounds):
        for name, call in calls.items():
            barrier()
            results[name]["seconds"].append(seconds_of(lambda call=call: (call(), barrier())))
    return results


def _gradient(loss: Callable[..., torch.Tensor], views: torch.Tensor) -> None:
    torch.autograd.grad(loss(*views), views)


def _peak(call: Callable[[], object], small: Callable[[], object], device: torch.device) -> int:
    """Peak memory of ``call``, after ``small`` has done the one-time loading."""
    small()
    measure_call = measured_on_gpu if device.type == "cuda" else measured
    answer = measure_call(lambda: call, {})
    if "failed" in answer:
        raise TrainingError(answer["failed"])
    return answer["peak_bytes"]


def prepare(chunk: int | None, batch: int, device: str) -> Callable[[], object]:
    """Prepare a forward and backward pass of SimCLR, on the whole batch or in chunks."""
    seed_everything(0)
    pair = TwoViews(make_model("resnet18", width=16, norm="group")).to(device)
    network, loss = cached(pair, chunk), HardNegativeLoss(normalize=False)

    def step(views: torch.Tensor) -> None:
        loss(*network(*views)).backward()
        pair.zero_grad()

    step(torch.rand(2, 8, 3, 32, 32, device=device))
    views = torch.rand(2, batch, 3, 32, 32, device=device)
    return lambda: step(views)


def measure_chunks(settings: RankSettings, device: torch.device, findings: Findings) -> None:
    """Time and peak memory of the step, on the whole batch and in chunks, each in a fresh process."""
    on_cpu = device.type == "cpu" and Path("/proc/self/clear_refs").exists()
    subjects = {}
    with fresh_processes("benchmarks.ranks:prepare") if on_cpu else nullcontext() as fresh:
        for chunk in (None, *settings.chunks):
            name = WHOLE if chunk is None else f"chunks of {chunk}"
            arguments = {"chunk": chunk, "batch": settings.encoder_batch, "device": str(device)}
            run = fresh or functools.partial(measured_on_gpu, prepare)
            answers = [run(arguments) for _ in range(settings.rounds)]
            failed = [answer["failed"] for answer in answers if "failed" in answer]
            subjects[name] = {"failed": failed[0]} if failed else _summary(answers)
    findings.add_comparison(
        f"a step on {settings.encoder_batch} images", subjects, "images", settings.encoder_batch
    )


def _summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    peaks = [answer["peak_bytes"] for answer in answers]
    return summary([answer["seconds"] for answer in answers]) | {"peak_bytes": int(statistics.median(peaks))}


def main(argument: str) -> None:
    """Measure on this rank; rank 0 prints the results."""
    task = json.loads(argument)
    device = choose_device(task["device"])
    with process_group(device):
        results = work(RankSettings(**task["settings"]), device, task["names"])
        if is_main_process():
            print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
