"""The regression of SICK's relatedness, 1 to 5 (Tai, Socher, Manning, ACL 2015, section 4.2).

Shapes: N pairs · D features.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.training.seeding import seeded
from shared_eval.probes.cross_validation import SENTEVAL_SEED

CLASSES = 5
BATCH = 64
EPOCHS_AT_ONCE = 50  # between two looks at the validation part
MAX_EPOCHS = 1000
PATIENCE = 4  # looks without a better correlation, in total, that end the training


def predict_relatedness(features: Tensor, scores: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Predictions for the pairs of part "test", by a softmax layer trained on "train".

    A score between two classes is a distribution over both, and a prediction the mean of the predicted
    distribution. All is SentEval's: mean squared error of the distributions, Adam with its default settings,
    initial weights, batches of 64, and the weights with the best Pearson correlation on "dev", which is
    computed every 50 epochs.

    Args:
        features: [N, D] float.
        scores: [N], 1 to 5.
        parts: [N], "train", "dev" or "test" for each pair.
    """
    train, dev, test = (
        features[torch.from_numpy(parts == part).to(features.device)] for part in ("train", "dev", "test")
    )
    targets = distributions(scores[parts == "train"]).to(train)
    with seeded(SENTEVAL_SEED):
        layer = nn.Linear(features.shape[1], CLASSES).to(features)
    batches = np.random.RandomState(SENTEVAL_SEED)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    best, best_layer, failures = -1.0, copy.deepcopy(layer), 0
    for _ in range(0, MAX_EPOCHS + 1, EPOCHS_AT_ONCE):
        for _ in range(EPOCHS_AT_ONCE):
            order = torch.from_numpy(batches.permutation(len(train))).to(train.device)
            for inputs, target in zip(train[order].split(BATCH), targets[order].split(BATCH), strict=True):
                optimizer.zero_grad(set_to_none=True)
                F.mse_loss(layer(inputs).softmax(dim=1), target).backward()
                optimizer.step()
        correlation = pearson(predictions(layer, dev), scores[parts == "dev"])
        if correlation > best:
            best, best_layer = correlation, copy.deepcopy(layer)
        else:
            failures += 1
            if failures == PATIENCE:
                break
    return predictions(best_layer, test)


def distributions(scores: np.ndarray) -> Tensor:
    """The distribution over a score's two neighbours among 1 to 5, with the score as mean: [N] -> [N, 5]."""
    distance = torch.from_numpy(scores).unsqueeze(1) - torch.arange(1, CLASSES + 1)
    return (1 - distance.abs()).clamp(min=0)


@torch.no_grad()
def predictions(layer: nn.Linear, features: Tensor) -> np.ndarray:
    """Means of the predicted distributions: [N, D] -> [N]."""
    classes = torch.arange(1, CLASSES + 1, dtype=torch.float64, device=features.device)
    means: np.ndarray = (layer(features).softmax(dim=1).double() @ classes).numpy(force=True)
    return means


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation, 0 if one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
