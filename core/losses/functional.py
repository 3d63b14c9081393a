"""The objective on logits: NT-Xent, debiased and hard are one formula at three settings.

For an anchor with positive logit p and N negative logits s_j (similarity / temperature):

    w_j  = e^{beta s_j} / mean_k e^{beta s_k}                          hard negatives weigh more
    Ng   = (sum_j w_j e^{s_j} - N tau_plus e^p) / (1 - tau_plus)       less what the positive class adds
    loss = -log( e^p / (e^p + max(Ng, N e^floor)) )

In log space, so that no exponential overflows: A = LSE((1 + beta) s) - LSE(beta s) is the log of the weighted
mean of e^{s_j}, and a row needs no more than these two log-sum-exps.

Shapes: R rows (anchors) · C columns (candidates) · P positives of a row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Reduction, Scalar, check_float_type, check_hardness, check_number, check_tensor


def hard_negative_loss(
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    *,
    beta: Scalar,
    tau_plus: float,
    floor: Scalar,
    stop_gradient: bool = False,
) -> Tensor:
    """The objective on logits, for any anchors, positives and negatives.

    It needs the matrix of all logits. From the embeddings of two views, ``HardNegativeLoss`` computes the
    same in memory linear in the batch.

    Args:
        positive: [R] or, for rows with several positives, [R, P]; each positive makes a term of its own.
        negatives: [R, C] logits (similarity / temperature).
        mask: [R, C] bool, true where a column is a negative of the row. A row without negatives has loss 0.
        beta: Hardness, at least 0.
        tau_plus: Class prior in [0, 1).
        floor: Lower bound of a negative logit, a number or [R]; the debiased sum of N negatives is at least
            N e^floor. It has no effect where ``tau_plus`` is 0.
        stop_gradient: Treat the weights w as constants.

    Returns:
        The loss of each positive, in the shape of ``positive``.

    Raises:
        ValueError: A setting is outside its range, or the shapes do not match.
    """
    check_hardness(beta, tau_plus, stop_gradient)
    for name, given in (("positive", positive), ("negatives", negatives), ("mask", mask)):
        check_tensor(name, given)
    check_float_type(positive, negatives, ("positive", "negatives"))
    if negatives.ndim != 2 or mask.shape != negatives.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"`negatives` is {list(negatives.shape)} and `mask` {list(mask.shape)} of {mask.dtype}; "
            "both must be [rows, columns], the mask bool"
        )
    if positive.ndim not in (1, 2) or len(positive) != len(negatives):
        raise ValueError(
            f"`positive` is {list(positive.shape)}; with `negatives` {list(negatives.shape)} it must be "
            f"[{len(negatives)}] or [{len(negatives)}, positives]"
        )
    if not isinstance(floor, Tensor):
        check_number("floor", floor)
    elif floor.shape not in ((), (len(negatives),)):
        raise ValueError(f"`floor` is {list(floor.shape)}; it must be a number or [{len(negatives)}]")
    positive, negatives = full_precision(positive), full_precision(negatives)
    log_mean, count = log_negative_mean(negatives, mask, beta, stop_gradient), mask.sum(dim=1)
    if positive.ndim == 2:
        log_mean, count = log_mean.unsqueeze(1), count.unsqueeze(1)
        floor = floor.unsqueeze(1) if isinstance(floor, Tensor) and floor.ndim else floor
    return loss_from_log_mean(positive, log_mean, count, tau_plus, floor)


def log_negative_mean(negatives: Tensor, mask: Tensor, beta: Scalar, stop_gradient: bool) -> Tensor:
    """A = log of the weighted mean of e^{s_j} over a row's negatives: [R, C], [R, C] bool -> [R].

    A row without negatives gives -inf, with gradient 0.
    """
    counts = mask.sum(dim=1)
    empty = counts == 0
    excluded = ~(mask | empty.unsqueeze(1))  # a row without negatives is computed on anything finite
    if not isinstance(beta, Tensor) and beta == 0:  # the second sum counts the negatives
        log_sum = torch.logsumexp(negatives.masked_fill(excluded, -torch.inf), dim=1)
        log_normaliser = counts.clamp(min=1).to(negatives.dtype).log()
    else:
        scaled = beta * negatives
        scaled = scaled.detach() if stop_gradient else scaled
        log_sum = torch.logsumexp((negatives + scaled).masked_fill(excluded, -torch.inf), dim=1)
        log_normaliser = torch.logsumexp(scaled.masked_fill(excluded, -torch.inf), dim=1)
    return (log_sum - log_normaliser).masked_fill(empty, -torch.inf)


def loss_from_log_mean(
    positive: Tensor, log_mean: Tensor, count: int | Tensor, tau_plus: float, floor: Scalar
) -> Tensor:
    """softplus(log Ng - p), with log Ng the debiased sum of ``count`` negatives, not below its floor."""
    if tau_plus > 0:
        # log(e^A - tau_plus e^p) = A + log(1 - e^x), x = log tau_plus + p - A; undefined where x >= 0.
        x = math.log(tau_plus) + positive - log_mean
        defined = ~(x >= 0)  # also where x is NaN, which is then the loss
        debiased = log_mean + log1m_exp(torch.where(defined, x, -1.0)) - math.log1p(-tau_plus)
        log_mean = torch.where(defined, debiased.clamp(min=floor), floor)
    # A row without negatives has log count -inf, and so loss 0.
    log_count = count.to(log_mean.dtype).log() if isinstance(count, Tensor) else math.log(count)
    # logsigmoid, not softplus: the latter turns linear at 20, an error of 2e-9 in float64.
    return -F.logsigmoid(positive - log_mean - log_count)


def supervised_losses(
    logits: Tensor, positives: Tensor, negatives: Tensor, beta: Scalar, stop_gradient: bool
) -> Tensor:
    """Loss of rows with known positives, averaged over them: [R, C], [R, C] bool twice -> [R].

    Each positive's term is -log( e^p / (sum of e^s over all positives + Ng) ), Ng as above without debiasing.
    At ``beta=0`` this is SupCon (Khosla et al., NeurIPS 2020, eq. 2). Every row needs a positive.
    """
    count = negatives.sum(dim=1)
    empty = count == 0
    log_negatives = log_negative_mean(logits, negatives, beta, stop_gradient) + count.to(logits.dtype).log()
    log_positives = torch.logsumexp(logits.masked_fill(~positives, -torch.inf), dim=1)
    mean_positive = logits.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1)
    # logaddexp with -inf has a second derivative of NaN.
    log_sum = torch.logaddexp(log_positives, log_negatives.masked_fill(empty, 0.0))
    return torch.where(empty, log_positives, log_sum) - mean_positive


def log1m_exp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, accurate at both ends (Maechler, 2012)."""
    near_zero = x > -math.log(2)
    return torch.where(
        near_zero,
        torch.log(-torch.expm1(torch.where(near_zero, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_zero, -1.0, x))),
    )


def as_type_of(x: Tensor, setting: Scalar) -> Scalar:
    """A setting in the type of ``x`` if it is a tensor: rounded once, not at each use."""
    return setting.to(x.dtype) if isinstance(setting, Tensor) else setting


def full_precision(x: Tensor) -> Tensor:
    """Half-precision values as float32, others unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """The mean or the sum of the losses, or the losses themselves."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
