"""Score an encoder's graph representations, with labels or without.

Shapes: R runs · U different nodes of a batch · G graphs of it · N graphs of the dataset · L·H representation.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.io.errors import InputError
from core.training.loop import eval_mode
from graph.batch import GraphBatch
from graph.encoder import GIN, InfoGraph
from shared_eval.metrics import SAMPLED, effective_rank, split_similarities
from shared_eval.probes import svm_accuracies
from shared_eval.probes.checks import check_counts

FOLDS = 10  # of the SVM's cross-validation

SAME = 1e-5  # scores that differ less, relative to the larger, are equal but for rounding


def represent_batch(encoder: GIN, batch: GraphBatch) -> Tensor:
    """The representations of a batch's graphs in eval mode, for each run: [R, G, L·H]."""
    with eval_mode(encoder):
        return encoder(batch)[1]


def represent(encoder: GIN, batches: Sequence[GraphBatch]) -> np.ndarray:
    """The representations of all graphs in the dataset's order, for each run: [R, N, L·H]."""
    graphs = torch.cat([represent_batch(encoder, batch) for batch in batches], dim=1)
    order = torch.cat([batch.positions for batch in batches], dim=1).argsort(dim=1)
    return graphs.take_along_dim(order.unsqueeze(2), dim=1).cpu().numpy()


def check_classes(labels: np.ndarray, what: str, remedy: str) -> None:
    """Raise InputError, with the ``remedy``, if the SVM cannot score the labels, those of ``what``."""
    try:
        check_counts(labels, FOLDS, f"{FOLDS}-fold cross-validation")
    except InputError as error:
        raise InputError(f"{what}: {error}; {remedy} to train and score without labels") from None


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


def evaluate_without_labels(model: InfoGraph, batches: Sequence[GraphBatch]) -> list[dict[str, float]]:
    """Scores that need no labels, for each run, over the batches of training.

    effective_rank: of all graphs' representations, from 1 to L·H (RankMe, Garrido et al., ICML 2023).
    positive_similarity, negative_similarity, hardest_negative_similarity: mean cosine of a node's local
    projection to the global projection of its own graph, of the others in its batch, and of the nearest one.
    own_graph_accuracy: the share of nodes whose own graph has the highest score of its batch, the score being
    the objective's, the inner product of the projections. Among k graphs with equal scores, such as those
    of isomorphic graphs, a node counts as 1 / k. Chance is 1 / G.
    """
    totals: list[dict[str, float]] = [{} for _ in batches[0].node]
    nodes_of_all = sum(batch.count for batch in batches).flatten().tolist()
    with eval_mode(model):
        for batch in batches:
            local, global_, _ = model(batch)
            for run, total in enumerate(totals):
                share = batch.count[run].item() / nodes_of_all[run]
                for name, value in _pair_scores(local[run], global_[run], batch, run).items():
                    total[name] = total.get(name, 0.0) + share * value
    ranks = [effective_rank(torch.from_numpy(graphs)) for graphs in represent(model.encoder, batches)]
    return [{"effective_rank": rank} | total for rank, total in zip(ranks, totals, strict=True)]


def _pair_scores(local: Tensor, global_: Tensor, batch: GraphBatch, run: int) -> dict[str, float]:
    """Means over the nodes of one run's batch, of projections [U, L·H] and [G, L·H]."""
    node, graph, weight = batch.node[run], batch.graph[run].unsqueeze(1), batch.weight[run]
    local, global_ = local.float(), global_.float()
    scores = (local @ global_.mT)[node]  # (P, G)
    own = scores.gather(1, graph)
    margin = SAME * torch.maximum(own.abs(), scores.abs())
    is_best = ~(scores > own + margin).any(dim=1)
    tied = ((scores - own).abs() <= margin).sum(dim=1)
    cosines = (F.normalize(local, dim=1) @ F.normalize(global_, dim=1).mT)[node]
    positive = cosines.gather(1, graph).squeeze(1)
    hardest = cosines.scatter(1, graph, -torch.inf).amax(dim=1)
    values = {
        "positive_similarity": positive,
        "negative_similarity": (cosines.sum(dim=1) - positive) / (len(global_) - 1),
        "hardest_negative_similarity": hardest,
        "own_graph_accuracy": is_best / tied,
    }
    return {name: (weight * value).sum().item() for name, value in values.items()}


def samples(
    model: InfoGraph, batches: Sequence[GraphBatch], labels: np.ndarray | None
) -> list[dict[str, Tensor]]:
    """Representations of graphs with their labels, if any, and cosines of nodes to graphs, for each run.

    The graphs are taken evenly, because those of a TUDataset lie sorted by class. A positive is the cosine of
    a node to its own graph, a negative the cosine to another.
    """
    batch = batches[0]
    with eval_mode(model):
        local, global_, _ = model(batch)
    similarities = F.normalize(local.float(), dim=2) @ F.normalize(global_.float(), dim=2).mT  # (R, U, G)
    sampled = []
    for run, representation in enumerate(represent(model.encoder, batches)):
        taken = np.linspace(0, len(representation) - 1, min(SAMPLED, len(representation))).round().astype(int)
        pairs = int(batch.weight[run].count_nonzero())
        chosen = torch.linspace(0, pairs - 1, min(SAMPLED, pairs), device=local.device).round().long()
        node, graph = batch.node[run, chosen], batch.graph[run, chosen]
        is_own = graph.unsqueeze(1) == torch.arange(global_.shape[1], device=local.device)
        sampled.append(
            {
                "representations": torch.from_numpy(representation[taken]),
                **({} if labels is None else {"labels": torch.from_numpy(labels[taken])}),
                **split_similarities(similarities[run, node], is_own),
            }
        )
    return sampled
