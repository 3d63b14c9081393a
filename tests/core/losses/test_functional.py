"""The objective on logits: any positives, negatives and masks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core import hard_negative_loss
from tests.core.losses.equation import batches, hardness


def test_stop_gradient_makes_the_weights_constants():
    """The gradient is that of a plain sum whose weights were computed before."""
    positive = torch.tensor([0.3, -0.2], dtype=torch.float64)
    negatives = torch.tensor([[0.1, 0.7, -0.4], [0.5, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones_like(negatives, dtype=torch.bool)
    weights = torch.softmax(2.0 * negatives.detach(), dim=1) * 3
    by_hand = torch.log(1 + (weights * negatives.exp()).sum(1) / positive.exp())
    loss = hard_negative_loss(
        positive, negatives, mask, beta=2.0, tau_plus=0.0, floor=-2.0, stop_gradient=True
    )
    torch.testing.assert_close(loss, by_hand, rtol=1e-12, atol=0)
    (expected,) = torch.autograd.grad(by_hand.sum(), negatives)
    (actual,) = torch.autograd.grad(loss.sum(), negatives)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    free = hard_negative_loss(positive, negatives, mask, beta=2.0, tau_plus=0.0, floor=-2.0)
    assert not torch.allclose(torch.autograd.grad(free.sum(), negatives)[0], expected)


@settings(deadline=None, max_examples=40)
@given(batches, hardness, st.floats(0.01, 0.5))
def test_loss_decreases_as_the_positive_gets_nearer(shape, numbers, nearer):
    generator = torch.Generator().manual_seed(shape[2])
    positive = torch.rand(shape[0], dtype=torch.float64, generator=generator) * 2 - 1
    negatives = torch.rand(shape[:2], dtype=torch.float64, generator=generator) * 2 - 1
    mask = torch.ones_like(negatives, dtype=torch.bool)
    beta, tau_plus, temperature = numbers

    def loss(p):
        return hard_negative_loss(
            p / temperature,
            negatives / temperature,
            mask,
            beta=beta,
            tau_plus=tau_plus,
            floor=-1 / temperature,
        )

    assert (loss(positive + nearer) < loss(positive)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 3), hardness, st.integers(0, 2**31))
def test_logits_with_masks_and_several_positives(rows, columns, positives, numbers, seed):
    """Each term depends on its row's negatives alone, not on masked logits."""
    beta, tau_plus, _ = numbers
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randn(rows, positives, dtype=torch.float64, generator=generator)
    negatives = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    mask = torch.rand(rows, columns, generator=generator) < 0.6
    negatives.requires_grad_()
    loss = hard_negative_loss(positive, negatives, mask, beta=beta, tau_plus=tau_plus, floor=-5.0)
    (gradient,) = torch.autograd.grad(loss.sum(), negatives)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()
    for row in range(rows):
        s = negatives[row][mask[row]].detach().numpy()
        for k in range(positives):
            p = positive[row, k].item()
            ng = 0.0
            if len(s):
                weights = np.exp(beta * s) / np.exp(beta * s).mean()
                ng = ((weights * np.exp(s)).sum() - len(s) * tau_plus * math.exp(p)) / (1 - tau_plus)
                ng = max(ng, len(s) * math.exp(-5.0)) if tau_plus > 0 else ng
            expected = -math.log(math.exp(p) / (math.exp(p) + ng))
            assert loss[row, k].item() == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_each_row_has_its_own_floor():
    """A debiased sum below 0 becomes the floor of its row."""
    positive = torch.tensor([5.0, 5.0])
    negatives = torch.zeros(2, 4)
    floors = torch.tensor([-1.0, -3.0])
    loss = hard_negative_loss(
        positive, negatives, torch.ones(2, 4, dtype=torch.bool), beta=0.0, tau_plus=0.5, floor=floors
    )
    expected = torch.log1p(4 * floors.exp() / positive.exp())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("positive", "mask", "message"),
    [
        (torch.ones(3), torch.ones(2, 4, dtype=torch.bool), r"must be \[2\]"),
        (torch.ones(2), torch.ones(2, 4), "the mask bool"),
        (torch.ones(2), torch.ones(2, 3, dtype=torch.bool), r"both must be \[rows, columns\]"),
        (
            torch.ones(2),
            torch.ones(2, 4, dtype=torch.bool).numpy(),
            "`mask` is a ndarray; it must be a tensor",
        ),
        (torch.ones(2).double(), torch.ones(2, 4, dtype=torch.bool), "`positive` is torch.float64 and"),
    ],
)
def test_logits_that_do_not_match_are_refused(positive, mask, message):
    with pytest.raises(ValueError, match=message):
        hard_negative_loss(positive, torch.ones(2, 4), mask, beta=0.0, tau_plus=0.0, floor=0.0)


def test_floor_that_is_no_number_is_refused():
    logits, mask = torch.ones(2, 4), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="`floor` is None; it must be a number or a tensor"):
        hard_negative_loss(logits[:, 0], logits, mask, beta=0.0, tau_plus=0.0, floor=None)


def test_floor_of_other_rows_is_refused():
    logits, floor = torch.ones(2, 4), torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"`floor` is \[2, 1\]; it must be a number or \[2\]"):
        hard_negative_loss(logits[:, 0], logits, logits > 0, beta=0.0, tau_plus=0.1, floor=floor)
