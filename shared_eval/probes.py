"""Probes: what a simple classifier makes of frozen representations.

Shapes: N samples · D dim.
"""

import os
from collections.abc import Callable, Iterable

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor, nn

from core.environment import seeded
from core.errors import InputError

SVM_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def svm_accuracy(
    features: np.ndarray, labels: np.ndarray, seed: int, folds: int = 10, jobs: int | None = None
) -> np.ndarray:
    """Test accuracy of each of ``folds`` stratified folds of an RBF SVM: [N, D], [N] -> [folds].

    The penalty C is chosen inside each training fold by 5-fold search over {0.001 ... 1000}; features are
    not scaled (InfoGraph's and HCL's protocol). Folds depend on labels and seed alone.

    Raises:
        InputError: A class has fewer samples than there are folds, or the features are not finite.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"the labels hold {len(classes)} class; at least 2 are needed to classify")
    if counts.min() < folds:
        raise InputError(
            f"class {classes[counts.argmin()]} has {counts.min()} samples; "
            f"{folds}-fold cross-validation needs at least {folds} of every class"
        )
    if not np.isfinite(features).all():
        raise InputError("the features to classify are not all finite")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)

    def score(train: np.ndarray, test: np.ndarray) -> float:
        search = GridSearchCV(SVC(), {"C": SVM_PENALTIES}, cv=5)
        return search.fit(features[train], labels[train]).score(features[test], labels[test])

    # libsvm works outside Python's global lock: threads use the cores, and cost no start.
    parallel = joblib.Parallel(n_jobs=jobs or os.cpu_count(), prefer="threads")
    return np.array(parallel(joblib.delayed(score)(*fold) for fold in splitter.split(features, labels)))


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    neighbours: int = 200,
    temperature: float = 0.5,
    chunk: int = 1024,
) -> float:
    """Accuracy of the weighted nearest neighbours in cosine (Wu et al., CVPR 2018, sec. 3.4): a fraction.

    Each of the nearest votes for its class with weight e^{cosine / temperature}. Takes [N, D] and [N] of the
    training, then of the test samples, on one device; ``chunk`` test samples are compared at a time.
    """
    classes = int(train_labels.max()) + 1
    train, test = F.normalize(train.float(), dim=1), F.normalize(test.float(), dim=1)
    correct = torch.zeros((), dtype=torch.long, device=test.device)
    for features, labels in zip(test.split(chunk), test_labels.split(chunk), strict=True):
        similarity, nearest = (features @ train.T).topk(min(neighbours, len(train)), dim=1)
        votes = torch.zeros(len(features), classes, device=test.device)
        votes.scatter_add_(1, train_labels[nearest], (similarity / temperature).exp())
        correct += (votes.argmax(dim=1) == labels).sum()
    return correct.item() / len(test)


def linear_probe(
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    seed: int,
    epochs: int = 100,
) -> dict[str, float]:
    """Test accuracy, top-1 and top-5, of one linear layer trained on frozen representations.

    Adam at 1e-3 with weight decay 1e-6 (Robinson et al., 2021, image code). ``batches`` gives an epoch's
    representations [B, D] and labels [B], and sees no test sample; the last epoch's layer is scored, on
    ``test`` [N, D].
    """
    with seeded(seed):
        layer = nn.Linear(test.shape[1], classes).to(test.device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, weight_decay=1e-6, fused=True)
    for epoch in range(1, epochs + 1):
        for features, labels in batches(epoch):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(layer(features), labels).backward()
            optimizer.step()
    with torch.no_grad():
        ranked = layer(test).topk(min(5, classes), dim=1).indices == test_labels.unsqueeze(1)
    return {
        "linear_accuracy": ranked[:, 0].float().mean().item(),
        "linear_top5_accuracy": ranked.any(dim=1).float().mean().item(),
    }
