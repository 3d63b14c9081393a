"""Evaluation does not leak: fits do not depend on test samples, and folds do not overlap."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import nn

from sentence.scoring import evaluate
from sentence.tasks import Classification
from shared_eval.probes import choose_penalties, fit_logistic, fold_masks, linear_probe, svm_accuracy


def samples(classes: int, count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [N, 6] that depend on the class, and labels [N]: 0, 1, ..., 0, 1, ..."""
    draw = torch.Generator().manual_seed(classes)
    labels = torch.arange(count) % classes
    return torch.randn(count, 6, generator=draw) + labels[:, None], labels


def poisoned(labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """The labels, with that of every test sample wrong."""
    return torch.where(test, (labels + 1) % (labels.max() + 1), labels)


@given(st.integers(2, 4), st.integers(2, 5), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_folds_are_disjoint_and_stratified_and_cover_the_part(classes, folds, seed, left_out):
    _, labels = samples(classes)
    part = torch.arange(len(labels)) % 4 != left_out
    masks = fold_masks(labels, part, folds, seed)
    for training, test in masks:
        assert not (training & test).any()
        assert torch.equal(training | test, part)
        counts, whole = (torch.bincount(labels[chosen], minlength=classes) for chosen in (test, part))
        assert ((counts - whole / folds).abs() < 1).all()
    assert torch.equal(sum(test.int() for _, test in masks), part.int())


@pytest.mark.parametrize("classes", [2, 3])
def test_regression_depends_only_on_labels_of_its_training_folds(classes):
    features, labels = samples(classes)
    training = torch.stack([mask for mask, _ in fold_masks(labels, labels >= 0, 5, seed=0)])
    penalties = torch.ones(len(training))
    for mask, penalty in zip(training, penalties, strict=True):
        fits = [
            fit_logistic(features, targets, classes, mask[None], penalty[None])
            for targets in (labels, poisoned(labels, ~mask))
        ]
        assert torch.equal(*fits)
    other = fit_logistic(features, poisoned(labels, training[0]), classes, training[:1], penalties[:1])
    assert not torch.equal(fits[0], other)  # labels of training folds matter


@pytest.mark.parametrize("classes", [2, 3])
def test_penalty_does_not_depend_on_test_labels(classes):
    features, labels = samples(classes)
    part = torch.arange(len(labels)) % 3 > 0
    grid = [2.0**power for power in range(-8, 4)]
    expected, penalties = (
        choose_penalties(features, targets, [part], grid, 5, seed=0)
        for targets in (labels, poisoned(labels, ~part))
    )
    assert penalties == expected


def test_svm_does_not_depend_on_its_test_fold(monkeypatch):
    """Neither on labels nor on features: it is fitted to the samples of the training folds alone."""
    features, labels = (x.numpy() for x in samples(3))
    fitted, fit = [], SVC.fit  # arguments of each fit
    monkeypatch.setattr(SVC, "fit", lambda svm, x, y: fitted.append((x, y)) or fit(svm, x, y))
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels))
    _, changed = folds[2]
    is_changed = np.isin(np.arange(len(labels)), changed)[:, None]
    for matrix in (features, np.where(is_changed, 9 - features, features)):
        svm_accuracy(matrix, labels, seed=0, folds=5, jobs=1)
    fits = len(fitted) // 10  # of each of five folds, for each of two matrices
    before, after = ([fitted[start + i * fits :][:fits] for i in range(5)] for start in (0, 5 * fits))
    for fold, (train, _) in enumerate(folds):
        assert np.array_equal(before[fold][-1][1], labels[train])
        is_same = [np.array_equal(x, y) for (x, _), (y, _) in zip(before[fold], after[fold], strict=True)]
        assert all(is_same) if fold == 2 else not any(is_same)


def test_linear_probe_does_not_depend_on_test_samples(monkeypatch):
    features, labels = samples(3)
    probes, linear = [], nn.Linear
    monkeypatch.setattr(nn, "Linear", lambda *sizes: probes.append(linear(*sizes)) or probes[-1])
    accuracies = []
    for test, test_labels in ((features, labels), (features.flip(0) + 9, poisoned(labels, labels >= 0))):
        scores = linear_probe(lambda epoch: [(features, labels)], test, test_labels, 3, seed=0, epochs=5)
        accuracies.append(scores["linear_accuracy"])
    assert torch.equal(probes[0].weight, probes[1].weight)
    assert torch.equal(probes[0].bias, probes[1].bias)
    assert accuracies[0] != accuracies[1]


@pytest.mark.parametrize("has_dev", [False, True], ids=["train and test", "with dev"])
def test_test_labels_of_a_task_change_its_score_and_no_fit(monkeypatch, has_dev):
    """For tasks with a test part: all regressions stay the same."""
    features, labels = samples(3, 180)
    names = np.array(["train", "test", "dev" if has_dev else "train"])
    parts = names[np.arange(180) // 3 % 3]
    test = torch.from_numpy(parts == "test")
    fits, accuracies = [], []

    def spy(*arguments):
        fits[-1].append(fit_logistic(*arguments))
        return fits[-1][-1]

    monkeypatch.setattr("shared_eval.probes.cross_validation.fit_logistic", spy)
    for targets in (labels, poisoned(labels, test)):
        fits.append([])
        task = Classification([str(index) for index in range(180)], targets.numpy(), parts)
        scores = evaluate(lambda sentences: features[[int(name) for name in sentences]], {"trec": task})
        accuracies.append(scores["trec_accuracy"])
    calls = 1 if has_dev else 2  # the regressions of all penalties, and without a dev part those of the folds
    assert [len(fitted) for fitted in fits] == [calls, calls]
    assert all(torch.equal(*pair) for pair in zip(*fits, strict=True))
    assert accuracies[0] != accuracies[1]
