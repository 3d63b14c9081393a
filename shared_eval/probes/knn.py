"""Weighted nearest neighbours.

Shapes: N samples · D features · B test samples compared at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 200  # that vote for the class of a sample


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    neighbours: int = NEIGHBOURS,
    temperature: float = 0.5,
    chunk: int = 1024,
) -> float:
    """Accuracy of weighted nearest neighbours in cosine similarity, a fraction.

    Each neighbour votes for its class with weight e^{cosine / temperature} (Wu et al., CVPR 2018, sec. 3.4).

    Args:
        train: [N, D], and ``train_labels`` [N].
        test: [N, D], and ``test_labels`` [N], on the same device.
        neighbours: Number of neighbours that vote.
        temperature: Divides the cosines.
        chunk: Test samples compared at a time.
    """
    classes = int(train_labels.max()) + 1
    train, test = F.normalize(train.float(), dim=1), F.normalize(test.float(), dim=1)
    correct = torch.zeros((), dtype=torch.long, device=test.device)
    for features, labels in zip(test.split(chunk), test_labels.split(chunk), strict=True):
        similarity, nearest = (features @ train.T).topk(min(neighbours, len(train)), dim=1)
        votes = torch.zeros(len(features), classes, device=test.device)
        votes.scatter_add_(1, train_labels[nearest], (similarity / temperature).exp())  # (B, classes)
        correct += (votes.argmax(dim=1) == labels).sum()
    return correct.item() / len(test)
