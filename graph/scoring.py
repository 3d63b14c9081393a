"""Score an encoder's graph representations.

Shapes: R runs · U different nodes of a batch · G graphs of it · N graphs of the dataset · L·H representation.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.training.loop import eval_mode
from graph.batch import GraphBatch
from graph.encoder import GIN, InfoGraph
from shared_eval.metrics import SAMPLED, split_similarities
from shared_eval.probes import svm_accuracies


def represent_batch(encoder: GIN, batch: GraphBatch) -> Tensor:
    """The representations of a batch's graphs in eval mode, for each run: [R, G, L·H]."""
    with eval_mode(encoder):
        return encoder(batch)[1]


def represent(encoder: GIN, batches: Sequence[GraphBatch]) -> np.ndarray:
    """The representations of all graphs in the dataset's order, for each run: [R, N, L·H]."""
    graphs = torch.cat([represent_batch(encoder, batch) for batch in batches], dim=1)
    order = torch.cat([batch.positions for batch in batches], dim=1).argsort(dim=1)
    return graphs.take_along_dim(order.unsqueeze(2), dim=1).cpu().numpy()


def evaluate(
    encoder: GIN, batches: Sequence[GraphBatch], labels: np.ndarray, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """Mean test accuracy of the 10-fold cross-validated SVM on all graphs' representations, for each run.

    Runs of one seed are equal before training: equal representations are scored once.
    """
    representations = represent(encoder, batches)
    keys = [(seed, features.tobytes()) for features, seed in zip(representations, seeds, strict=True)]
    distinct = dict(zip(keys, representations, strict=True))
    accuracies = svm_accuracies(list(distinct.values()), labels, [seed for seed, _ in distinct])
    means = {key: float(folds.mean()) for key, folds in zip(distinct, accuracies, strict=True)}
    return [{"svm_accuracy": means[key]} for key in keys]


def samples(model: InfoGraph, batches: Sequence[GraphBatch], labels: np.ndarray) -> list[dict[str, Tensor]]:
    """Representations of graphs with their labels, and cosines of nodes to graphs, for each run.

    A positive is the cosine of a node to its own graph, a negative the cosine to another.
    """
    batch = batches[0]
    with eval_mode(model):
        local, global_, _ = model(batch)
    similarities = F.normalize(local.float(), dim=2) @ F.normalize(global_.float(), dim=2).mT  # (R, U, G)
    sampled = []
    for run, representation in enumerate(represent(model.encoder, batches)):
        pairs = int(batch.weight[run].count_nonzero())
        chosen = torch.linspace(0, pairs - 1, min(SAMPLED, pairs), device=local.device).round().long()
        node, graph = batch.node[run, chosen], batch.graph[run, chosen]
        is_own = graph.unsqueeze(1) == torch.arange(global_.shape[1], device=local.device)
        sampled.append(
            {
                "representations": torch.from_numpy(representation[:SAMPLED]),
                "labels": torch.from_numpy(labels[:SAMPLED]),
                **split_similarities(similarities[run, node], is_own),
            }
        )
    return sampled
