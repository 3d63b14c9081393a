"""Regressions fitted together, compared with scikit-learn's, fitted one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from core.io.errors import InputError
from shared_eval.probes import (
    choose_penalties,
    fit_logistic,
    fold_masks,
    logistic,
    nested_logistic_accuracy,
    predict_logistic,
)

PENALTIES = (0.25, 1.0, 8.0)


def samples(classes, count=240, dim=12, seed=0):
    features, labels = make_classification(
        count, dim, n_informative=6, n_classes=classes, flip_y=0.1, random_state=seed
    )
    return torch.tensor(features), torch.tensor(labels)


def reference(features, labels, mask, penalty):
    model = LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000)
    return model.fit(features[mask].numpy(), labels[mask].numpy())


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("columns_at_once", [1, 4, 512])
def test_coefficients_equal_scikit_learn(classes, columns_at_once, monkeypatch):
    monkeypatch.setattr(logistic, "COLUMNS_AT_ONCE", columns_at_once)
    features, labels = samples(classes)
    masks = torch.rand(6, len(labels), generator=torch.Generator().manual_seed(0)) < 0.7
    penalties = torch.tensor(PENALTIES * 2)
    fitted = fit_logistic(features, labels, classes, masks, penalties)
    predicted = predict_logistic(features, fitted)
    for mask, penalty, coefficients, classes_ in zip(masks, penalties, fitted, predicted, strict=True):
        model = reference(features, labels, mask, float(penalty))
        np.testing.assert_allclose(coefficients[:-1].T, model.coef_, atol=2e-4)
        np.testing.assert_allclose(coefficients[-1], model.intercept_, atol=2e-4)
        assert (classes_.numpy() == model.predict(features.numpy())).mean() > 0.995


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_float32_reaches_the_same_probabilities(classes, scale):
    """At any scale of the embeddings, and with more columns than samples."""
    features, labels = samples(classes, count=150, dim=200, seed=1)
    features = features.float() * scale
    mask = torch.ones(1, len(labels), dtype=torch.bool)
    for penalty in PENALTIES:
        fitted = fit_logistic(features, labels, classes, mask, torch.tensor([penalty]))
        model = reference(features.double(), labels, mask[0], penalty)
        scores = torch.cat([features, torch.ones(150, 1)], dim=1) @ fitted[0]
        ours = (
            torch.cat([1 - scores.sigmoid(), scores.sigmoid()], dim=1) if classes == 2 else scores.softmax(1)
        )
        theirs = torch.tensor(model.predict_proba(features.double().numpy())).float()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 4), penalty=st.floats(0.01, 100))
@settings(max_examples=25)
def test_gradient_is_zero_at_the_solution(seed, classes, penalty):
    """For any data the solution is a minimum."""
    features, labels = samples(classes, 80, 8, seed)
    mask = torch.ones(1, 80, dtype=torch.bool)
    weights = fit_logistic(features, labels, classes, mask, torch.tensor([penalty]))[0].requires_grad_()
    scores = torch.cat([features, torch.ones(80, 1)], dim=1) @ weights
    if classes == 2:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores[:, 0], labels.double(), reduction="sum"
        )
    else:
        loss = torch.nn.functional.cross_entropy(scores, labels, reduction="sum")
    (loss + weights[:-1].square().sum() / penalty / 2).backward()
    assert weights.grad.abs().max() / 80 < 2e-5


def test_separable_classes_have_a_finite_solution():
    features = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]).repeat(10, 1)
    labels = (features[:, 0] > 0).long()
    mask = torch.ones(1, 40, dtype=torch.bool)
    fitted = fit_logistic(features, labels, 2, mask, torch.tensor([1e6]))
    assert fitted.isfinite().all()
    assert (predict_logistic(features, fitted)[0] == labels).all()


def nested_by_hand(features, labels, penalties, folds, seed):
    accuracies = []
    outer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in outer.split(features, labels):
        means = []
        for penalty in penalties:
            inner = StratifiedKFold(folds, shuffle=True, random_state=seed)
            scores = []
            for fitted, tested in inner.split(features[train], labels[train]):
                model = LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000)
                model.fit(features[train][fitted], labels[train][fitted])
                scores.append(model.score(features[train][tested], labels[train][tested]))
            means.append(np.mean(scores))
        model = LogisticRegression(C=penalties[int(np.argmax(means))], tol=1e-10, max_iter=10_000)
        accuracies.append(model.fit(features[train], labels[train]).score(features[test], labels[test]))
    return accuracies


@pytest.mark.parametrize("classes", [2, 3])
def test_nested_cross_validation_equals_scikit_learn(classes):
    features, labels = samples(classes, 150, 10)
    ours = nested_logistic_accuracy(features, labels, PENALTIES, folds=5, seed=1111)
    theirs = nested_by_hand(features.numpy(), labels.numpy(), PENALTIES, 5, 1111)
    np.testing.assert_allclose(ours, theirs)


def test_folds_are_disjoint_and_stratified():
    labels = torch.arange(100) % 4
    part = torch.arange(100) < 80
    masks = fold_masks(labels, part, 5, seed=0)
    assert torch.equal(torch.stack([test for _, test in masks]).sum(dim=0), part.long())
    for training, test in masks:
        assert not (training & test).any()
        assert torch.equal(training | test, part)
        assert torch.bincount(labels[test]).tolist() == [4] * 4


def test_choice_does_not_depend_on_samples_outside_the_part():
    features, labels = samples(2, 100, 10)
    part = torch.arange(100) < 60
    chosen = choose_penalties(features, labels, [part], PENALTIES, 5, 0)
    spoiled = torch.where(part, labels, 1 - labels)
    features = torch.where(part.unsqueeze(1), features, 1e3 * features)
    assert choose_penalties(features, spoiled, [part], PENALTIES, 5, 0) == chosen


def test_invalid_samples_are_refused():
    features, labels = samples(2, 40)
    with pytest.raises(InputError, match="10 folds inside 10 folds needs at least 12 of every class"):
        nested_logistic_accuracy(features, (torch.arange(40) < 5).long(), PENALTIES)
    with pytest.raises(InputError, match="not all finite"):
        nested_logistic_accuracy(features * torch.nan, labels, PENALTIES)
