"""InfoGraph's Jensen-Shannon objective between nodes and graphs, with hard negatives.

Shapes: V nodes of the batch · U different ones among them · G graphs of the batch · D dim
        S runs that are trained together, each with its own loss: no dimension, or one, or several.
"""

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    REDUCTIONS,
    Reduction,
    Setting,
    as_text,
    check_choice,
    check_hardness,
    check_local_global,
    check_pairs,
    check_shape_of_setting,
    requires_grad,
)
from .functional import full_precision
from .hard_softplus import HardSoftplus, hard_softplus, softplus

Variant = Literal["corrected", "released"]


class InfoGraphLoss(nn.Module):
    r"""Jensen-Shannon bound (InfoGraph, Sun et al., ICLR 2020, eq. 4) with reweighted, debiased negatives.

    For a node with score p to its own graph and scores q_j to the others, and m the batch's largest abs(q),
    a constant for the gradient, ``variant="corrected"`` carries the hard objective (Robinson et al., ICLR
    2021, eq. 4) over to the bound:

        w_j  = e^{2 beta q_j / m} / mean_k e^{2 beta q_k / m}
        Eq   = max(0, (mean_j w_j softplus(q_j) - tau_plus softplus(p)) / (1 - tau_plus))
        loss = softplus(-p) + Eq - 2 log 2,  averaged over the nodes.

    ``variant="released"`` with ``tau_plus=0.5``, which their code always has, is the authors' code, value and
    gradient. It leaves the derivation in four places: the exponent of w has the other sign, so the easiest
    negatives weigh most; the class-prior term on p is added where the derivation subtracts it; each node's
    own graph stays among its negatives, at score 0; and m has a gradient.

    At ``beta=0, tau_plus=0`` both variants are InfoGraph's own objective.

    Args:
        beta: Hardness, at least 0; or one for each of several runs, on a GPU best as a tensor there.
        tau_plus: Prior probability, in [0, 1), that another graph has the node's class; or one for each run.
        variant: ``"corrected"`` or ``"released"``.
        stop_gradient: Treat the weights w as constants.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each node, [V].

    ``beta`` and ``tau_plus`` can be learned: give tensors that require a gradient. Their values are not
    checked: keep them inside their ranges while you train.

    Raises:
        ValueError: A setting is outside its range, the shapes do not match, or the batch is a single graph.

    Examples:
        >>> local, global_, batch = torch.randn(6, 16), torch.randn(2, 16), torch.tensor([0, 0, 0, 1, 1, 1])
        >>> loss = InfoGraphLoss(beta=1.0, tau_plus=0.1)(local, global_, batch)
    """

    def __init__(
        self,
        beta: Setting = 1.0,
        tau_plus: Setting = 0.1,
        *,
        variant: Variant = "corrected",
        stop_gradient: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_pairs(beta, tau_plus)
        if stop_gradient and requires_grad(beta):
            raise ValueError("`beta` requires a gradient, but `stop_gradient` makes the weights constants")
        check_choice("variant", variant, get_args(Variant))
        check_choice("reduction", reduction, REDUCTIONS)
        self.beta = beta
        self.tau_plus = tau_plus
        self.variant: Variant = variant
        self.stop_gradient = stop_gradient
        self.reduction: Reduction = reduction

    if TYPE_CHECKING:  # nn.Module's own says Any

        def __call__(
            self,
            local: Tensor,
            global_: Tensor,
            batch: Tensor,
            node: Tensor | None = None,
            weight: Tensor | None = None,
        ) -> Tensor: ...

    def forward(
        self,
        local: Tensor,
        global_: Tensor,
        batch: Tensor,
        node: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss over nodes: [V, D], [G, D], [V] int (each node's graph) -> scalar, or [V].

        Nodes with equal projections may share one: then ``local`` is [U, D], and ``node`` [V] says which of
        its rows each entry of ``batch`` has. ``weight`` [V] is the share of each node in the mean, by default
        1 / V: given weights, ``"none"`` is each node's loss times its weight, ``"sum"`` and ``"mean"`` are
        their sum. With runs in front, [S, V, D], [S, G, D], [S, V] -> [S], or [S, V].
        """
        check_local_global(local, global_, batch, node, weight)
        if isinstance(self.beta, float | int) and isinstance(self.tau_plus, float | int):
            check_hardness(self.beta, self.tau_plus)  # they may change between steps; reading tensors waits
        for name in ("beta", "tau_plus"):
            check_shape_of_setting(name, getattr(self, name), batch.shape[:-1])
        with torch.autocast(local.device.type, enabled=False):
            scores = full_precision(local) @ full_precision(global_).mT  # (U, G)
            if node is None:
                node = torch.arange(local.shape[-2], device=local.device).expand(batch.shape)
            # The rows of all runs are numbered one run after the other.
            row = (node + _offsets(batch.shape[:-1], local.shape[-2], node.device)).flatten()  # (S V,)
            formula = self._corrected if self.variant == "corrected" else self._released
            loss = formula(scores, row, batch).view(batch.shape)
            if weight is not None:
                loss = loss * weight
            if self.reduction == "none":
                return loss
            return loss.mean(dim=-1) if self.reduction == "mean" and weight is None else loss.sum(dim=-1)

    def _corrected(self, scores: Tensor, row: Tensor, batch: Tensor) -> Tensor:
        """Every node's loss: [S, U, G], [S V], [S, V] -> [S V]."""
        beta = _like(self.beta, scores).expand(batch.shape[:-1])
        mean_of_negatives = hard_softplus if beta.requires_grad else HardSoftplus.apply
        positive, negative = mean_of_negatives(scores, beta, row, batch.flatten(), self.stop_gradient)
        tau_plus = _like(self.tau_plus, scores).unsqueeze(-1).expand(batch.shape).flatten()
        debiased = (negative - tau_plus * softplus(positive)) / (1 - tau_plus)
        return softplus(-positive) + debiased.clamp(min=0) - 2 * math.log(2)

    def _released(self, scores: Tensor, row: Tensor, batch: Tensor) -> Tensor:
        """Every node's loss: [S, U, G], [S V], [S, V] -> [S V]."""
        rows, own = scores.flatten(0, -2), batch.reshape(-1, 1)
        positive = rows[row, own.squeeze(1)]
        graphs, log2 = scores.shape[-1], math.log(2)
        beta, tau_plus = (_like(value, scores) for value in (self.beta, self.tau_plus))
        beta, tau_plus = (
            value.unsqueeze(-1).expand(batch.shape).reshape(-1, 1) for value in (beta, tau_plus)
        )
        scale = 1 / (1 - tau_plus)
        # The own graph stays, at score 0, in the sum and in the weights' mean: G columns, divided by G - 1.
        negatives = rows.index_select(0, row).scatter(1, own, 0.0)
        by_run = negatives.view(*batch.shape, graphs)
        largest = torch.maximum(by_run.amax((-2, -1)), by_run.amin((-2, -1)).abs())
        largest = largest.clamp(min=1e-30)[..., None].expand(batch.shape)  # all scores may be 0
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
        names = ("beta", "tau_plus", "variant", "stop_gradient", "reduction")
        return ", ".join(f"{name}={as_text(getattr(self, name))}" for name in names)


def _like(value: Setting, scores: Tensor) -> Tensor:
    """A setting, one for all or one a run, as a tensor with the type and device of ``scores``.

    A number is filled in on the device, and a tensor that is there stays; a list is copied, and on a GPU that
    makes the host wait.
    """
    if isinstance(value, float | int):
        return scores.new_full((), value)
    return torch.as_tensor(value, dtype=scores.dtype, device=scores.device)


def _offsets(runs: torch.Size, rows: int, device: torch.device) -> Tensor:
    """The number of each run's first row: [S, 1]."""
    return rows * torch.arange(runs.numel(), device=device).view(*runs, 1)
