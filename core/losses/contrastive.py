"""The contrastive objectives: NT-Xent, debiased and hard, one formula at three settings.

Shapes: B batch · b this process's part of it · D dim
        R rows (anchors) · C columns (candidates) · P positives of a row.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .collectives import all_gather, rank, world_size
from .exchange import Exchange, choose_exchange
from .tiled import log_negative_mean_of_views

ExchangeChoice = Literal["auto", "gather", "ring"]


class HardNegativeLoss(nn.Module):
    r"""Loss over two views with reweighted, debiased negatives (Robinson et al., ICLR 2021, eq. 4).

    For each of the 2B anchors, with positive logit p and N = 2B - 2 negative logits s_j, all cosines divided
    by the temperature:

        w_j  = e^{beta s_j} / mean_k e^{beta s_k}
        Ng   = max( (sum_j w_j e^{s_j} - N tau_plus e^p) / (1 - tau_plus),  N e^{-1/temperature} )
        loss = -log( e^p / (e^p + Ng) ),  averaged over the anchors.

    ``tau_plus=0`` and ``beta=0`` give :class:`NTXentLoss`; ``beta=0`` alone gives :class:`DebiasedLoss`.
    The weights' denominator is the mean of the weights, as in the authors' code.

    Args:
        beta: Hardness, at least 0: how far the weights lean towards negatives near the anchor.
        tau_plus: Prior probability, in [0, 1), that a negative has the anchor's class.
        temperature: Divides the cosine; above 0.
        tile_size: Rows and columns of the similarity matrix held at a time; ``None`` holds it whole.
            Value and gradient do not depend on it; memory is then linear in B instead of quadratic.
        stop_gradient: Treat the weights w as constants. The authors' code does not.
        gather_distributed: Take negatives from every process of the default process group. The loss is the
            mean over this process's anchors; the mean of the processes' gradients is the whole batch's.
            With tiles no process holds more than its own rows, a tile at a time.
        exchange: How embeddings travel then, with tiles: ``"gather"`` brings everybody's at once, ``"ring"``
            one process's at a time; ``"auto"`` gathers where a quarter of every free memory is enough.

    Raises:
        ValueError: A setting is outside its range, the views do not fit each other, or processes do not have
            equally many.

    Example:
        >>> views = torch.nn.functional.normalize(torch.randn(2, 8, 16), dim=-1)
        >>> loss = HardNegativeLoss(beta=1.0, tau_plus=0.1, temperature=0.5)(views[0], views[1])
    """

    def __init__(
        self,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        temperature: float = 0.5,
        tile_size: int | None = None,
        stop_gradient: bool = False,
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__()
        check_hardness(beta, tau_plus)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}; it must be above 0 and finite")
        if tile_size is not None and tile_size < 1:
            raise ValueError(f"tile_size is {tile_size}; it must be at least 1, or None for no tiles")
        if exchange not in get_args(ExchangeChoice):
            choices = ", ".join(get_args(ExchangeChoice))
            raise ValueError(f"exchange is {exchange!r}; it must be one of {choices}")
        self.beta = beta
        self.tau_plus = tau_plus
        self.temperature = temperature
        self.tile_size = tile_size
        self.stop_gradient = stop_gradient
        self.gather_distributed = gather_distributed
        self.exchange = exchange

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Return the mean loss of both views' anchors: [B, D] and [B, D], unit norm -> scalar.

        Half-precision views are taken to float32 first, under autocast too: at temperature 0.01 and
        beta 32 logits reach 3,300, where half precision resolves no difference between them.
        """
        check_views(view1, view2)
        with torch.autocast(view1.device.type, enabled=False):
            view1, view2 = full_precision(view1), full_precision(view2)
            positive = ((view1 * view2).sum(dim=1) / self.temperature).repeat(2)  # (2b,)
            anchors = torch.cat([view1, view2])  # (2b, D)
            exchange = self._exchange_of(anchors)
            batch = len(view1) * (1 if exchange == "alone" else world_size())
            if batch < 2:
                raise ValueError(f"the batch has {batch} samples; at least 2 are needed to have negatives")
            if self.tile_size is None:
                candidates, first = anchors, 0
                if exchange != "alone":
                    candidates = torch.cat([all_gather(view1), all_gather(view2)])  # (2B, D)
                    first = rank() * len(view1)
                negatives = anchors @ candidates.T / self.temperature  # (2b, 2B)
                mask = samples_of_views(anchors, first)[:, None] != samples_of_views(candidates)
                log_mean = log_negative_mean(negatives, mask, self.beta, self.stop_gradient)
            else:
                log_mean = log_negative_mean_of_views(
                    anchors, self.temperature, self.beta, self.stop_gradient, self.tile_size, exchange
                )
            return loss_from_log_mean(
                positive, log_mean, 2 * batch - 2, self.tau_plus, floor=-1 / self.temperature
            ).mean()

    def _exchange_of(self, embeddings: Tensor) -> Exchange:
        """How embeddings travel, once all processes have said that they have equally many."""
        chosen = choose_exchange(embeddings) if self.gather_distributed else "alone"
        return chosen if self.exchange == "auto" or chosen == "alone" else self.exchange

    def extra_repr(self) -> str:
        names = ("beta", "tau_plus", "temperature", "tile_size", "stop_gradient")
        names += ("gather_distributed", "exchange")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class NTXentLoss(HardNegativeLoss):
    """NT-Xent, SimCLR's loss (Chen et al., ICML 2020, eq. 1): ``HardNegativeLoss`` at beta 0, tau_plus 0.

    ``stop_gradient`` is without effect here: at beta 0 the weights are 1.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        tile_size: int | None = None,
        stop_gradient: bool = False,
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__(0.0, 0.0, temperature, tile_size, stop_gradient, gather_distributed, exchange)


class DebiasedLoss(HardNegativeLoss):
    """The debiased loss (Chuang et al., NeurIPS 2020, eq. 7, 8): ``HardNegativeLoss`` at beta 0.

    ``stop_gradient`` is without effect here: at beta 0 the weights are 1.
    """

    def __init__(
        self,
        tau_plus: float = 0.1,
        temperature: float = 0.5,
        tile_size: int | None = None,
        stop_gradient: bool = False,
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__(0.0, tau_plus, temperature, tile_size, stop_gradient, gather_distributed, exchange)


def hard_negative_loss(
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    *,
    beta: float,
    tau_plus: float,
    floor: float | Tensor,
    stop_gradient: bool = False,
) -> Tensor:
    """The objective on logits, for any anchors, positives and negatives.

    The logits are given whole, so there is nothing to save by tiles here; from embeddings of two views
    ``HardNegativeLoss`` has the same in memory linear in the batch.

    Args:
        positive: [R] or, for rows with several positives, [R, P]; each positive makes a term of its own.
        negatives: [R, C] logits (similarity / temperature).
        mask: [R, C] bool, true where a column is a negative of the row. A row without one has loss 0.
        beta: Hardness, at least 0.
        tau_plus: Class prior in [0, 1).
        floor: The least a negative logit can be, a number or [R]; the debiased sum of N negatives
            never falls below N e^floor. Without effect where tau_plus is 0.
        stop_gradient: Treat the weights as constants.

    Returns:
        The loss of each positive, in the shape of ``positive``.

    Raises:
        ValueError: A setting is outside its range, or the shapes do not fit each other.
    """
    check_hardness(beta, tau_plus)
    if negatives.ndim != 2 or mask.shape != negatives.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"negatives are {list(negatives.shape)} and the mask {list(mask.shape)} of {mask.dtype}; "
            "both must be [rows, columns], the mask bool"
        )
    if positive.ndim not in (1, 2) or len(positive) != len(negatives):
        raise ValueError(
            f"positive is {list(positive.shape)}; with negatives {list(negatives.shape)} it must be "
            f"[{len(negatives)}] or [{len(negatives)}, positives]"
        )
    positive, negatives = full_precision(positive), full_precision(negatives)
    log_mean = log_negative_mean(negatives, mask, beta, stop_gradient)
    rows = [log_mean, mask.sum(dim=1), floor]
    if positive.ndim == 2:
        rows = [row.unsqueeze(1) if isinstance(row, Tensor) and row.ndim else row for row in rows]
    log_mean, count, floor = rows
    return loss_from_log_mean(positive, log_mean, count, tau_plus, floor)


def log_negative_mean(negatives: Tensor, mask: Tensor, beta: float, stop_gradient: bool) -> Tensor:
    """log of the weighted mean of e^{s_j} over a row's negatives: [R, C], [R, C] -> [R].

    That is A = LSE((1 + beta) s) - LSE(beta s); no exponential is taken outside a log-sum-exp.
    A row without negatives gives -inf, with gradient 0.
    """
    counts = mask.sum(dim=1)
    empty = counts == 0
    excluded = ~(mask | empty.unsqueeze(1))  # a row without negatives is computed on anything finite
    if beta == 0:  # the second sum is of as many ones as there are negatives
        log_sum = torch.logsumexp(negatives.masked_fill(excluded, -torch.inf), dim=1)
        log_normaliser = counts.clamp(min=1).to(negatives.dtype).log()
    else:
        scaled = beta * (negatives.detach() if stop_gradient else negatives)
        log_sum = torch.logsumexp((negatives + scaled).masked_fill(excluded, -torch.inf), dim=1)
        log_normaliser = torch.logsumexp(scaled.masked_fill(excluded, -torch.inf), dim=1)
    return (log_sum - log_normaliser).masked_fill(empty, -torch.inf)


def loss_from_log_mean(
    positive: Tensor, log_mean: Tensor, count: int | Tensor, tau_plus: float, floor: float | Tensor
) -> Tensor:
    """softplus(log Ng - p), with log Ng the debiased, floored sum of ``count`` negatives."""
    if tau_plus > 0:
        # log(e^A - tau_plus e^p) = A + log(1 - e^x), x = log tau_plus + p - A; no such number where x >= 0.
        x = math.log(tau_plus) + positive - log_mean
        possible = x < 0
        debiased = log_mean + log1m_exp(torch.where(possible, x, -1.0)) - math.log1p(-tau_plus)
        log_mean = torch.where(possible, debiased.clamp(min=floor), floor)
    # A row without negatives has log count -inf, and so loss 0.
    log_count = count.to(log_mean.dtype).log() if isinstance(count, Tensor) else math.log(count)
    # logsigmoid, not softplus: the latter turns linear at 20, an error of 2e-9 in float64.
    return -F.logsigmoid(positive - log_mean - log_count)


def log1m_exp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, accurate at both ends (Maechler, 2012)."""
    near_zero = x > -math.log(2)
    return torch.where(
        near_zero,
        torch.log(-torch.expm1(torch.where(near_zero, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_zero, -1.0, x))),
    )


def samples_of_views(embeddings: Tensor, first: int = 0) -> Tensor:
    """The sample that each embedding of two views, one view after the other, is of: [2B, D] -> [2B]."""
    return first + torch.arange(len(embeddings) // 2, device=embeddings.device).repeat(2)


def full_precision(x: Tensor) -> Tensor:
    """Half-precision values as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_hardness(beta: float, tau_plus: float) -> None:
    """Raise ValueError unless beta >= 0 and 0 <= tau_plus < 1."""
    if not (beta >= 0 and math.isfinite(beta)):
        raise ValueError(f"beta is {beta}; it must be at least 0 and finite")
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus is {tau_plus}; it must be at least 0 and below 1")


def check_views(view1: Tensor, view2: Tensor) -> None:
    """Raise ValueError unless both views are [batch, dim] of floats, alike."""
    if view1.ndim != 2 or view1.shape != view2.shape:
        raise ValueError(
            f"the views are {list(view1.shape)} and {list(view2.shape)}; both must be the same [batch, dim]"
        )
    if not (view1.is_floating_point() and view1.dtype == view2.dtype):
        raise ValueError(f"the views are {view1.dtype} and {view2.dtype}; both must be the same float type")
