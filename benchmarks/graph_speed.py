"""Graph training and evaluation, timed: ``python -m benchmarks.graph_speed``.

Three parts, each beside a slow twin that works as the released code does: the masks filled node by node in
Python, messages passed along edges, batches collated anew in every epoch, the loss read after every step.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

from benchmarks.timing import interleaved, summary, write_results
from core import InfoGraphLoss
from core.config import default_data_root, parse
from core.environment import choose_device, seed_everything
from core.errors import command
from graph.data import GraphBatch, GraphDataset, load_dataset, make_batches
from graph.encoder import GIN, InfoGraph
from graph.evaluate import evaluate


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Time graph training beside its slow twin, and the evaluation."""

    datasets: tuple[str, ...] = ("MUTAG", "PROTEINS", "DD")
    """An epoch, a step on the first 128 graphs and the objective there are timed on each."""
    rounds: int = 5
    device: str = "cpu"
    output: Path = Path("benchmarks/results/graph_speed.json")


class SlowGIN(nn.Module):
    """Our encoder's layers with PyG's message passing along edges."""

    def __init__(self, encoder: GIN) -> None:
        super().__init__()
        self.encoder = encoder
        self.sum_of_neighbours = GINConv(nn.Identity())
        self.dim = encoder.dim

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, outputs = batch.x, []
        for mlp, norm in zip(self.encoder.mlps, self.encoder.norms, strict=True):
            x = norm(F.relu(mlp(self.sum_of_neighbours(x, batch.edge_index))))
            outputs.append(x)
        pooled = [global_add_pool(x, batch.batch) for x in outputs]
        return torch.cat(outputs, dim=1), torch.cat(pooled, dim=1)


def slow_objective(local: Tensor, global_: Tensor, batch: Tensor) -> Tensor:
    """InfoGraph's objective with both masks filled one node at a time."""
    positive = torch.zeros(len(local), len(global_), device=local.device)
    negative = torch.ones_like(positive)
    for node, graph in enumerate(batch):
        positive[node][graph] = 1.0
        negative[node][graph] = 0.0
    scores = local @ global_.T
    pulled = (F.softplus(-scores * positive) - F.softplus(torch.zeros(()))).sum() / len(local)
    pushed = (F.softplus(scores * negative) - F.softplus(torch.zeros(()))).sum()
    return pulled + pushed / (len(local) * (len(global_) - 1))


def take_steps(
    model: InfoGraph, objective: Callable, batches: Iterable[GraphBatch | Batch], graph_of: Callable
) -> Callable[[], None]:
    """A function that takes one step on each batch and reads the last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def steps() -> None:
        for batch in batches:
            local, global_, _ = model(batch)
            loss = objective(local, global_, graph_of(batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()

    return steps


def subjects_of(dataset: GraphDataset, device: torch.device) -> dict[str, dict[str, Callable[[], object]]]:
    """What is timed: ours and its slow twin, for an epoch, a step and the objective alone."""
    batches = make_batches(dataset, 128, 0, device)
    loader = DataLoader([graph.to(device) for graph in dataset.graphs], batch_size=128)
    first = Batch.from_data_list([dataset.graphs[i] for i in batches[0].positions.tolist()]).to(device)
    ours, slow = InfoGraphLoss(1.0, 0.1), slow_objective
    seed_everything(0)
    model = InfoGraph(GIN(dataset.num_features)).to(device)
    slow_model = InfoGraph(SlowGIN(GIN(dataset.num_features))).to(device)
    local, global_, _ = (part.detach().requires_grad_() for part in model(batches[0]))

    def own_graph(batch: GraphBatch) -> Tensor:
        return batch.graph

    def own_graph_of_pyg(batch: Batch) -> Tensor:
        return batch.batch

    return {
        "epoch": {
            "ours": take_steps(model, ours, batches, own_graph),
            "slow twin": take_steps(slow_model, slow, loader, own_graph_of_pyg),
        },
        "step": {
            "ours": take_steps(model, ours, batches[:1], own_graph),
            "slow twin": take_steps(slow_model, slow, [first], own_graph_of_pyg),
        },
        "objective": {
            "ours": lambda: ours(local, global_, batches[0].graph).backward(),
            "slow twin": lambda: slow(local, global_, batches[0].graph).backward(),
        },
    }


def page_of(results: dict) -> str:
    """The results as a page of Markdown."""
    lines = [
        "# Speed of graph training",
        "",
        "Ours beside a slow twin of the same weights that works as the released code does (masks filled node "
        "by node in Python, messages along edges, batches collated in every epoch): milliseconds, medians of "
        "interleaved rounds. Again: `python -m benchmarks.graph_speed`.",
        "",
        "| dataset | nodes of a batch | what | ours | slow twin | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        for part in ("epoch", "step", "objective"):
            ours, twin = (1000 * result[part][who]["median_seconds"] for who in ("ours", "slow twin"))
            cells = (name, result["nodes_of_a_batch"], part, f"{ours:.1f}", f"{twin:.1f}")
            lines.append(f"| {' | '.join(map(str, cells))} | {result[part]['ratio']} |")
    lines += [
        f"\n{name}: evaluation (10 folds, inner search) {result['evaluation_seconds']} s."
        for name, result in results.items()
        if "evaluation_seconds" in result
    ]
    return "\n".join(lines) + "\n"


@command
def main() -> None:
    config = parse(SpeedConfig, None, "python -m benchmarks.graph_speed")
    device = choose_device(config.device)
    results = {}
    for name in config.datasets:
        dataset = load_dataset(name, default_data_root())
        batches = make_batches(dataset, 128, 0, device)
        results[name] = {"nodes_of_a_batch": len(batches[0].graph)}
        for part, subjects in subjects_of(dataset, device).items():
            seconds = interleaved(subjects, config.rounds)
            times = {subject: summary(values) for subject, values in seconds.items()}
            ratio = times["slow twin"]["median_seconds"] / times["ours"]["median_seconds"]
            results[name][part] = times | {"ratio": round(ratio, 1)}
            print(
                f"{name} {part}: {1000 * times['ours']['median_seconds']:.1f} ms, {ratio:.1f} times as fast"
            )
        if len(dataset.graphs) <= 200:
            started = time.perf_counter()
            evaluate(GIN(dataset.num_features).to(device), batches, dataset.labels, 0)
            results[name]["evaluation_seconds"] = round(time.perf_counter() - started, 2)
            print(f"{name} evaluation: {results[name]['evaluation_seconds']} s")
    write_results(config.output, results, page_of(results), device)


if __name__ == "__main__":
    main()
