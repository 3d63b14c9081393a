"""Metrics of embeddings: alignment, uniformity, effective rank, similarities of positives and negatives.

Shapes: B samples · D dim.
"""

import math

import torch
from torch import Tensor

SAMPLED = 500  # representations that a run saves for figures
SHOWN = 40  # items that a run saves, with their embeddings before and after training, for neighbours
KEPT_PER_ROW = 10  # negatives of each sample, evenly spread from the nearest to the farthest


def split_similarities(
    similarity: Tensor, is_positive: Tensor | None = None, counts: Tensor | None = None
) -> dict[str, Tensor]:
    """Similarities of positives, and of some negatives of every row: [B, C] -> two vectors.

    Args:
        similarity: [B, C].
        is_positive: [B, C] bool; by default the diagonal.
        counts: [B, C] bool, the pairs that are positives or negatives; by default all.
    """
    if is_positive is None:
        is_positive = torch.eye(*similarity.shape, dtype=torch.bool, device=similarity.device)
    is_negative = ~is_positive if counts is None else counts & ~is_positive
    negatives = []
    for row, mask in zip(similarity, is_negative, strict=True):
        ordered = row[mask].sort().values
        chosen = torch.linspace(0, len(ordered) - 1, KEPT_PER_ROW, device=row.device).round().long()
        negatives.append(ordered[chosen] if len(ordered) else ordered)
    return {"positives": similarity[is_positive], "negatives": torch.cat(negatives)}


def embedding_metrics(view1: Tensor, view2: Tensor, is_negative: Tensor | None = None) -> dict[str, float]:
    """Alignment, uniformity and mean similarities of unit-norm embeddings of two views: [B, D] twice.

    alignment: mean squared distance of positives; uniformity: log mean e^{-2 d^2} over pairs of one view
    (Wang and Isola, ICML 2020, eq. 4, 5). ``hardest_negative_similarity`` is the mean over anchors of view 1
    of the largest cosine to another sample's view 2.

    Args:
        is_negative: [B, B] bool, which of view 2 are negatives of each anchor; by default all others.
    """
    similarity = view1 @ view2.T
    positive = similarity.diagonal()
    others = ~torch.eye(len(view1), dtype=torch.bool, device=view1.device)
    squared = (2 - 2 * (view1 @ view1.T))[others]
    is_negative = others if is_negative is None else is_negative
    return {
        "alignment": (2 - 2 * positive).mean().item(),
        "uniformity": (torch.logsumexp(-2 * squared, dim=0) - math.log(len(squared))).item(),
        "positive_similarity": positive.mean().item(),
        "negative_similarity": similarity[is_negative].mean().item(),
        "hardest_negative_similarity": similarity.masked_fill(~is_negative, -1).amax(dim=1).mean().item(),
    }


def effective_rank(representations: Tensor) -> float:
    """RankMe: e to the entropy of the singular values as shares of their sum, 1 to D: [B, D] -> a number.

    Garrido et al., ICML 2023, eq. 1 and 2, in float64 and without the paper's epsilon: 0 log 0 is 0. It is 0
    if all representations are 0.
    """
    matrix = representations.cpu().double()
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()  # several times faster than svdvals
    total = values.sum()
    return torch.special.entr(values / total).sum().exp().item() if total else 0.0
