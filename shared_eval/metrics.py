"""What the embeddings look like: alignment, uniformity, and how near positives and negatives are.

Shapes: B samples · D dim.
"""

import math

import torch
from torch import Tensor


def embedding_metrics(view1: Tensor, view2: Tensor) -> dict[str, float]:
    """Alignment, uniformity and mean similarities of unit-norm embeddings of two views: [B, D] twice.

    alignment: mean squared distance of positives; uniformity: log mean e^{-2 d^2} over pairs of one view
    (Wang and Isola, ICML 2020, eq. 4, 5). ``hardest_negative_similarity`` is the mean over anchors of view 1
    of the largest cosine to another sample's view 2.
    """
    similarity = view1 @ view2.T
    positive = similarity.diagonal()
    others = ~torch.eye(len(view1), dtype=torch.bool, device=view1.device)
    squared = (2 - 2 * (view1 @ view1.T))[others]
    return {
        "alignment": (2 - 2 * positive).mean().item(),
        "uniformity": (torch.logsumexp(-2 * squared, dim=0) - math.log(len(squared))).item(),
        "positive_similarity": positive.mean().item(),
        "negative_similarity": similarity[others].mean().item(),
        "hardest_negative_similarity": similarity.masked_fill(~others, -1).amax(dim=1).mean().item(),
    }
