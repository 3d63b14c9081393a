"""InfoGraph's Jensen-Shannon objective between nodes and graphs, with hard negatives.

Shapes: V nodes of the batch · U different ones among them · G graphs of the batch · D dim.
Any dimensions in front of these are runs that are trained together, each with its own loss.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contrastive import check_hardness, full_precision
from .custom_backward import first_derivative

Variant = Literal["corrected", "released"]


class InfoGraphLoss(nn.Module):
    r"""Jensen-Shannon bound (InfoGraph, Sun et al., ICLR 2020, eq. 4) with reweighted, debiased negatives.

    For a node with score p to its own graph and scores q_j to the others, m the batch's largest abs(q),
    ``variant="corrected"`` carries the hard objective (Robinson et al., ICLR 2021, eq. 4) over to the bound:

        w_j  = e^{2 beta q_j / m} / mean_k e^{2 beta q_k / m}
        Eq   = max(0, (mean_j w_j softplus(q_j) - tau_plus softplus(p)) / (1 - tau_plus))
        loss = softplus(-p) + Eq - 2 log 2,  averaged over the nodes.

    ``variant="released"`` is the authors' code, value and gradient. It leaves the derivation in three places:
    the exponent of w has the other sign, so the easiest negatives weigh most; the class-prior term on p is
    added where the derivation subtracts it; and each node's own graph stays among its negatives, at score 0.
    There m is no constant either, and its tau_plus is always 0.5.

    At ``beta=0, tau_plus=0`` both variants are InfoGraph's own objective.

    Args:
        beta: Hardness, at least 0; or one for each of several runs.
        tau_plus: Prior probability, in [0, 1), that another graph has the node's class; or one for each run.
        variant: ``"corrected"`` or ``"released"``.
        stop_gradient: Treat the weights w as constants.

    Raises:
        ValueError: A setting is outside its range, the shapes do not fit, or the batch is a single graph.
    """

    def __init__(
        self,
        beta: float | Sequence[float] = 1.0,
        tau_plus: float | Sequence[float] = 0.1,
        variant: Variant = "corrected",
        stop_gradient: bool = False,
    ) -> None:
        super().__init__()
        for numbers in zip(*torch.broadcast_tensors(_row(beta), _row(tau_plus)), strict=True):
            check_hardness(*(number.item() for number in numbers))
        if variant not in get_args(Variant):
            raise ValueError(f"variant is {variant!r}; it must be one of {', '.join(get_args(Variant))}")
        self.beta = beta
        self.tau_plus = tau_plus
        self.variant = variant
        self.stop_gradient = stop_gradient

    def forward(
        self,
        local: Tensor,
        global_: Tensor,
        batch: Tensor,
        node: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss over nodes: [V, D], [G, D], [V] int (each node's graph) -> scalar.

        Nodes with equal projections need to be given but once: then ``local`` is [U, D], ``node`` [V] says
        which of its rows each entry of ``batch`` is, and ``weight`` [V] counts for how much of the mean (by
        default equally much). With runs in front, [S, V, D], [S, G, D], [S, V] -> [S].
        """
        check_local_global(local, global_, batch, node)
        with torch.autocast(local.device.type, enabled=False):
            scores = full_precision(local) @ full_precision(global_).mT  # (U, G)
            if node is None:
                node = torch.arange(local.shape[-2], device=local.device).expand(batch.shape)
            # Rows of all runs one below the other: what follows is a matter of rows.
            runs, rows = batch.shape[:-1], scores.flatten(0, -2)
            places = (node + _offsets(runs, local.shape[-2], node.device)).flatten()  # (S V,)
            objective = self._corrected if self.variant == "corrected" else self._released
            loss = objective(scores, rows, places, batch).view(batch.shape)
            return loss.mean(dim=-1) if weight is None else (loss * weight).sum(dim=-1)

    def _corrected(self, scores: Tensor, rows: Tensor, places: Tensor, batch: Tensor) -> Tensor:
        own = batch.flatten()
        beta = _as(self.beta, scores).expand(batch.shape[:-1])
        positive, negative = _HardSoftplus.apply(scores, beta, places, own, self.stop_gradient)
        tau_plus = _as(self.tau_plus, scores).unsqueeze(-1).expand(batch.shape).flatten()
        debiased = (negative - tau_plus * softplus(positive)) / (1 - tau_plus)
        return softplus(-positive) + debiased.clamp(min=0) - 2 * math.log(2)

    def _released(self, scores: Tensor, rows: Tensor, places: Tensor, batch: Tensor) -> Tensor:
        own = batch.reshape(-1, 1)
        positive = rows[places, own.squeeze(1)]
        graphs, log2 = scores.shape[-1], math.log(2)
        beta, tau_plus = (_as(value, scores) for value in (self.beta, self.tau_plus))
        beta, tau_plus = (
            value.unsqueeze(-1).expand(batch.shape).reshape(-1, 1) for value in (beta, tau_plus)
        )
        scale = 1 / (1 - tau_plus)
        # The own graph stays, at score 0, in the sum and in the weights' mean: G columns, divided by G - 1.
        negatives = rows.index_select(0, places).scatter(1, own, 0.0)
        of_run = negatives.view(*batch.shape, graphs)
        largest = torch.maximum(of_run.amax((-2, -1)), of_run.amin((-2, -1)).abs())
        largest = largest.clamp(min=torch.finfo(scores.dtype).tiny)[..., None].expand(batch.shape)
        hardness = -2 * negatives / largest.reshape(-1, 1)
        weights = torch.softmax(beta * (hardness.detach() if self.stop_gradient else hardness), dim=1)
        # As released, softplus(q) is torch's softplus(-q) + q, and so linear from 20 on.
        terms = weights * (F.softplus(-negatives) + negatives)
        negative = scale * graphs * terms.sum(dim=1, keepdim=True)
        # log 2 leaves each of the G columns before the division at beta 0, after it otherwise.
        negative = (negative - torch.where(beta == 0, scale, 1.0) * graphs * log2) / (graphs - 1)
        # Every column but the own counts as a positive of score 0 in the class-prior term.
        prior = F.softplus(-positive) + positive + (graphs - 1) * log2
        return negative.squeeze(1) + F.softplus(-positive) - log2 + (tau_plus * scale).squeeze(1) * prior

    def extra_repr(self) -> str:
        names = ("beta", "tau_plus", "variant", "stop_gradient")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class _HardSoftplus(torch.autograd.Function):
    """p and mean_j w_j softplus(q_j) of every node: [.., U, G], one beta a run -> [.. V], [.. V].

    A test holds it to five lines of autograd. Here no matrix has a row for each of the V nodes: nodes that
    share a row of scores differ in the column alone that they leave out, their own graph's. What e^{s q},
    s = 2 beta / m, sums to is kept for each row without the highest of its own graphs. For a node of that
    graph this is its sum; for another node that column comes in and a lower one goes out, so the sum does
    not shrink and no digit is lost. With D = sigmoid(q) + s softplus(q) and E_i the mean of node i, the
    gradient that E_i sends to its column j is w_ij (D_j - s E_i).
    """

    @staticmethod
    def forward(ctx, scores, beta, places, own, stop_gradient):
        rows = scores.flatten(0, -2)
        first = places * rows.shape[1]  # where a node's row begins
        positive = rows.view(-1)[first + own]
        highest = rows.new_full((len(rows),), -torch.inf).scatter_reduce_(0, places, positive, "amax")
        # Of equals the last is left out, in order that a GPU chooses no other each time.
        candidates = torch.where(positive == highest[places], own, 0)
        left_out = places.new_zeros(len(rows)).scatter_reduce_(0, places, candidates, "amax")
        coming, column = highest[places], left_out[places]
        stays = own != column  # a node's own graph in its row's sum

        # In place of what is left out, its neighbour: neither the lowest nor the largest changes.
        left_out = left_out.unsqueeze(1)
        others = rows.scatter(1, left_out, rows.gather(1, (left_out + 1) % rows.shape[1]))
        lowest, largest = others.amin(dim=1), others.amax(dim=1)
        m = torch.maximum(largest, -lowest)[places].maximum(coming.abs().where(stays, 0.0))
        m = m.view(*beta.shape, -1).amax(dim=-1).clamp(min=1e-30)  # all scores 0: any m will do
        sharpness = (2 * beta / m).unsqueeze(-1).expand(scores.shape[:-1]).reshape(-1, 1)

        weights = torch.softmax(others.mul_(sharpness).scatter_(1, left_out, -torch.inf), dim=1)
        terms = _softplus(rows)
        mean = (weights * terms).sum(dim=1)[places]
        log_sum = sharpness.squeeze(1) * largest - weights.amax(dim=1).log()
        log_coming = (sharpness.squeeze(1) * highest - log_sum)[places]
        scale = torch.exp(-log_coming.clamp(min=0)).where(stays, 1.0)
        factor = torch.exp(log_coming.clamp(max=0)).where(stays, 0.0)
        going = weights.view(-1)[first + own]
        total = (1 - going) * scale + factor
        mean = (mean - going * softplus(positive)) * scale + factor * softplus(coming)
        mean, scale, factor = mean / total, scale / total, factor / total
        going = -going * scale
        if stop_gradient:
            sharpness = torch.zeros_like(sharpness)
        ctx.save_for_backward(
            scores, sharpness, places, own, column, weights, terms, mean, scale, going, factor
        )
        return positive, mean

    @staticmethod
    @first_derivative(of="InfoGraphLoss, corrected,")
    def backward(ctx, grad_positive, grad_mean):
        scores, sharpness, places, own, column, weights, terms, mean, scale, going, factor = ctx.saved_tensors
        rows, s = scores.flatten(0, -2), sharpness.squeeze(1)[places]
        of_row = torch.stack([grad_mean * scale, grad_mean * scale * s * mean], dim=1)
        of_row = rows.new_zeros(len(rows), 2).index_add_(0, places, of_row)
        grad = torch.sigmoid(rows).addcmul_(terms, sharpness).mul_(of_row[:, :1]).sub_(of_row[:, 1:])
        grad.mul_(weights)
        at = places * rows.shape[1] + torch.stack([own, column])
        ends = rows.view(-1)[at]
        slopes = torch.sigmoid(ends) + s * (softplus(ends) - mean)
        sent = grad_mean * torch.stack([going, factor]) * slopes
        sent[0] += grad_positive
        grad.view(-1).scatter_add_(0, at.flatten(), sent.flatten())
        return grad.view(scores.shape), None, None, None, None


