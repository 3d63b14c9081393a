"""The quick-thought objective against naive loops in float64 and the softmax of the released code."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sentence.objective import quick_thought_loss


def naive(scores, positions, book, beta, tau_plus, window, denominator, floor, weighted_by=None):
    """One anchor, one positive, one negative at a time; no log space, no matrices.

    Negatives have the weights of their own scores, or of the scores ``weighted_by``.
    """
    count = len(scores)
    means = []
    for i in range(count):
        neighbours = [
            j for j in range(count) if book[j] == book[i] and 0 < abs(positions[j] - positions[i]) <= window
        ]
        terms = []
        for p in neighbours:
            if denominator == "all":
                others = [j for j in range(count) if j != p]
            else:
                others = [j for j in range(count) if j != i and j not in neighbours]
            negatives = [0.0 if j == i else float(scores[i, j]) for j in others]
            positive = float(scores[i, p])
            if not negatives:
                terms.append(0.0)
                continue
            weighted = scores if weighted_by is None else weighted_by
            weights = [math.exp(beta * (0.0 if j == i else float(weighted[i, j]))) for j in others]
            mean_weight = sum(weights) / len(weights)
            reweighted = sum(w / mean_weight * math.exp(s) for w, s in zip(weights, negatives, strict=True))
            least = min(negatives) if floor is None else floor
            total = (reweighted - len(negatives) * tau_plus * math.exp(positive)) / (1 - tau_plus)
            if tau_plus:
                total = max(total, len(negatives) * math.exp(least))
            terms.append(-math.log(math.exp(positive) / (math.exp(positive) + total)))
        if terms:
            means.append(sum(terms) / len(terms))
    return sum(means) / len(means) if means else 0.0


def example(count=9, seed=0, books=(0, 0, 0, 0, 1, 1, 1, 2, 3)):
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(count, count, generator=generator, dtype=torch.float64)
    positions = torch.arange(10, 10 + count)
    positions[6:] += 5  # not consecutive with the others
    return scores, positions, torch.tensor(books[:count])


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (1, 0), (1, 0.1), (3, 0.4)])
@pytest.mark.parametrize("floor", [None, -2.0])
def test_loss_equals_a_naive_loop(beta, tau_plus, window, denominator, floor):
    scores, positions, book = example()
    settings = {"beta": beta, "tau_plus": tau_plus, "window": window, "denominator": denominator}
    ours = quick_thought_loss(scores, positions, book, floor=floor, **settings).item()
    assert ours == pytest.approx(naive(scores, positions, book, floor=floor, **settings), rel=1e-10)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(3, 9),
    window=st.integers(1, 3),
    beta=st.sampled_from([0, 0.5, 2]),
)
def test_loss_equals_a_naive_loop_on_any_batch(seed, count, window, beta):
    scores, positions, book = example(count, seed)
    book = torch.randint(3, (count,), generator=torch.Generator().manual_seed(seed)).sort().values
    settings = {"beta": beta, "tau_plus": 0.1, "window": window, "denominator": "negatives"}
    ours = quick_thought_loss(scores, positions, book, **settings).item()
    assert ours == pytest.approx(naive(scores, positions, book, floor=None, **settings), rel=1e-9, abs=1e-12)


def test_denominator_all_equals_the_softmax_of_quick_thoughts():
    """In its released code the diagonal is 0, and the target uniform over the sentences at distance 1."""
    scores, _, _ = example()
    count = len(scores)
    logits = scores.clone()
    logits.fill_diagonal_(0)
    targets = torch.zeros_like(logits)
    for i in range(count):
        for j in (i - 1, i + 1):
            if 0 <= j < count:
                targets[i, j] = 1
    targets /= targets.sum(dim=1, keepdim=True)
    expected = F.cross_entropy(logits, targets)
    positions = torch.arange(count)
    ours = quick_thought_loss(scores, positions, torch.zeros(count), beta=0, tau_plus=0, denominator="all")
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_gradient_equals_finite_differences(denominator):
    scores, positions, book = example(6)
    scores.requires_grad_()

    def loss(scores):
        return quick_thought_loss(
            scores, positions, book, beta=1.5, tau_plus=0.05, floor=-3.0, denominator=denominator
        )

    assert torch.autograd.gradcheck(loss, scores)


def test_loss_does_not_depend_on_the_score_of_a_sentence_with_itself():
    scores, positions, book = example()
    changed = scores + torch.diag(torch.full((len(scores),), 100.0, dtype=torch.float64))
    for denominator in ("negatives", "all"):
        losses = [
            quick_thought_loss(s, positions, book, beta=1, tau_plus=0.1, denominator=denominator)
            for s in (scores, changed)
        ]
        assert losses[0] == losses[1]


def test_mean_over_two_processes_equals_the_loss_of_one():
    scores, positions, book = example(8, books=(0, 0, 0, 0, 1, 2, 3, 3))
    settings = {"beta": 1, "tau_plus": 0.1}
    together = quick_thought_loss(scores, positions, book, **settings)
    parts = [
        quick_thought_loss(scores[rows], positions, book, rows.start, **settings)
        for rows in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(sum(parts) / 2, together, rtol=1e-12, atol=0)


def test_large_scores_give_finite_loss_and_gradient():
    scores = 3000 * torch.randn(12, 12)
    scores.requires_grad_()
    loss = quick_thought_loss(scores, torch.arange(12), torch.zeros(12), beta=2, tau_plus=0.1)
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_batch_without_neighbours_has_zero_loss_and_gradient():
    scores = torch.randn(4, 4, requires_grad=True)
    loss = quick_thought_loss(scores, torch.arange(4), torch.arange(4), beta=1, tau_plus=0.1)
    loss.backward()
    assert loss == 0
    assert (scores.grad == 0).all()
