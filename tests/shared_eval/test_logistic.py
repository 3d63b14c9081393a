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
    best_accuracies,
    choose_penalties,
    fit_logistic,
    logistic,
    logistic_predictions,
    nested_logistic_accuracy,
    predict_logistic,
)
from shared_eval.probes.logistic import principal_axes

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


def hard_to_fit(name, dtype):
    """Features [400, D] that are ill-conditioned in their own units."""
    draw = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    features = {
        "low rank": lambda: 30 * randn(400, 5) @ randn(5, 64),
        "offset": lambda: randn(400, 64) + 1000,
        "large offset": lambda: randn(400, 64) + 1e4,
        "constant columns": lambda: torch.cat([randn(400, 20), torch.full((400, 5), 7.0).double()], dim=1),
        "repeated columns": lambda: 100 * randn(400, 4).repeat(1, 16),
        "columns of any unit": lambda: randn(400, 13) * 10.0 ** torch.linspace(-6, 6, 13),
        "large": lambda: 1e3 * randn(400, 16),
        "small": lambda: 1e-6 * randn(400, 16),
    }[name]()
    return features.to(dtype)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [
        *("low rank", "offset", "large offset", "constant columns", "repeated columns"),
        *("columns of any unit", "large", "small"),
    ],
)
def test_features_of_any_offset_unit_and_rank_score_as_in_scikit_learn(name, dtype, classes):
    """scikit-learn gets them centred, where its solver converges: the intercept takes the offset."""
    features = hard_to_fit(name, dtype)
    centred = features.double() - features.double().mean(dim=0)
    draw = torch.Generator().manual_seed(1)
    scores = torch.nn.functional.normalize(centred, dim=0) @ torch.randn(
        centred.shape[1], classes, generator=draw, dtype=torch.float64
    )
    noise = torch.randn(scores.shape, generator=draw, dtype=torch.float64)
    labels = (scores + 0.7 * scores.std() * noise).argmax(dim=1)
    mask = torch.arange(400) % 4 > 0
    for penalty in (0.25, 8.0):
        [ours] = logistic_predictions(features, labels, [mask], [~mask], [penalty])
        model = LogisticRegression(C=penalty, tol=1e-10, max_iter=1000, solver="newton-cholesky")
        model.fit(centred[mask].numpy(), labels[mask].numpy())
        theirs = model.predict(centred[~mask].numpy())
        assert (ours.numpy() != theirs).sum() <= 1


@pytest.mark.parametrize("name", ["low rank", "offset"])
def test_nested_cross_validation_of_ill_conditioned_features(name):
    """Float32 features whose Gram matrix has no Cholesky factor score as those in float64, centred."""
    features = hard_to_fit(name, torch.float32)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(1))
    labels = (features[:, 0] - features[:, 0].mean() > features[:, 0].std() * noise / 2).long()
    centred = features.double() - features.double().mean(dim=0)
    ours, expected = (nested_logistic_accuracy(x, labels, PENALTIES, folds=5) for x in (features, centred))
    np.testing.assert_allclose(ours, expected, atol=0.0126)  # a sample of 80
    assert ours.mean() > 0.75


@pytest.mark.parametrize("value", [0.0, 3.3, 1e30])
@pytest.mark.parametrize("classes", [2, 4])
def test_constant_features_predict_the_largest_class(value, classes):
    labels = torch.arange(80) % classes
    labels[:40] = 1
    mask = torch.ones(80, dtype=torch.bool)
    features = torch.full((80, 8), value)
    [predicted] = logistic_predictions(features, labels, [mask], [mask], [1.0])
    assert (predicted == 1).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("classes", [2, 3])
def test_extreme_units_have_finite_coefficients(scale, classes):
    """Without a penalty to speak of, or with one that leaves nothing but the intercept."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(120, 6, generator=draw)
    labels = (features[:, :classes] + torch.randn(120, classes, generator=draw)).argmax(dim=1)
    mask = torch.ones(1, 120, dtype=torch.bool)
    scaled = features * scale
    fitted = fit_logistic(scaled, labels, classes, mask, torch.tensor([1.0]))
    assert fitted.isfinite().all()
    if scale > 1:
        model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(features.double(), labels)
        predicted = predict_logistic(scaled, fitted)[0].numpy()
        assert (predicted != model.predict(features.double())).sum() <= 1


@pytest.mark.parametrize("count", [60, 200])
def test_principal_axes_are_orthonormal_and_uncorrelated(count):
    """With fewer samples than features too; offset and unit return in the coefficients."""
    features = 30 * torch.randn(count, 100, generator=torch.Generator().manual_seed(0)).double() + 1000
    axes = principal_axes(features)
    rank = min(count - 1, 100)
    directions, components = axes.directions, axes.components[:, :-1]
    torch.testing.assert_close(directions.T @ directions, torch.eye(rank, dtype=torch.float64))
    gram = components.T @ components
    torch.testing.assert_close(gram, axes.squares[:-1].diag(), rtol=0, atol=1e-8 * count)
    assert axes.squares[:-1].max() == pytest.approx(count)
    torch.testing.assert_close(axes.unit * components @ directions.T + axes.centre, features)


def test_accuracies_within_a_hundredth_of_a_point_are_equal():
    """As SentEval rounds them: the first, which has the smallest C, is chosen."""
    assert best_accuracies(np.array([0.80001, 0.80004, 0.79996])) == 0
    assert best_accuracies(np.array([[0.8, 0.8001, 0.8], [0.5, 0.4, 0.6]])).tolist() == [1, 2]


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
    for value in (torch.nan, torch.inf):
        with pytest.raises(InputError, match="not all finite"):
            nested_logistic_accuracy(features * value, labels, PENALTIES)
        with pytest.raises(InputError, match="not all finite"):
            fit_logistic(features * value, labels, 2, torch.ones(1, 40).bool(), torch.ones(1))
