"""The contrastive objectives of two views: NT-Xent, debiased and hard.

Shapes: B batch · b this process's part of it · D dim.
"""

from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    REDUCTIONS,
    Reduction,
    Scalar,
    as_text,
    check_choice,
    check_hardness,
    check_labels,
    check_temperature,
    check_views,
    constant,
    number,
)
from .collectives import all_gather, rank, world_size
from .exchange import Exchange, choose_exchange
from .functional import (
    as_type_of,
    full_precision,
    log_negative_mean,
    loss_from_log_mean,
    reduced,
    supervised_losses,
)
from .tiled import log_negative_mean_of_views

ExchangeChoice = Literal["auto", "gather", "ring"]
Positives = Literal["view", "label"]
EXCHANGES: tuple[str, ...] = get_args(ExchangeChoice)
POSITIVES: tuple[str, ...] = get_args(Positives)


class HardNegativeLoss(nn.Module):
    r"""Loss over two views with reweighted, debiased negatives (Robinson et al., ICLR 2021, eq. 4).

    Each of the 2B embeddings is an anchor. Its positive is the other view of the same sample, its N = 2B - 2
    negatives are both views of all other samples: of samples a, b, c in views 1, 2, anchor a1 has the
    positive a2 and the negatives b1, c1, b2, c2. With p the positive's and s_j the negatives' cosines,
    divided by the temperature:

        w_j  = e^{beta s_j} / mean_k e^{beta s_k}
        Ng   = max( (sum_j w_j e^{s_j} - N tau_plus e^p) / (1 - tau_plus),  N e^{-1/temperature} )
        loss = -log( e^p / (e^p + Ng) ),  averaged over the anchors.

    ``tau_plus=0`` and ``beta=0`` give ``NTXentLoss``; ``beta=0`` alone gives ``DebiasedLoss``.
    The weights' denominator is the mean of the weights, as in the authors' code.

    Args:
        beta: Hardness, at least 0: how much more the negatives near the anchor weigh.
        tau_plus: Prior probability, in [0, 1), that a negative has the anchor's class.
        temperature: Divides the cosine; above 0.
        normalize: Scale the views to unit length. With ``False`` their inner products are taken as they are,
            and the lower bound of Ng, which assumes unit length, is used only where ``tau_plus`` is above 0.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each anchor, [2b]: those of ``view1``,
            then those of ``view2``.
        tile_size: Rows and columns of the part of the similarity matrix in memory; ``None`` for all of them.
            Value and gradient do not depend on it; memory is then linear in B instead of quadratic.
        stop_gradient: Treat the weights w as constants. The authors' code does not.
        positives: ``"view"``: an anchor's positive is the other view. ``"label"``: every other embedding of
            its class is one, which needs ``labels`` and ``tau_plus=0``; at beta 0 this is SupCon. An
            anchor's loss is the mean over its positives p of -log( e^p / (sum of all positives' e^p + Ng) ).
        gather_distributed: Take negatives from every process of the default process group. The loss is the
            mean over this process's anchors; the mean of the processes' gradients is the whole batch's
            (with ``reduction="mean"``).
            With tiles no process has more than its own rows of the matrix, a tile at a time.
        exchange: How embeddings are exchanged then, with tiles: ``"gather"`` all at once, ``"ring"`` one
            process's at a time; ``"auto"`` gathers where that needs less than a quarter of the free memory.

    ``temperature`` and ``beta`` can be learned: give tensors [] that require a gradient, such as an
    ``nn.Parameter``. Their values are not checked: keep them inside their bounds while you train. Those of
    other tensors are checked here, but not later.

    Raises:
        ValueError: A setting is outside its range, the views or labels do not match, or the processes have
            different numbers of samples.

    Examples:
        >>> view1, view2 = torch.randn(2, 8, 16)
        >>> loss = HardNegativeLoss(beta=1.0, tau_plus=0.1, temperature=0.5)(view1, view2)
    """

    def __init__(
        self,
        beta: Scalar = 1.0,
        tau_plus: float = 0.1,
        temperature: Scalar = 0.5,
        *,
        normalize: bool = True,
        reduction: Reduction = "mean",
        tile_size: int | None = None,
        stop_gradient: bool = False,
        positives: Positives = "view",
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__()
        self.beta = beta
        self.tau_plus = tau_plus
        self.temperature = temperature
        self.normalize = normalize
        self.reduction: Reduction = reduction
        self.tile_size = tile_size
        self.stop_gradient = stop_gradient
        self.positives: Positives = positives
        self.gather_distributed = gather_distributed
        self.exchange = exchange
        self._check_settings()
        # Constant tensors are read here, and not in every step: on a GPU the host waits for them.
        self.tau_plus = number(tau_plus)
        check_hardness(constant(beta), self.tau_plus)
        check_temperature(constant(temperature))

    if TYPE_CHECKING:  # nn.Module's own says Any

        def __call__(self, view1: Tensor, view2: Tensor, labels: Tensor | None = None) -> Tensor: ...

    def forward(self, view1: Tensor, view2: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of both views' anchors: [b, D], [b, D] -> scalar, or [2b] without reduction.

        With ``labels`` [b], integers, samples of the anchor's class are not negatives: the unbiased oracle of
        Chuang et al. (2020). Whatever ``tau_plus`` corrects for is known: set it to 0. An anchor without
        negatives has loss 0, unless ``positives`` is ``"label"``: several positives compete with each other.

        Half-precision views are converted to float32 first, under autocast too: at temperature 0.01 and
        beta 32 logits reach 3,300, where half precision resolves no difference between them.
        """
        self._check_settings()
        check_views(view1, view2)
        if labels is not None:
            check_labels(labels, len(view1))
            if self.tile_size is not None:
                raise ValueError("`labels` are not supported in tiles; set `tile_size` to None")
        elif self.positives == "label":
            raise ValueError("`labels` is missing; `positives='label'` needs the class of each sample")
        with torch.autocast(view1.device.type, enabled=False):
            view1, view2 = full_precision(view1), full_precision(view2)
            beta, temperature = (as_type_of(view1, setting) for setting in (self.beta, self.temperature))
            if self.normalize:
                view1, view2 = F.normalize(view1, dim=1), F.normalize(view2, dim=1)
            anchors = torch.cat([view1, view2])  # (2b, D)
            exchange = self._choose_exchange(anchors)
            batch = len(view1) * (1 if exchange == "alone" else world_size())
            if batch < 2:
                raise ValueError(f"the batch has {batch} samples; at least 2 are needed to have negatives")
            count: int | Tensor = 2 * batch - 2
            if self.tile_size is not None:
                log_mean = log_negative_mean_of_views(
                    anchors, temperature, beta, self.stop_gradient, self.tile_size, exchange
                )
            else:
                candidates = anchors  # (2B, D)
                if exchange != "alone":
                    candidates = torch.cat([all_gather(view1), all_gather(view2)])
                logits = anchors @ candidates.T / temperature  # (2b, 2B)
                negatives = self._is_negative(labels, len(view1), batch, view1.device)
                if self.positives == "label":
                    positives = ~negatives & self._is_other(len(view1), batch, view1.device)
                    losses = supervised_losses(logits, positives, negatives, beta, self.stop_gradient)
                    return reduced(losses, self.reduction)
                log_mean = log_negative_mean(logits, negatives, beta, self.stop_gradient)
                if labels is not None:
                    count = negatives.sum(dim=1)
            positive = ((view1 * view2).sum(dim=1) / temperature).repeat(2)  # (2b,)
            losses = loss_from_log_mean(positive, log_mean, count, self.tau_plus, floor=-1 / temperature)
            return reduced(losses, self.reduction)

    def _check_settings(self) -> None:
        """Raise ValueError for a setting outside its range: settings may also change between steps.

        The values of tensors are not read.
        """
        check_hardness(self.beta, self.tau_plus, self.stop_gradient)
        check_temperature(self.temperature)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("exchange", self.exchange, EXCHANGES)
        check_choice("positives", self.positives, POSITIVES)
        if self.tile_size is not None and not (isinstance(self.tile_size, int) and self.tile_size > 0):
            raise ValueError(f"`tile_size` is {self.tile_size!r}; it must be an integer above 0, or None")
        if self.positives == "label" and self.tau_plus != 0:
            raise ValueError(
                f"`tau_plus` is {self.tau_plus}; with `positives='label'` classes are known: set it to 0"
            )
        if self.positives == "label" and self.tile_size is not None:
            raise ValueError("`positives='label'` is not supported in tiles; set `tile_size` to None")

    def _choose_exchange(self, embeddings: Tensor) -> Exchange:
        """How embeddings are exchanged, once all processes have said that they have equally many."""
        chosen = choose_exchange(embeddings) if self.gather_distributed else "alone"
        return chosen if self.exchange == "auto" or chosen == "alone" else self.exchange

    @staticmethod
    def _is_negative(labels: Tensor | None, own: int, batch: int, device: torch.device) -> Tensor:
        """Which candidates are negatives of each anchor, those of another class or sample: [2b, 2B] bool."""
        if labels is None:
            classes = torch.arange(batch, device=device)  # every sample is a class of its own
            own_classes = classes if own == batch else classes[own * rank() :][:own]
        else:
            classes, own_classes = all_gather(labels) if own < batch else labels, labels
        return own_classes.repeat(2)[:, None] != classes.repeat(2)

    @staticmethod
    def _is_other(own: int, batch: int, device: torch.device) -> Tensor:
        """Which candidates are not the anchor itself: [2b, 2B] bool."""
        first = own * rank() if own < batch else 0
        columns = torch.arange(first, first + own, device=device)
        itself = torch.cat([columns, batch + columns])
        return itself[:, None] != torch.arange(2 * batch, device=device)

    def extra_repr(self) -> str:
        names = ["beta", "tau_plus", "temperature", "normalize", "reduction", "tile_size", "stop_gradient"]
        names += ["positives", "gather_distributed", "exchange"]
        return ", ".join(f"{name}={as_text(getattr(self, name))}" for name in names)


class NTXentLoss(HardNegativeLoss):
    """NT-Xent, SimCLR's loss (Chen et al., ICML 2020, eq. 1): ``HardNegativeLoss`` at beta 0, tau_plus 0.

    With ``positives="label"`` it is SupCon (Khosla et al., NeurIPS 2020, eq. 2).
    """

    def __init__(
        self,
        temperature: Scalar = 0.5,
        *,
        normalize: bool = True,
        reduction: Reduction = "mean",
        tile_size: int | None = None,
        positives: Positives = "view",
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__(
            beta=0.0,
            tau_plus=0.0,
            temperature=temperature,
            normalize=normalize,
            reduction=reduction,
            tile_size=tile_size,
            positives=positives,
            gather_distributed=gather_distributed,
            exchange=exchange,
        )


class DebiasedLoss(HardNegativeLoss):
    """The debiased loss (Chuang et al., NeurIPS 2020, eq. 7, 8): ``HardNegativeLoss`` at beta 0."""

    def __init__(
        self,
        tau_plus: float = 0.1,
        temperature: Scalar = 0.5,
        *,
        normalize: bool = True,
        reduction: Reduction = "mean",
        tile_size: int | None = None,
        gather_distributed: bool = False,
        exchange: ExchangeChoice = "auto",
    ) -> None:
        super().__init__(
            beta=0.0,
            tau_plus=tau_plus,
            temperature=temperature,
            normalize=normalize,
            reduction=reduction,
            tile_size=tile_size,
            gather_distributed=gather_distributed,
            exchange=exchange,
        )
