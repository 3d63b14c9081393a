"""Score an encoder's graph representations: ``python -m graph.evaluate RUN``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from core.config import default_data_root, parse
from core.environment import choose_device
from core.errors import command
from core.run import load_encoder_state, read_settings
from core.training import eval_mode
from graph.data import GraphBatch, load_dataset, make_batches
from graph.encoder import GIN, InfoGraph
from shared_eval.metrics import SAMPLED, split_similarities
from shared_eval.probes import svm_accuracy


def represent(encoder: GIN, batches: list[GraphBatch]) -> np.ndarray:
    """The representations of all graphs, in the dataset's order: [graphs, L·H].

    The encoder is in eval mode meanwhile: its batch-norm statistics do not move.
    """
    with eval_mode(encoder):
        graphs = torch.cat([encoder(batch)[1] for batch in batches])
    return graphs[torch.cat([batch.positions for batch in batches]).argsort()].cpu().numpy()


def evaluate(encoder: GIN, batches: list[GraphBatch], labels: np.ndarray, seed: int) -> dict[str, float]:
    """Mean test accuracy of the 10-fold cross-validated SVM on all graphs' representations."""
    return {"svm_accuracy": float(svm_accuracy(represent(encoder, batches), labels, seed).mean())}


def sample(model: InfoGraph, batches: list[GraphBatch], labels: np.ndarray) -> dict[str, Tensor]:
    """Representations of graphs with their labels; cosines of nodes to their own and to other graphs."""
    with eval_mode(model):
        local, global_, _ = model(batches[0])
    similarity = F.normalize(local.float(), dim=1) @ F.normalize(global_.float(), dim=1).T
    nodes = torch.linspace(0, len(local) - 1, min(SAMPLED, len(local)), device=local.device).round().long()
    is_own = batches[0].graph[nodes, None] == torch.arange(len(global_), device=local.device)
    return {
        "representations": torch.from_numpy(represent(model.encoder, batches)[:SAMPLED]),
        "labels": torch.from_numpy(labels[:SAMPLED]),
        **split_similarities(similarity[nodes], is_own),
    }


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
    device = choose_device(config.device)
    dataset = load_dataset(settings["dataset"], config.data_root)
    encoder = GIN(dataset.num_features, settings["hidden"], settings["layers"])
    load_encoder_state(encoder, config.run)
    batches = make_batches(dataset, settings["batch_size"], settings["seed"], device)
    return evaluate(encoder.to(device), batches, dataset.labels, settings["seed"])


@command
def main(argv: Sequence[str] | None = None) -> None:
    for name, value in evaluate_run(parse(EvaluateConfig, argv, "python -m graph.evaluate")).items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
