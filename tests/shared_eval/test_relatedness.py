"""The regression of relatedness, compared with one in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from shared_eval.probes import predict_relatedness, relatedness
from shared_eval.probes.relatedness import distributions


def softmax(scores):
    exps = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def reference(features, scores, parts):
    """SentEval's procedure with gradients and Adam by hand, in float64."""
    train, dev, test = (features[parts == part] for part in ("train", "dev", "test"))
    targets = np.zeros((len(train), 5))
    for row, score in zip(targets, scores[parts == "train"], strict=True):
        below = int(np.floor(score))
        row[below - 1] = below + 1 - score
        if below < 5:
            row[below] = score - below
    torch.manual_seed(1111)
    layer = nn.Linear(features.shape[1], 5)
    weights = [layer.weight.detach().numpy().T.astype(float), layer.bias.detach().numpy().astype(float)]
    moments, squares, steps = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights], 0
    draw = np.random.RandomState(1111)

    def predict(weights, part):
        return softmax(part @ weights[0] + weights[1]) @ np.arange(1, 6)

    best, kept, failures, epochs = -1, None, 0, 0
    while failures < 4 and epochs <= 1000:
        for _ in range(50):
            order = draw.permutation(len(train))
            for start in range(0, len(train), 64):
                x, y = train[order[start : start + 64]], targets[order[start : start + 64]]
                p = softmax(x @ weights[0] + weights[1])
                change = 2 * (p - y) / p.size
                change = p * (change - (change * p).sum(axis=1, keepdims=True))
                steps += 1
                for i, gradient in enumerate((x.T @ change, change.sum(axis=0))):
                    moments[i] = 0.9 * moments[i] + 0.1 * gradient
                    squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
                    size = np.sqrt(squares[i] / (1 - 0.999**steps)) + 1e-8
                    weights[i] = weights[i] - 0.001 * moments[i] / (1 - 0.9**steps) / size
        epochs += 50
        correlation = np.corrcoef(predict(weights, dev), scores[parts == "dev"])[0, 1]
        if correlation > best:
            best, kept = correlation, [w.copy() for w in weights]
        else:
            failures += 1
    return predict(kept, test), epochs


def made_pairs(seed, noise):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(150, 6))
    scores = np.clip(3 + features @ np.array([0.8, -0.5, 0.3, 0, 0, 0]) + draw.normal(0, noise, 150), 1, 5)
    return features, scores, np.array(["train"] * 100 + ["dev"] * 25 + ["test"] * 25)


@pytest.mark.parametrize(("noise", "stops_early"), [(0.1, True), (1.0, False)])
def test_predictions_equal_those_in_numpy(noise, stops_early, monkeypatch):
    features, scores, parts = made_pairs(0, noise)
    expected, epochs = reference(features, scores, parts)
    assert (epochs < 1050) == stops_early
    looks, pearson = [], relatedness.pearson
    monkeypatch.setattr(relatedness, "pearson", lambda *pair: looks.append(pearson(*pair)) or looks[-1])
    predicted = predict_relatedness(torch.from_numpy(features), scores, parts)
    assert len(looks) == epochs // 50
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    single = predict_relatedness(torch.from_numpy(features).float(), scores, parts)
    np.testing.assert_allclose(single, expected, atol=1e-3)


def test_patience_counts_looks_in_total_not_in_a_row(monkeypatch):
    """As SentEval's early stop does: a better correlation does not begin the count again."""
    correlations = iter([0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.8, 0.7, 0.9])
    monkeypatch.setattr(relatedness, "pearson", lambda *pair: next(correlations))
    monkeypatch.setattr(relatedness, "EPOCHS_AT_ONCE", 1)
    features, scores, parts = made_pairs(0, 1.0)
    predict_relatedness(torch.from_numpy(features), scores, parts)
    assert list(correlations) == [0.9]


def test_distributions_have_the_score_as_mean():
    scores = np.array([1.0, 1.2, 3.0, 4.75, 5.0])
    rows = distributions(scores)
    torch.testing.assert_close(rows @ torch.arange(1.0, 6.0).double(), torch.from_numpy(scores))
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(5).double())
    assert rows[1].tolist() == pytest.approx([0.8, 0.2, 0, 0, 0])
    assert rows[4].tolist() == [0, 0, 0, 0, 1]


def test_random_states_are_left_as_they_were(monkeypatch):
    monkeypatch.setattr(relatedness, "MAX_EPOCHS", 0)
    features, scores, parts = made_pairs(1, 2.0)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    predict_relatedness(torch.from_numpy(features), scores, parts)
    assert torch.rand(1) == expected
