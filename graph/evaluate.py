"""Score an encoder's graph representations: ``python -m graph.evaluate RUN``.

Shapes: S runs · U different nodes of a batch · G graphs · L·H representation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import MAX_SEED, default_data_root, setting
from core.training.loop import eval_mode
from core.training.run_folder import load_encoder_state, read_settings
from core.training.runtime import choose_device
from graph.batch import GraphBatch, make_batches
from graph.data import load_dataset
from graph.encoder import GIN, InfoGraph
from shared_eval.metrics import SAMPLED, split_similarities
from shared_eval.probes import svm_accuracies


def represent_batch(encoder: GIN, batch: GraphBatch) -> Tensor:
    """The representations of a batch's graphs, of each run: [S, G, L·H].

    The encoder is in eval mode meanwhile: its batch-norm statistics do not move.
    """
    with eval_mode(encoder):
        return encoder(batch)[1]


def represent(encoder: GIN, batches: list[GraphBatch]) -> np.ndarray:
    """The representations of all graphs, in the dataset's order, of each run: [S, graphs, L·H]."""
    graphs = torch.cat([represent_batch(encoder, batch) for batch in batches], dim=1)
    order = torch.cat([batch.positions for batch in batches], dim=1).argsort(dim=1)
    return graphs.take_along_dim(order.unsqueeze(2), dim=1).cpu().numpy()


def evaluate(
    encoder: GIN, batches: list[GraphBatch], labels: np.ndarray, seeds: Sequence[int]
) -> dict[str, list[float]]:
    """Mean test accuracy of the 10-fold cross-validated SVM on all graphs' representations, of each run.

    Runs of one seed are alike before training: what is equal is scored once.
    """
    representations = represent(encoder, batches)
    keys = [(seed, of.tobytes()) for of, seed in zip(representations, seeds, strict=True)]
    different = dict(zip(keys, representations, strict=True))
    accuracies = svm_accuracies(list(different.values()), labels, [seed for seed, _ in different])
    mean = {key: float(of_folds.mean()) for key, of_folds in zip(different, accuracies, strict=True)}
    return {"svm_accuracy": [mean[key] for key in keys]}


def samples(model: InfoGraph, batches: list[GraphBatch], labels: np.ndarray) -> list[dict[str, Tensor]]:
    """Of each run, representations of graphs with their labels, and cosines of nodes to graphs.

    A positive is the cosine of a node to its own graph, a negative that to another.
    """
    batch = batches[0]
    with eval_mode(model):
        local, global_, _ = model(batch)
    similarities = F.normalize(local.float(), dim=2) @ F.normalize(global_.float(), dim=2).mT  # (S, U, G)
    found = []
    for run, representation in enumerate(represent(model.encoder, batches)):
        pairs = int(batch.weight[run].count_nonzero())
        chosen = torch.linspace(0, pairs - 1, min(SAMPLED, pairs), device=local.device).round().long()
        node, graph = batch.node[run, chosen], batch.graph[run, chosen]
        is_own = graph.unsqueeze(1) == torch.arange(global_.shape[1], device=local.device)
        found.append(
            {
                "representations": torch.from_numpy(representation[:SAMPLED]),
                "labels": torch.from_numpy(labels[:SAMPLED]),
                **split_similarities(similarities[run, node], is_own),
            }
        )
    return found


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate a run's trained encoder again, on the run's dataset and folds."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data_root: Path = field(default_factory=default_data_root)
    """Where local copies of the data sets lie; $HCL_DATA sets the default."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""


def evaluate_run(config: EvaluateConfig) -> dict[str, float]:
    """The metrics of the encoder in a run's folder, as ``result.json`` has them."""
    settings = read_settings(config.run, modality="graph")
    hidden, layers = setting(settings, "hidden", int), setting(settings, "layers", int, most=1000)
    if min(hidden, layers) < 1:
        raise InputError(f"config.json has hidden {hidden} and layers {layers}; both must be at least 1")
    batch_size = max(1, setting(settings, "batch_size", int))
    seeds = [setting(settings, "seed", int, MAX_SEED)]
    device = choose_device(config.device)
    dataset = load_dataset(setting(settings, "dataset", str), config.data_root)
    with torch.device("meta"):  # the settings may ask for more memory than the weights have
        encoder = GIN(dataset.num_features, hidden, layers)
    load_encoder_state(encoder, config.run, lambda state: {name: x[None] for name, x in state.items()})
    batches = make_batches(dataset, batch_size, seeds, device, layers)
    found = evaluate(encoder.to(device), batches, dataset.labels, seeds)
    return {name: value for name, [value] in found.items()}


@command
def main(argv: Sequence[str] | None = None) -> None:
    for name, value in evaluate_run(parse(EvaluateConfig, argv, "python -m graph.evaluate")).items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
