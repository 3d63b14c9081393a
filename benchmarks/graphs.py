"""Graph training compared with the released code's way of computing it, and many seeds in one process."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from benchmarks.measure import Findings, Stopwatch, Timer, interleaved, operator_seconds, untimed
from benchmarks.released_graphs import ReleasedInfoGraph, released_objective
from benchmarks.settings import GraphSettings
from core import InfoGraphLoss
from core.io.errors import InputError, TrainingError
from core.training.config import default_data_root
from core.training.runtime import threads_for
from graph.batch import GraphBatch, make_batches, step_elements
from graph.data import GraphDataset, load_dataset
from graph.encoder import make_models

TITLE = "Graph training"
ABOUT = (
    "InfoGraph with its hard objective, one seed. The reference computes as the released code does: every "
    "node, messages along edges, masks filled node by node in Python, batches collated again in every "
    "epoch; its objective is InfoGraph's original one, which is less work. A step and the objective are "
    "those of the first batch. Commands are timed as a user starts them, including imports and evaluation."
)
REFERENCE = "reference"
HIDDEN, LAYERS = 32, 3  # of the encoder; the commands' defaults
PEAK_SIZE = 2048  # of the matrix product whose rate counts as the device's peak

Batches = GraphBatch | Batch


class GraphSteps:
    """Training steps on some batches, with an optional timer of their parts."""

    def __init__(
        self,
        model: nn.Module,
        project: Callable[[Batches], tuple[Tensor, ...]],
        objective: Callable[..., Tensor],
        batches: Iterable[Batches],
    ) -> None:
        self.project, self.objective, self.batches = project, objective, batches
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def __call__(self, timer: Timer = untimed) -> None:
        for batch in self.batches:
            with timer("encoder and heads, forward"):
                projected = self.project(batch)
            with timer("objective"):
                loss = self.objective(*projected).sum()
            with timer("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
            with timer("optimizer"):
                self.optimizer.step()


def subjects_of(
    dataset: GraphDataset, batches: list[GraphBatch], batch_size: int, device: torch.device
) -> dict[str, dict[str, Callable[[], object]]]:
    """Ours and the reference, for an epoch, a step and the objective alone."""
    loader = DataLoader([Data(**vars(graph)).to(device) for graph in dataset.graphs], batch_size=batch_size)
    positions = batches[0].positions[0].tolist()
    first = Batch.from_data_list([Data(**vars(dataset.graphs[i])) for i in positions]).to(device)
    beta, tau_plus = torch.tensor([[1.0], [0.1]], device=device)
    objective = InfoGraphLoss(beta, tau_plus)  # tensors, as in training: a group of one run
    model = make_models(dataset.num_features, HIDDEN, LAYERS, seeds=[0]).to(device)
    reference = ReleasedInfoGraph(dataset.num_features).to(device)

    def ours(batch: GraphBatch) -> tuple[Tensor, ...]:
        local, global_, _ = model(batch)
        return local, global_, batch.graph, batch.node, batch.weight

    def released(batch: Batch) -> tuple[Tensor, ...]:
        return *reference(batch), batch.batch

    def alone(loss: Callable[..., Tensor], projected: tuple[Tensor, ...]) -> Callable[[], object]:
        local, global_ = pair = [part.detach().requires_grad_() for part in projected[:2]]
        return lambda: torch.autograd.grad(loss(local, global_, *projected[2:]).sum(), pair)

    return {
        "epoch": {
            "ours": GraphSteps(model, ours, objective, batches),
            REFERENCE: GraphSteps(reference, released, released_objective, loader),
        },
        "step": {
            "ours": GraphSteps(model, ours, objective, batches[:1]),
            REFERENCE: GraphSteps(reference, released, released_objective, [first]),
        },
        "objective": {
            "ours": alone(objective, ours(batches[0])),
            REFERENCE: alone(released_objective, released(first)),
        },
    }


def measure(settings: GraphSettings, device: torch.device, findings: Findings) -> None:
    """Measure an epoch, a step and the objective on every available dataset; then complete commands."""
    for name in settings.datasets:
        try:
            dataset = load_dataset(name, default_data_root())
        except InputError as error:
            findings.notes.append(f"Left out: {error}.")
            continue
        batches = make_batches(dataset, settings.batch_size, [0], device)
        with threads_for(step_elements(batches, HIDDEN)):
            measure_dataset(dataset, batches, settings, device, findings)
    if settings.command_rounds:
        measure_commands(settings, device, findings)


def measure_dataset(
    dataset: GraphDataset,
    batches: list[GraphBatch],
    settings: GraphSettings,
    device: torch.device,
    findings: Findings,
) -> None:
    """Measure an epoch, a step and the objective on one dataset, with as many threads as training takes."""
    name, first = dataset.name, batches[0]
    subjects = subjects_of(dataset, batches, settings.batch_size, device)
    findings.notes.append(
        f"The first batch of {name} has {int(first.count):,} nodes, of which {first.sums.shape[1]:,} "
        "are different."
    )
    for what, pair in subjects.items():
        graphs = len(dataset.graphs) if what == "epoch" else first.positions.shape[1]
        findings.compare(f"{name}, {what}", pair, settings.rounds, "graphs", graphs)
    step = subjects["step"]["ours"]
    findings.notes.append(share_of_peak(name, step, settings.rounds, device))
    stopwatch = Stopwatch(device)
    for _ in range(settings.rounds):
        step(stopwatch)
    findings.share(f"our step on {name}, by part", stopwatch.seconds)
    findings.note_waits(f"a step on {name}", step, device)
    findings.share(f"our step on {name}, by operator", operator_seconds(step, device))


def share_of_peak(name: str, step: Callable[[], object], rounds: int, device: torch.device) -> str:
    """How near the matrix products of a step bring it to the rate of one large product, timed in turn."""
    with FlopCounterMode(display=False) as counter:
        step()
    operations = counter.get_total_flops()
    square = torch.ones(PEAK_SIZE, PEAK_SIZE, device=device)
    seconds = interleaved({"step": step, "product": lambda: square @ square}, rounds)
    rate, peak = (
        count / statistics.median(seconds[what]) / 1e9
        for what, count in (("step", operations), ("product", 2 * PEAK_SIZE**3))
    )
    threads = torch.get_num_threads()
    return (
        f"Our step on {name} has {operations / 1e9:.3g} GFLOP of matrix products: {rate:.3g} GFLOP/s, "
        f"{rate / peak:.0%} of the {peak:.3g} GFLOP/s of a product of {PEAK_SIZE:,} squared in float32 "
        f"({threads} thread{'s' if threads > 1 else ''})."
    )


def measure_commands(settings: GraphSettings, device: torch.device, findings: Findings) -> None:
    """Complete commands: one seed, many seeds together, and these at several betas: a row of a table."""
    common = ["--dataset", settings.command_dataset, "--device", str(device)]
    together = [*common, "--seeds", settings.seeds]
    subjects = {
        "--seed 0": [*common, "--seed", "0"],
        f"--seeds {settings.seeds}": together,
        f"--seeds {settings.seeds} --betas {settings.betas}": [*together, "--betas", settings.betas],
    }

    def run(flags: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(*flags, "--output-dir", f"{folder}/runs")

    try:
        comparison = findings.compare(
            f"{settings.command_dataset}, graph.train",
            {name: lambda flags=flags: run(flags) for name, flags in subjects.items()},
            settings.command_rounds,
        )
    except TrainingError as error:
        findings.notes.append(f"Many seeds in one command: not measured, {error}.")
        return
    _, many, row = comparison["subjects"]
    if (settings.command_dataset, settings.seeds, settings.betas) == ("MUTAG", "0-9", "0,1,2,10"):
        findings.goal("ten seeds of MUTAG, relative to one", comparison["ratios"][many], 3.0)
        findings.goal("40 runs of MUTAG, evaluated", comparison["subjects"][row]["median_seconds"], 60.0, "s")


def train(*flags: str) -> None:
    """Run ``python -m graph.train``; raises TrainingError with its last line if it fails."""
    command = [sys.executable, "-m", "graph.train", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        raise TrainingError(f"graph.train {' '.join(flags)} ended with {done.returncode}: {last}")
