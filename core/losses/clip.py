"""The hard-negative objective on pairs from two towers, such as images and their captions.

Shapes: B pairs of the batch · b this process's part of it · D dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import (
    REDUCTIONS,
    Reduction,
    Scalar,
    check_choice,
    check_hardness,
    check_labels,
    check_temperature,
    check_views,
)
from .collectives import all_gather, check_same_count, rank
from .functional import as_type_of, full_precision, log_negative_mean, loss_from_log_mean, reduced


def clip_loss(
    image: Tensor,
    text: Tensor,
    labels: Tensor | None = None,
    *,
    beta: Scalar = 0.5,
    tau_plus: float = 0.0,
    temperature: Scalar = 0.07,
    normalize: bool = True,
    reduction: Reduction = "mean",
    stop_gradient: bool = False,
    gather_distributed: bool = False,
) -> Tensor:
    """CLIP's symmetric loss with reweighted, debiased negatives: [b, D], [b, D] -> scalar.

    Each image is an anchor: its text is the positive, the B - 1 other texts are the negatives; and the same
    the other way round. At ``beta=0`` this is CLIP's loss (Radford et al., ICML 2021, fig. 3), the mean of
    both cross-entropies; otherwise their negatives are those of ``HardNegativeLoss`` (Robinson et al., ICLR
    2021, eq. 4).

    Args:
        image: Embeddings of the images, or of any first tower.
        text: Embeddings of their texts, row by row.
        labels: [b] integers; pairs of the anchor's class are not negatives.
        beta: Hardness, at least 0. A tensor [] that requires a gradient is learned.
        tau_plus: Prior probability, in [0, 1), that a negative has the anchor's class.
        temperature: Divides the cosine; above 0. CLIP learns ``1 / temperature`` as ``logit_scale.exp()``.
            The value of a tensor is not checked.
        normalize: Scale the embeddings to unit length.
        reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each anchor, [2b]: the images', then
            the texts'.
        stop_gradient: Treat the weights of the negatives as constants.
        gather_distributed: Take negatives from every process of the default process group. The mean of the
            processes' gradients, which DistributedDataParallel computes, is then the whole batch's (with
            ``reduction="mean"``).

    Raises:
        ValueError: A setting is outside its range, the embeddings or labels do not match, or the processes
            have different numbers of pairs.
    """
    check_views(image, text, names=("image", "text"))
    check_hardness(beta, tau_plus, stop_gradient)
    check_temperature(temperature)
    check_choice("reduction", reduction, REDUCTIONS)
    if labels is not None:
        check_labels(labels, len(image))
    if gather_distributed:
        check_same_count(len(image), image.device)
    gather = all_gather if gather_distributed else (lambda x: x)
    with torch.autocast(image.device.type, enabled=False):
        image, text = full_precision(image), full_precision(text)
        beta, temperature = as_type_of(image, beta), as_type_of(image, temperature)
        if normalize:
            image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
        positive = (image * text).sum(dim=1) / temperature  # (b,)
        images, texts = gather(image), gather(text)  # (B, D)
        if len(images) < 2:
            raise ValueError(f"the batch has {len(images)} pairs; at least 2 are needed to have negatives")
        first = rank() * len(image) if gather_distributed else 0
        classes = torch.arange(len(images), device=image.device) if labels is None else gather(labels)
        mask = classes[first : first + len(image), None] != classes  # (b, B)
        losses = []
        for anchors, candidates in ((image, texts), (text, images)):
            negatives = anchors @ candidates.T / temperature  # (b, B)
            log_mean = log_negative_mean(negatives, mask, beta, stop_gradient)
            losses.append(
                loss_from_log_mean(positive, log_mean, mask.sum(dim=1), tau_plus, floor=-1 / temperature)
            )
        return reduced(torch.cat(losses), reduction)
