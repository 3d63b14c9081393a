"""InfoGraph's mean over a node's negatives, weighted by hardness: the formula, and the same faster.

Shapes: V nodes of the batch · U different ones among them · G graphs of the batch
        S runs that are trained together: no dimension, or one, or several.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .backward import full_precision_backward

BLOCK_ELEMENTS = 2**18  # of a matrix, computed at a time: 1 MiB in float32
LOG2 = math.log(2)
NEAR_ZERO = 0.02  # scores below this need every digit of softplus(q) - log 2, which is then about q / 2


def hard_softplus(
    scores: Tensor, beta: Tensor, row: Tensor, graph: Tensor, stop_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """p and mean_j w_j softplus(q_j) of every node: [S, U, G], [S], [S V], [S V] -> [S V], [S V].

    ``row`` is each node's row among the S U, ``graph`` its own graph. The weights here sum to 1, so that the
    mean is a sum. m is a constant: it has no gradient. ``HardSoftplus`` computes the same faster.
    """
    nodes, own = scores.flatten(0, -2)[row], graph.unsqueeze(1)  # (S V, G), (S V, 1)
    positive = nodes.gather(1, own).squeeze(1)
    q = nodes.scatter(1, own, 0.0)
    m = q.detach().abs().reshape(*beta.shape, -1).amax(dim=-1).clamp(min=1e-30)  # all q may be 0
    s = (2 * beta / m).unsqueeze(-1).expand(*beta.shape, len(row) // m.numel()).reshape(-1, 1)
    w = torch.softmax((s * q).scatter(1, own, -torch.inf), dim=1)
    if stop_gradient:
        w = w.detach()
    return positive, (w * centred_softplus(q)).sum(dim=1) + LOG2


class HardSoftplus(torch.autograd.Function):
    """``hard_softplus`` without a matrix that has a row for each of the V nodes.

    Nodes that share a row of scores differ only in their own graph o. So Z = sum_j e^{s q_j}, s = 2 beta / m,
    is computed once per row, without one column c: the row's highest score to an own graph. For the nodes of
    graph c this is their sum. For the others Z_i = Z - e^{s q_o} + e^{s q_c}: never less than Z, so that no
    digits are lost. The gradient of node i's mean E_i with respect to its column j is
    w_ij (sigmoid(q_j) + s (softplus(q_j) - E_i)). Where all scores are small, s is large and the difference
    small. So log 2, the value at 0, is left out of both until the end.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, beta: Tensor, row: Tensor, graph: Tensor, stop_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        rows = scores.flatten(0, -2)
        own = row * rows.shape[1] + graph  # the place of each node's own score
        positive = rows.view(-1)[own]
        highest = rows.new_full((len(rows),), -torch.inf).scatter_reduce_(0, row, positive, "amax")
        q_c = highest[row]
        # Of equal scores the last column, so that a GPU does not choose another one each time.
        candidates = torch.where(positive == q_c, graph, 0)
        row_column = row.new_zeros(len(rows)).scatter_reduce_(0, row, candidates, "amax")  # c of each row
        column = row_column[row]
        differs = graph != column  # Z has the node's own graph

        # Column c is replaced by its neighbour, which changes neither the minimum nor the maximum.
        row_column = row_column.unsqueeze(1)
        others = rows.scatter(1, row_column, rows.gather(1, (row_column + 1) % rows.shape[1]))
        lowest, largest = others.amin(dim=1), others.amax(dim=1)
        m = torch.maximum(largest, -lowest)[row].maximum(q_c.abs().where(differs, 0.0))
        m = m.view(*beta.shape, -1).amax(dim=-1).clamp(min=1e-30)  # all q may be 0
        s = (2 * beta / m).unsqueeze(-1).expand(scores.shape[:-1]).reshape(-1, 1)
        s_of_slope = torch.zeros_like(s) if stop_gradient else s
        near_zero = _is_near_zero(m)

        weights = torch.empty_like(rows)  # w_j = e^{s q_j} / Z
        slopes = torch.empty_like(rows)  # w_j (sigmoid(q_j) + s (softplus(q_j) - log 2))
        peaks, means = s.new_empty(2, len(rows))
        for block in _row_blocks(rows):
            scaled = others[block].mul_(s[block]).scatter_(1, row_column[block], -torch.inf)
            w = torch.softmax(scaled, dim=1, out=weights[block])
            torch.amax(w, dim=1, out=peaks[block])
            sigmoid, terms = _sigmoid_and_softplus(rows[block], near_zero)
            torch.sum(terms.mul_(w), dim=1, out=means[block])
            torch.addcmul(sigmoid.mul_(w), terms, s_of_slope[block], out=slopes[block])
        log_z = s.squeeze(1) * largest - peaks.log()
        log_ratio = (s.squeeze(1) * highest - log_z)[row]  # of e^{s q_c} to Z
        # All sums are divided by the larger of Z and e^{s q_c}.
        z = torch.exp(-log_ratio.clamp(min=0)).where(differs, 1.0)
        weight_c = torch.exp(log_ratio.clamp(max=0)).where(differs, 0.0)
        weight_o = weights.view(-1)[own]
        z_i = (1 - weight_o) * z + weight_c
        q = torch.stack([positive, q_c])
        terms = centred_softplus(q) if near_zero else softplus(q) - LOG2
        mean = ((means[row] - weight_o * terms[0]) * z + weight_c * terms[1]) / z_i
        z /= z_i
        # The two columns in which a node's gradient differs from its row's: own graph and c.
        node_s = s_of_slope.squeeze(1)[row]
        column_weights = torch.stack([-weight_o * z, weight_c / z_i])
        derivative = torch.sigmoid(q) + node_s * (terms - mean)
        places = torch.stack([own, own - graph + column])
        ctx.stop_gradient = stop_gradient
        ctx.save_for_backward(
            *(scores, beta, row, graph, weights, slopes, mean, z, node_s),
            *(column_weights, derivative, places),
        )
        return positive, mean + LOG2

    @staticmethod
    @full_precision_backward
    def backward(ctx: Any, grad_positive: Tensor, grad_mean: Tensor) -> tuple[Tensor | None, ...]:
        scores, beta, row, graph, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient needs a gradient itself
            outputs = hard_softplus(scores, beta, row, graph, ctx.stop_gradient)
            grad_outputs = grad_positive, grad_mean
            (grad,) = torch.autograd.grad(outputs, scores, grad_outputs, create_graph=True)
            return grad, None, None, None, None
        weights, slopes, mean, z, node_s, column_weights, derivative, places = saved
        row_sums = torch.stack([grad_mean * z, grad_mean * z * node_s * mean], dim=1)
        row_sums = slopes.new_zeros(len(slopes), 2).index_add_(0, row, row_sums)
        grad = (slopes * row_sums[:, :1]).addcmul_(weights, row_sums[:, 1:], value=-1)
        change = grad_mean * column_weights * derivative
        change[0] += grad_positive
        grad.view(-1).scatter_add_(0, places.flatten(), change.flatten())
        return grad.view(scores.shape), None, None, None, None


