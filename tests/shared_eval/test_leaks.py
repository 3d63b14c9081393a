"""Evaluation cannot leak: what is fitted does not hang on test samples, and folds do not overlap."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import nn

from sentence.evaluate import evaluate
from sentence.tasks import Classification
from shared_eval import probes
from shared_eval.logistic import fit_logistic
from shared_eval.probes import choose_penalties, fold_masks, linear_probe, svm_accuracy


def samples(classes: int, count: int = 120):
    """Features in which the class shows, classes in turn."""
    draw = torch.Generator().manual_seed(classes)
    labels = torch.arange(count) % classes
    return torch.randn(count, 6, generator=draw) + labels[:, None], labels


def poisoned(labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """The labels, those of the test samples wrong, every one."""
    return torch.where(test, (labels + 1) % (labels.max() + 1), labels)


@given(st.integers(2, 4), st.integers(2, 5), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_folds_share_no_sample(classes, folds, seed, left_out):
    _, labels = samples(classes)
    part = torch.arange(len(labels)) % 4 != left_out
    masks = fold_masks(labels, part, folds, seed)
    for training, test in masks:
        assert not (training & test).any()
        assert torch.equal(training | test, part)
    assert torch.equal(sum(test.int() for _, test in masks), part.int())


@pytest.mark.parametrize("classes", [2, 3])
def test_a_regression_sees_no_label_outside_its_fold(classes):
    features, labels = samples(classes)
    training = torch.stack([mask for mask, _ in fold_masks(labels, labels >= 0, 5, seed=0)])
    penalties = torch.ones(len(training))
    for fitted_to, penalty in zip(training, penalties, strict=True):
        fits = [
            fit_logistic(features, of, classes, fitted_to[None], penalty[None])
            for of in (labels, poisoned(labels, ~fitted_to))
        ]
        assert torch.equal(*fits)
    other = fit_logistic(features, poisoned(labels, training[0]), classes, training[:1], penalties[:1])
    assert not torch.equal(fits[0], other)  # the labels that it is to see do count


@pytest.mark.parametrize("classes", [2, 3])
def test_a_penalty_is_chosen_without_test_labels(classes):
    features, labels = samples(classes)
    part = torch.arange(len(labels)) % 3 > 0
    grid = [2.0**power for power in range(-8, 4)]
    chosen = [
        choose_penalties(features, of, [part], grid, 5, seed=0) for of in (labels, poisoned(labels, ~part))
    ]
    assert chosen[0] == chosen[1]


def test_a_support_vector_machine_sees_its_training_fold_as_it_is(monkeypatch):
    """No label of the test fold, and no feature: what is fitted does not change with them."""
    features, labels = (x.numpy() for x in samples(3))
    seen, fit = [], SVC.fit
    monkeypatch.setattr(SVC, "fit", lambda svm, x, y: seen.append((x, y)) or fit(svm, x, y))
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(features, labels))
    _, changed = folds[2]
    for of in (features, np.where(np.isin(np.arange(len(labels)), changed)[:, None], 9 - features, features)):
        svm_accuracy(of, labels, seed=0, folds=5, jobs=1)
    fits = len(seen) // 10  # for each of five folds, twice
    before, after = ([seen[start + i * fits :][:fits] for i in range(5)] for start in (0, 5 * fits))
    for fold, (train, _) in enumerate(folds):
        assert np.array_equal(before[fold][-1][1], labels[train])
        same = [np.array_equal(x, y) for (x, _), (y, _) in zip(before[fold], after[fold], strict=True)]
        assert all(same) if fold == 2 else not any(same)


def test_a_linear_probe_does_not_see_the_test_samples(monkeypatch):
    features, labels = samples(3)
    made, linear = [], nn.Linear
    monkeypatch.setattr(probes.nn, "Linear", lambda *sizes: made.append(linear(*sizes)) or made[-1])
    accuracies = []
    for test, test_labels in ((features, labels), (features.flip(0) + 9, poisoned(labels, labels >= 0))):
        scores = linear_probe(lambda epoch: [(features, labels)], test, test_labels, 3, seed=0, epochs=5)
        accuracies.append(scores["linear_accuracy"])
    assert torch.equal(made[0].weight, made[1].weight)
    assert torch.equal(made[0].bias, made[1].bias)
    assert accuracies[0] != accuracies[1]


@pytest.mark.parametrize("has_dev", [False, True])
def test_a_task_s_test_labels_change_its_score_alone(monkeypatch, has_dev):
    """Of a task with a part to test on, every regression fitted is the same."""
    features, labels = samples(3, 180)
    names = np.array(["train", "test", "dev" if has_dev else "train"])
    parts = names[np.arange(180) // 3 % 3]
    test = torch.from_numpy(parts == "test")
    fits, accuracies = [], []

    def spy(*arguments):
        fits[-1].append(fit_logistic(*arguments))
        return fits[-1][-1]

    for module in (probes, __import__("sentence.evaluate", fromlist=["evaluate"])):
        monkeypatch.setattr(module, "fit_logistic", spy)
    for of in (labels, poisoned(labels, test)):
        fits.append([])
        task = Classification([str(place) for place in range(180)], of.numpy(), parts)
        scores = evaluate(lambda sentences: features[[int(name) for name in sentences]], {"trec": task})
        accuracies.append(scores["trec_accuracy"])
    assert len(fits[0]) == len(fits[1]) > 1
    assert all(torch.equal(*pair) for pair in zip(*fits, strict=True))
    assert accuracies[0] != accuracies[1]
