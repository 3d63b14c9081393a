"""The equation of the losses as a loop in float64, and what their tests share."""

import functools
import math

import torch
from hypothesis import strategies as st
from torch.nn.functional import normalize

from core import HardNegativeLoss

TILES = (None, 1, 3, 8, 1000)
UnitLengthLoss = functools.partial(HardNegativeLoss, normalize=False)  # of views that have unit length
batches = st.tuples(st.integers(2, 9), st.integers(2, 6), st.integers(0, 2**31))  # batch, dim, seed
hardness = st.tuples(st.floats(0, 8), st.floats(0, 0.9), st.floats(0.05, 2))  # beta, tau_plus, temperature


def views(batch: int, dim: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = normalize(torch.randn(2, batch, dim, dtype=torch.float64, generator=generator), dim=-1)
    return both[0].to(dtype).requires_grad_(), both[1].to(dtype).requires_grad_()


def loop(view1, view2, *settings, **arithmetic):
    """The mean of the docstring's equation over all anchors."""
    losses = anchor_losses(view1, view2, *settings, **arithmetic)
    return sum(losses) / len(losses)


def anchor_losses(
    view1, view2, beta, tau_plus, temperature, labels=None, number=float, exp=math.exp, log=math.log
):
    """The docstring's equation as a naive loop over anchors and negatives, in any arithmetic."""
    anchors = [[number(value) for value in row] for row in [*view1.tolist(), *view2.tolist()]]
    losses, count = [], len(anchors)
    classes = list(range(len(view1))) if labels is None else labels.tolist()
    for i, anchor in enumerate(anchors):

        def logit(other, anchor=anchor):
            return sum(a * b for a, b in zip(anchor, other, strict=True)) / number(temperature)

        partner = (i + count // 2) % count
        p = logit(anchors[partner])
        s = [logit(anchors[j]) for j in range(count) if (classes * 2)[j] != (classes * 2)[i]]
        n = len(s)
        if n == 0:
            losses.append(number(0))
            continue
        mean_weight = sum(exp(beta * s_j) for s_j in s) / n
        reweighted = sum(exp(beta * s_j) / mean_weight * exp(s_j) for s_j in s)
        ng = (reweighted - n * number(tau_plus) * exp(p)) / (1 - number(tau_plus))
        ng = max(ng, n * exp(-1 / number(temperature)))
        losses.append(-log(exp(p) / (exp(p) + ng)))
    return losses


def assert_same_gradient(loss, other, inputs, **tolerance):
    gradients = [torch.autograd.grad(each, inputs, retain_graph=True) for each in (loss, other)]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)
