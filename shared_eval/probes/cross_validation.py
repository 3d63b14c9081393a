"""Cross-validated logistic regressions, SentEval's protocol; all folds and penalties are fitted together.

Shapes: N samples · D features · P problems.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shared_eval.probes.checks import check_counts, check_finite
from shared_eval.probes.logistic import fit_logistic, predict_logistic

SENTEVAL_SEED = 1111  # of all its folds (facebookresearch/SentEval)

# newton: all regressions at once, each to its minimum. lbfgs: scikit-learn, one after the other; its defaults
# stop some digits before the minimum.
Solver = Literal["newton", "lbfgs"]


def nested_logistic_accuracy(
    features: Tensor,
    labels: Tensor,
    penalties: Sequence[float],
    folds: int = 10,
    seed: int = SENTEVAL_SEED,
    solver: Solver = "newton",
) -> np.ndarray:
    """Test accuracy of a logistic regression on each fold, C chosen inside it: [N, D], [N] -> [folds].

    Stratified, shuffled folds outside, as many inside, none of which sees the outer fold's test samples; the
    chosen C is then fitted to the outer fold's whole training part (SentEval's scikit-learn mode). Features
    are not scaled.

    Raises:
        InputError: A class has fewer samples than the folds need, or the features are not finite.
    """
    check_counts(labels.numpy(force=True), folds + 2, f"{folds} folds inside {folds} folds")
    outer = fold_masks(labels, torch.ones_like(labels, dtype=torch.bool), folds, seed)
    training, test = zip(*outer, strict=True)
    chosen = choose_penalties(features, labels, training, penalties, folds, seed, solver)
    return logistic_accuracies(features, labels, training, test, chosen, solver)


def choose_penalties(
    features: Tensor,
    labels: Tensor,
    parts: Sequence[Tensor],
    penalties: Sequence[float],
    folds: int,
    seed: int,
    solver: Solver = "newton",
) -> list[float]:
    """The penalty C with the best mean accuracy over stratified, shuffled folds of each part: [N, D], [N].

    ``parts`` are masks [N] of the samples to choose on.
    """
    train_masks: list[Tensor] = []
    test_masks: list[Tensor] = []
    for part in parts:
        for training, test in fold_masks(labels, part, folds, seed):
            train_masks += [training] * len(penalties)
            test_masks += [test] * len(penalties)
    grid = list(penalties) * (len(parts) * folds)
    accuracies = logistic_accuracies(features, labels, train_masks, test_masks, grid, solver)
    means = accuracies.reshape(len(parts), folds, len(penalties)).mean(axis=1)
    return [penalties[best] for best in best_accuracies(means)]


def logistic_accuracies(
    features: Tensor,
    labels: Tensor,
    train_masks: Sequence[Tensor],
    test_masks: Sequence[Tensor],
    penalties: Sequence[float],
    solver: Solver = "newton",
) -> np.ndarray:
    """Test accuracy of P regressions, each with its own masks [N] of samples and its own C: [P]."""
    predicted = logistic_predictions(features, labels, train_masks, test_masks, penalties, solver)
    return np.array(
        [
            (classes == labels[mask]).double().mean().item()
            for mask, classes in zip(test_masks, predicted, strict=True)
        ]
    )


def logistic_predictions(
    features: Tensor,
    labels: Tensor,
    train_masks: Sequence[Tensor],
    test_masks: Sequence[Tensor],
    penalties: Sequence[float],
    solver: Solver = "newton",
) -> list[Tensor]:
    """The classes that P regressions, each with its own masks [N] and its own C, predict for test samples.

    Raises InputError if the features are not finite.
    """
    check_finite(features)
    if solver == "lbfgs":
        return _lbfgs_predictions(features, labels, train_masks, test_masks, penalties)
    # An offset changes nothing but the intercepts, which would lose digits to it.
    features = features - features.mean(dim=0, dtype=torch.float64).to(features.dtype)
    classes = int(labels.max()) + 1
    grid = torch.tensor(penalties, device=features.device)
    coefficients = fit_logistic(features, labels, classes, torch.stack(list(train_masks)), grid)
    return [
        predict_logistic(features[mask], coefficient[None])[0]
        for mask, coefficient in zip(test_masks, coefficients, strict=True)
    ]


def _lbfgs_predictions(
    features: Tensor,
    labels: Tensor,
    train_masks: Sequence[Tensor],
    test_masks: Sequence[Tensor],
    penalties: Sequence[float],
) -> list[Tensor]:
    """``logistic_predictions`` by scikit-learn's LogisticRegression, on the features as they are."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression

    inputs, targets = features.numpy(force=True), labels.numpy(force=True)
    predicted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train_mask, test_mask, penalty in zip(train_masks, test_masks, penalties, strict=True):
            training, test = train_mask.numpy(force=True), test_mask.numpy(force=True)
            model = LogisticRegression(C=penalty).fit(inputs[training], targets[training])
            predicted.append(torch.from_numpy(model.predict(inputs[test])).to(features.device))
    return predicted


def best_accuracies(accuracies: np.ndarray) -> np.ndarray:
    """Where the last dimension has its maximum: [..., G] -> [...].

    Accuracies are rounded to a hundredth of a point, as SentEval does; of equal ones the first is taken, the
    smallest C of an ascending grid.
    """
    return np.round(100 * accuracies, 2).argmax(axis=-1)


def fold_masks(labels: Tensor, part: Tensor, folds: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Training and test masks [N] of stratified, shuffled folds of the samples in ``part`` [N]."""
    from sklearn.model_selection import StratifiedKFold  # slow to import

    indices = part.nonzero().squeeze(1).cpu().numpy()
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)

    def mask(chosen: np.ndarray) -> Tensor:
        selected = torch.zeros_like(part)
        selected[torch.from_numpy(indices[chosen]).to(part.device)] = True
        return selected

    splits = splitter.split(indices, labels.cpu().numpy()[indices])
    return [(mask(training), mask(test)) for training, test in splits]
