"""Embedding metrics compared with loops over pairs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared_eval.metrics import effective_rank, embedding_metrics, split_similarities


def test_metrics_equal_loops_over_pairs():
    torch.manual_seed(0)
    view1, view2 = F.normalize(torch.randn(2, 9, 4, dtype=torch.float64), dim=-1)
    count = len(view1)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    metrics = embedding_metrics(view1, view2)
    expected = {
        "alignment": sum(float((view1[i] - view2[i]).square().sum()) for i in range(count)) / count,
        "uniformity": math.log(
            sum(math.exp(-2 * float((view1[i] - view1[j]).square().sum())) for i, j in pairs) / len(pairs)
        ),
        "positive_similarity": sum(float(view1[i] @ view2[i]) for i in range(count)) / count,
        "negative_similarity": sum(float(view1[i] @ view2[j]) for i, j in pairs) / len(pairs),
        "hardest_negative_similarity": sum(
            max(float(view1[i] @ view2[j]) for j in range(count) if j != i) for i in range(count)
        )
        / count,
    }
    assert metrics == pytest.approx(expected, rel=1e-12)


def test_metrics_of_collapsed_and_of_orthogonal_embeddings():
    same = F.normalize(torch.ones(5, 3), dim=1)
    assert embedding_metrics(same, same)["uniformity"] == pytest.approx(0, abs=1e-5)
    apart = torch.eye(5)
    metrics = embedding_metrics(apart, apart)
    assert metrics["alignment"] == 0
    assert metrics["uniformity"] == pytest.approx(-4)
    assert metrics["hardest_negative_similarity"] == 0


def test_similarities_are_split_into_positives_and_negatives():
    similarity = torch.arange(36.0).view(6, 6)
    split = split_similarities(similarity)
    assert split["positives"].tolist() == similarity.diagonal().tolist()
    assert set(split["negatives"].tolist()) == set(similarity[~torch.eye(6, dtype=torch.bool)].tolist())
    is_positive = torch.zeros(6, 6, dtype=torch.bool)
    is_positive[0, 1] = True
    split = split_similarities(similarity, is_positive, ~torch.eye(6, dtype=torch.bool))
    assert split["positives"].tolist() == [1.0]
    assert not set(split["negatives"].tolist()) & {1.0, *similarity.diagonal().tolist()}
    nearest = split_similarities(torch.rand(2, 100))["negatives"].view(2, -1)
    assert (nearest.diff(dim=1) >= 0).all()


@pytest.mark.parametrize("shape", [(40, 7), (5, 12)])
def test_effective_rank_equals_numpys_svd(shape):
    representations = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    values = np.linalg.svd(representations, compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(torch.from_numpy(representations)) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_counts_equal_directions_and_is_finite_without_any():
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.zeros(9, 4)) == 0
