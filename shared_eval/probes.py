"""Probes: what a simple classifier makes of frozen representations.

Shapes: N samples · D dim.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from core.io.errors import InputError
from core.training.seeding import seeded
from shared_eval.logistic import fit_logistic, predict_logistic
from shared_eval.svm import CrossValidation, fold_accuracies

SENTEVAL_SEED = 1111  # of all its folds (facebookresearch/SentEval)


def check_counts(labels: np.ndarray, least: int, what: str) -> None:
    """Raise InputError unless there are two classes or more, of ``least`` samples or more each."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"the labels hold {len(classes)} class; at least 2 are needed to classify")
    if counts.min() < least:
        raise InputError(
            f"class {classes[counts.argmin()]} has {counts.min()} samples; "
            f"{what} needs at least {least} of every class"
        )


def svm_accuracy(
    features: np.ndarray, labels: np.ndarray, seed: int, folds: int = 10, jobs: int | None = None
) -> np.ndarray:
    """Test accuracy of each of ``folds`` stratified folds of an RBF SVM: [N, D], [N] -> [folds].

    The penalty C is chosen inside each training fold by 5-fold search over {0.001 ... 1000}; features are
    not scaled (InfoGraph's and HCL's protocol). Folds depend on labels and seed alone.

    Raises:
        InputError: A class has fewer samples than there are folds, or the features are not finite.
    """
    _check_classifiable(features, labels, folds)
    validation = CrossValidation(features, labels, seed, folds)
    # libsvm works outside Python's global lock: threads use the cores, and cost no start.
    parallel = joblib.Parallel(jobs or torch.get_num_threads(), prefer="threads")
    return np.array(parallel(joblib.delayed(validation.accuracy)(*fold) for fold in validation.folds()))


def svm_accuracies(
    features: Sequence[np.ndarray],
    labels: np.ndarray,
    seeds: Sequence[int],
    folds: int = 10,
    jobs: int | None = None,
) -> list[np.ndarray]:
    """``svm_accuracy`` of several representations of the same samples, each with a seed for its folds.

    Around small SVMs scikit-learn's Python takes most of the time, and holds the global lock: so every
    representation is a process's, where there are several.
    """
    processes = min(jobs or torch.get_num_threads(), len(features))
    if processes < 2:
        return [svm_accuracy(of, labels, seed, folds, jobs) for of, seed in zip(features, seeds, strict=True)]
    for of in features:
        _check_classifiable(of, labels, folds)
    parallel = joblib.Parallel(processes, return_as="generator")
    with _interrupts_ignored():
        accuracies = parallel(
            joblib.delayed(fold_accuracies)(of, labels, seed, folds)
            for of, seed in zip(features, seeds, strict=True)
        )
    return list(accuracies)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Inside, processes are started out of reach of a terminal's Ctrl-C: who waits for them ends them.

    Only a main thread may say so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_classifiable(features: np.ndarray, labels: np.ndarray, folds: int) -> None:
    check_counts(labels, folds, f"{folds}-fold cross-validation")
    if not np.isfinite(features).all():
        raise InputError("the features to classify are not all finite")


def choose_penalties(
    features: Tensor,
    labels: Tensor,
    parts: Sequence[Tensor],
    penalties: Sequence[float],
    folds: int,
    seed: int,
) -> list[float]:
    """The penalty C of the best mean accuracy over stratified, shuffled folds of each part: [N, D], [N].

    ``parts`` are masks [N] of the samples to choose on. Of equals, the smallest C. All regressions of all
    parts, folds and penalties are fitted together.
    """
    fitted_to, tested_on, grid = [], [], []
    for part in parts:
        for training, test in fold_masks(labels, part, folds, seed):
            fitted_to += [training] * len(penalties)
            tested_on += [test] * len(penalties)
            grid += penalties
    accuracies = logistic_accuracies(features, labels, fitted_to, tested_on, grid)
    means = accuracies.reshape(len(parts), folds, len(penalties)).mean(axis=1)
    return [penalties[best] for best in means.argmax(axis=1)]


def nested_logistic_accuracy(
    features: Tensor, labels: Tensor, penalties: Sequence[float], folds: int = 10, seed: int = SENTEVAL_SEED
) -> np.ndarray:
    """Test accuracy of each fold of a logistic regression, C chosen inside it: [N, D], [N] -> [folds].

    Stratified, shuffled folds outside, as many inside, none of them seeing the fold's test samples; with the
    C chosen the fold's whole training part is fitted (SentEval's scikit-learn mode). No feature is scaled.

    Raises:
        InputError: A class has fewer samples than the folds need, or the features are not finite.
    """
    check_counts(labels.numpy(force=True), folds + 2, f"{folds} folds inside {folds} folds")
    outer = fold_masks(labels, torch.ones_like(labels, dtype=torch.bool), folds, seed)
    training, test = zip(*outer, strict=True)
    chosen = choose_penalties(features, labels, training, penalties, folds, seed)
    return logistic_accuracies(features, labels, training, test, chosen)


def logistic_accuracies(
    features: Tensor,
    labels: Tensor,
    fitted_to: Sequence[Tensor],
    tested_on: Sequence[Tensor],
    penalties: Sequence[float],
) -> np.ndarray:
    """Accuracy on ``tested_on`` of a regression for each penalty, fitted to ``fitted_to``, masks [N]: [P]."""
    if not features.isfinite().all():
        raise InputError("the features to classify are not all finite")
    classes = int(labels.max()) + 1
    grid = torch.tensor(penalties, device=features.device)
    coefficients = fit_logistic(features, labels, classes, torch.stack(list(fitted_to)), grid)
    accuracies = []
    for mask, coefficient in zip(tested_on, coefficients, strict=True):
        correct = predict_logistic(features[mask], coefficient[None])[0] == labels[mask]
        accuracies.append(correct.double().mean().item())
    return np.array(accuracies)


def fold_masks(labels: Tensor, part: Tensor, folds: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Training and test masks [N] of stratified, shuffled folds of the samples in ``part``."""
    places = part.nonzero().squeeze(1).cpu().numpy()
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    masks = []
    for chosen in splitter.split(places, labels.cpu().numpy()[places]):
        pair = [torch.zeros_like(part) for _ in chosen]
        for mask, of_fold in zip(pair, chosen, strict=True):
            mask[torch.from_numpy(places[of_fold]).to(part.device)] = True
        masks.append(tuple(pair))
    return masks


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
