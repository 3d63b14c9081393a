"""The linear probe: one layer trained on frozen representations.

Shapes: N samples · B samples in a batch · D features.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.training.optimizers import make_optimizer
from core.training.seeding import seeded


def linear_probe(
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    seed: int,
    epochs: int = 100,
) -> dict[str, float]:
    """Top-1 and top-5 test accuracy of a linear layer.

    Trained by Adam at 1e-3 with weight decay 1e-6 (Robinson et al., 2021, image code). The layer of the last
    epoch is scored: no epoch is chosen on test samples.

    Args:
        batches: Takes an epoch's number; returns its training representations [B, D] and labels [B].
        test: [N, D], and ``test_labels`` [N].
        classes: Number of classes.
        seed: Seeds the layer's weights.
        epochs: Passes over the training representations.
    """
    with seeded(seed):
        layer = nn.Linear(test.shape[1], classes).to(test.device)
    optimizer = make_optimizer("adam", layer.parameters(), lr=1e-3, weight_decay=1e-6)
    for epoch in range(1, epochs + 1):
        for features, labels in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(layer(features), labels).backward()
            optimizer.step()
    with torch.no_grad():
        ranked = layer(test).topk(min(5, classes), dim=1).indices == test_labels.unsqueeze(1)
    return {
        "linear_accuracy": ranked[:, 0].double().mean().item(),
        "linear_top5_accuracy": ranked.any(dim=1).double().mean().item(),
    }
