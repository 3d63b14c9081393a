"""Embedding metrics against loops over pairs."""

import math

import pytest
import torch
import torch.nn.functional as F

from shared_eval.metrics import embedding_metrics


def test_against_loops_over_pairs():
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


def test_collapse_and_perfection():
    same = F.normalize(torch.ones(5, 3), dim=1)
    assert embedding_metrics(same, same)["uniformity"] == pytest.approx(0, abs=1e-5)
    apart = torch.eye(5)
    metrics = embedding_metrics(apart, apart)
    assert metrics["alignment"] == 0
    assert metrics["uniformity"] == pytest.approx(-4)
    assert metrics["hardest_negative_similarity"] == 0