def _row_blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of the rows of a matrix: small enough for a processor's cache; on a GPU all rows."""
    size = len(rows) if rows.is_cuda else max(1, BLOCK_ELEMENTS // rows.shape[1])
    return (slice(start, start + size) for start in range(0, len(rows), size))


def _is_near_zero(m: Tensor) -> bool:
    """Whether a run has small scores alone. Where the answer would be waited for, it is yes."""
    return m.is_cuda or torch.compiler.is_compiling() or bool((m < NEAR_ZERO).any())


def _sigmoid_and_softplus(x: Tensor, near_zero: bool) -> tuple[Tensor, Tensor]:
    """sigmoid(x) and softplus(x) - log 2, without a gradient.

    Unless ``near_zero``, absolute errors are those of the type: log1p, whose relative error is smaller, takes
    seven times as long. x is clamped because a processor takes ten to fifty times as long for exponentials
    that underflow or overflow, and for products with numbers that nearly do. Beyond the bounds the sigmoid is
    less than 1e-17 from 0 or 1, and 1 + e^x is 1 or e^x.
    """
    if near_zero:
        return torch.sigmoid(x), centred_softplus(x)
    x = x - LOG2
    exp = x.clamp(-40, 80).exp_()
    terms = exp + 0.5
    sigmoid = exp.div_(terms)
    return sigmoid, torch.maximum(terms.log_(), x, out=terms)


def centred_softplus(x: Tensor) -> Tensor:
    """softplus(x) - log 2, near 0 with all its digits."""
    near = x.clamp(-1, 1)
    return torch.log1p(torch.expm1(near) / 2) + (softplus(x) - softplus(near))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own turns linear at 20, where that is still off by 2e-9 in float64."""
    return F.softplus(x, threshold=50)
