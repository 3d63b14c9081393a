"""The quick-thought objective with hard negatives: neighbours in the text are positives.

Shapes: b rows (anchors, this process's part of the batch) · B columns (candidates, the whole batch) · D dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from core import hard_negative_loss
from sentence.config import Denominator


def neighbour_scores(f: Tensor, g: Tensor, temperature: float | None = None) -> Tensor:
    """Inner products, or with a temperature the cosines divided by it: [b, D], [B, D] -> [b, B]."""
    if temperature is None:
        return f @ g.T
    return F.normalize(f, dim=1) / temperature @ F.normalize(g, dim=1).T


def quick_thought_loss(
    scores: Tensor,
    positions: Tensor,
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
    """Mean loss of the anchors that have a neighbour: scores [b, B] of f(s_i) and g(s_j) -> scalar.

    Each neighbour in the window and in the anchor's book is a positive with a term of its own. The terms of
    an anchor are averaged, as by quick-thoughts' uniform target (Logeswaran and Lee, ICLR 2018, eq. 2).
    Negatives are the other sentences of the batch, except the anchor and its other positives. Their sum is
    reweighted and debiased as in the image objective (Robinson et al., ICLR 2021, eq. 4).

    With ``denominator="all"`` the negatives include the anchor, with score 0, and its other positives: at
    beta 0 and tau_plus 0 this is the softmax of quick-thoughts' released code.

    Args:
        positions: [B], of the candidates in the corpus.
        book: [B], of the candidates.
        first: The column of row 0's own sentence; that of row i is first + i.
        window: The largest distance of a neighbour.
        floor: The smallest possible score, -1/temperature for cosines. Inner products have none: by default
            the debiased sum is kept above N e^m, m the smallest score of the row's negatives, a constant. A
            weighted mean of e^{s_j} is never smaller, so a correct sum is never changed.
    """
    rows, columns = scores.shape
    own = torch.arange(first, first + rows, device=scores.device)
    distance = positions - positions[own, None]
    same_book = book == book[own, None]
    is_own = torch.arange(columns, device=scores.device) == own[:, None]
    is_neighbour = same_book & (distance.abs() <= window) & ~is_own
    if denominator == "all":
        scores = scores.masked_fill(is_own, 0.0)

    total, terms = scores.new_zeros(rows), scores.new_zeros(rows)
    for offset in [offset for offset in range(-window, window + 1) if offset]:
        is_positive = same_book & (distance == offset)
        has_positive = is_positive.any(dim=1)
        # A row without this neighbour takes any column; its term is discarded below.
        positive = scores.gather(1, is_positive.int().argmax(dim=1, keepdim=True)).squeeze(1)
        negatives = ~is_positive if denominator == "all" else ~is_neighbour & ~is_own
        lowest = row_minimum(scores, negatives) if floor is None else floor
        term = hard_negative_loss(
            positive,
            scores,
            negatives,
            beta=beta,
            tau_plus=tau_plus,
            floor=lowest,
            stop_gradient=stop_gradient,
        )
        total = total + torch.where(has_positive, term, 0.0)
        terms = terms + has_positive
    # The anchors with a neighbour in the whole batch, divided by the number of processes: the mean over the
    # processes is then the mean over these anchors. All on the device, without synchronisation.
    distances = (positions - positions[:, None]).abs()
    anchors = ((book == book[:, None]) & (distances > 0) & (distances <= window)).any(dim=1).sum()
    return (total / terms.clamp(min=1)).sum() / (anchors.clamp(min=1) * (rows / columns))


def row_minimum(scores: Tensor, mask: Tensor) -> Tensor:
    """The minimum of each row where ``mask`` is true, or 0 if it never is; detached: [b, B] -> [b]."""
    lowest = scores.detach().masked_fill(~mask, torch.inf).amin(dim=1)
    return torch.where(mask.any(dim=1), lowest, 0.0)