def _row(value: float | Sequence[float]) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).reshape(-1)


def _as(value: float | Sequence[float], scores: Tensor) -> Tensor:
    """A setting, one for all or one a run, as a tensor like ``scores``."""
    return torch.as_tensor(value, dtype=scores.dtype, device=scores.device)


def _offsets(runs: torch.Size, rows: int, device: torch.device) -> Tensor:
    """Where each run's rows begin when they stand one below the other: [.., 1]."""
    return rows * torch.arange(runs.numel(), device=device).view(*runs, 1)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own turns linear at 20, where that is still off by 2e-9 in float64."""
    return F.softplus(x, threshold=50)


def _softplus(x: Tensor) -> Tensor:
    """``softplus`` to an absolute, not a relative, rounding error, and without a gradient.

    On a CPU log1p takes seven times as long as log.
    """
    return x.abs().neg_().exp_().add_(1).log_().add_(x.clamp(min=0))


def check_local_global(local: Tensor, global_: Tensor, batch: Tensor, node: Tensor | None = None) -> None:
    """Raise ValueError unless the shapes are [nodes, dim], [graphs, dim], [nodes], of two graphs or more."""
    if local.ndim < 2 or global_.ndim != local.ndim or local.shape[-1] != global_.shape[-1]:
        raise ValueError(
            f"local is {list(local.shape)} and global_ {list(global_.shape)}; "
            "they must be [nodes, dim] and [graphs, dim] of one dim"
        )
    entries = local.shape[:-1] if node is None else node.shape
    if batch.shape != entries or batch.dtype != torch.int64:
        raise ValueError(
            f"batch is {list(batch.shape)} of {batch.dtype}; it must be {list(entries)} of torch.int64"
        )
    if local.shape[-2] == 0:
        raise ValueError("local has 0 nodes; at least 1 is needed")
    if global_.shape[-2] < 2:
        raise ValueError(f"the batch has {global_.shape[-2]} graph; at least 2 are needed to have negatives")
