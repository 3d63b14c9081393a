"""The quick-thought objective with hard negatives: neighbours in the text are positives.

Shapes: b rows (anchors of this process) · B columns (candidates, the whole batch) · P offsets of neighbours.
"""

from typing import Literal

import torch
from torch import Tensor

from core import hard_negative_loss

Denominator = Literal["negatives", "all"]


def quick_thought_loss(
    scores: Tensor,
    places: Tensor,
    book: Tensor,
    first: int = 0,
    *,
    beta: float,
    tau_plus: float,
    window: int = 1,
    denominator: Denominator = "negatives",
    floor: float | None = None,
    stop_gradient: bool = False,
) -> Tensor:
    """Mean loss of the anchors that have a neighbour: [b, B] scores f(s_i) g(s_j) -> scalar.

    Every neighbour inside the window and the anchor's book makes a term of its own; an anchor's terms are
    averaged, as quick-thoughts' uniform target does (Logeswaran and Lee, ICLR 2018, eq. 2). Negatives are the
    other sentences of the batch, without the anchor and without its other positives; their sum is reweighted
    and debiased as the images' is (Robinson et al., ICLR 2021, eq. 4).

    With ``denominator="all"`` the anchor, at score 0, and its other positives stay in the denominator: at
    beta 0 and tau_plus 0 that is the softmax of quick-thoughts' released code.

    Inner products have no least value as cosines have -1. Where ``floor`` is None, the debiased sum is kept
    above N e^m, m the least score among the row's negatives, a constant: a weighted mean of e^{s_j} can never
    be less, so a true one is not cut off, and no bound is invented.

    Args:
        places: [B], of the candidates in the text.
        book: [B], the book of each; neighbours are of one book.
        first: The candidate that is row 0's own sentence; row i's is first + i.
    """
    rows, columns = scores.shape
    own = torch.arange(first, first + rows, device=scores.device)
    distance = places - places[own, None]
    same_book = book == book[own, None]
    is_own = torch.arange(columns, device=scores.device) == own[:, None]
    is_neighbour = same_book & (distance.abs() <= window) & ~is_own
    if denominator == "all":
        scores = scores.masked_fill(is_own, 0.0)

    total, terms = scores.new_zeros(rows), scores.new_zeros(rows)
    for offset in [offset for offset in range(-window, window + 1) if offset]:
        is_positive = same_book & (distance == offset)
        has_positive = is_positive.any(dim=1)
        # Rows without this neighbour are computed on any column, and weigh nothing.
        positive = scores.gather(1, is_positive.int().argmax(dim=1, keepdim=True)).squeeze(1)
        negatives = ~is_positive if denominator == "all" else ~is_neighbour & ~is_own
        least = least_of(scores, negatives) if floor is None else floor
        term = hard_negative_loss(
            positive,
            scores,
            negatives,
            beta=beta,
            tau_plus=tau_plus,
            floor=least,
            stop_gradient=stop_gradient,
        )
        total = total + torch.where(has_positive, term, 0.0)
        terms = terms + has_positive
    # Anchors with a neighbour, of all processes; each divides by its share of them, so that the processes'
    # mean is the mean over the whole batch. No wait for the device: a row without one weighs nothing.
    near = (places - places[:, None]).abs()
    anchors = ((book == book[:, None]) & (near > 0) & (near <= window)).any(dim=1).sum()
    return (total / terms.clamp(min=1)).sum() / (anchors.clamp(min=1) * (rows / columns))


def least_of(scores: Tensor, mask: Tensor) -> Tensor:
    """The least score of each row where the mask is true, a constant; 0 where it never is: [b, B] -> [b]."""
    least = scores.detach().masked_fill(~mask, torch.inf).amin(dim=1)
    return torch.where(mask.any(dim=1), least, 0.0)
