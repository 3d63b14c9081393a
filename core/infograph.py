"""InfoGraph's Jensen-Shannon objective between nodes and graphs, with hard negatives.

Shapes: V nodes of the batch · G graphs of the batch · D dim.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.objectives import check_hardness, full_precision

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
        beta: Hardness, at least 0.
        tau_plus: Prior probability, in [0, 1), that another graph has the node's class.
        variant: ``"corrected"`` or ``"released"``.
        stop_gradient: Treat the weights w as constants.

    Raises:
        ValueError: A setting is outside its range, the shapes do not fit, or the batch is a single graph.
    """

    def __init__(
        self,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        variant: Variant = "corrected",
        stop_gradient: bool = False,
    ) -> None:
        super().__init__()
        check_hardness(beta, tau_plus)
        if variant not in get_args(Variant):
            raise ValueError(f"variant is {variant!r}; it must be one of {', '.join(get_args(Variant))}")
        self.beta = beta
        self.tau_plus = tau_plus
        self.variant = variant
        self.stop_gradient = stop_gradient

    def forward(self, local: Tensor, global_: Tensor, batch: Tensor) -> Tensor:
        """Return the mean loss over nodes: [V, D], [G, D], [V] int (each node's graph) -> scalar."""
        check_local_global(local, global_, batch)
        with torch.autocast(local.device.type, enabled=False):
            scores = full_precision(local) @ full_precision(global_).T  # (V, G)
            own = batch.unsqueeze(1)  # (V, 1)
            positive = scores.gather(1, own).squeeze(1)  # (V,)
            objective = self._corrected if self.variant == "corrected" else self._released
            return objective(positive, scores, own).mean()

    def _corrected(self, positive: Tensor, scores: Tensor, own: Tensor) -> Tensor:
        negatives = scores.scatter(1, own, -torch.inf)  # weight and softplus of the own graph become 0
        if self.beta == 0:
            negative = softplus(negatives).sum(dim=1) / (scores.shape[1] - 1)
        else:
            least, most = scores.detach().scatter(1, own, 0.0).aminmax()
            largest = torch.maximum(-least, most).clamp(min=1e-30)  # all scores 0: any m gives equal weights
            hardness = negatives.detach() if self.stop_gradient else negatives
            weights = torch.softmax(hardness * (2 * self.beta / largest), dim=1)  # w / (G - 1)
            negative = (weights * softplus(scores)).sum(dim=1)
        debiased = (negative - self.tau_plus * softplus(positive)) / (1 - self.tau_plus)
        return softplus(-positive) + debiased.clamp(min=0) - 2 * math.log(2)

    def _released(self, positive: Tensor, scores: Tensor, own: Tensor) -> Tensor:
        graphs = scores.shape[1]
        log2 = math.log(2)
        scale = 1 / (1 - self.tau_plus)
        # The own graph stays, at score 0, in the sum and in the weights' mean: G columns, divided by G - 1.
        scores = scores.scatter(1, own, 0.0)
        largest = torch.maximum(scores.amax(), scores.amin().abs()).clamp(min=torch.finfo(scores.dtype).tiny)
        hardness = -2 * scores / largest
        weights = torch.softmax(self.beta * (hardness.detach() if self.stop_gradient else hardness), dim=1)
        # As released, softplus(q) is torch's softplus(-q) + q, and so linear from 20 on.
        negative = scale * graphs * (weights * (F.softplus(-scores) + scores)).sum(dim=1)
        # log 2 leaves each of the G columns before the division at beta 0, after it otherwise.
        negative = (negative - (scale if self.beta == 0 else 1) * graphs * log2) / (graphs - 1)
        # Every column but the own counts as a positive of score 0 in the class-prior term.
        prior = F.softplus(-positive) + positive + (graphs - 1) * log2
        return negative + F.softplus(-positive) - log2 + self.tau_plus * scale * prior

    def extra_repr(self) -> str:
        names = ("beta", "tau_plus", "variant", "stop_gradient")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own turns linear at 20, where that is still off by 2e-9 in float64."""
    return F.softplus(x, threshold=50)


def check_local_global(local: Tensor, global_: Tensor, batch: Tensor) -> None:
    """Raise ValueError unless the shapes are [nodes, dim], [graphs, dim], [nodes], of two graphs or more."""
    if local.ndim != 2 or global_.ndim != 2 or local.shape[1] != global_.shape[1]:
        raise ValueError(
            f"local is {list(local.shape)} and global_ {list(global_.shape)}; "
            "they must be [nodes, dim] and [graphs, dim] of one dim"
        )
    if batch.shape != local.shape[:1] or batch.dtype != torch.int64:
        raise ValueError(
            f"batch is {list(batch.shape)} of {batch.dtype}; it must be [{len(local)}] of torch.int64"
        )
    if len(local) == 0:
        raise ValueError("local has 0 nodes; at least 1 is needed")
    if len(global_) < 2:
        raise ValueError(f"the batch has {len(global_)} graph; at least 2 are needed to have negatives")
