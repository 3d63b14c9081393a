"""The two log-sum-exps of every row of a similarity matrix that is never held whole.

The plain twin is ``core.objectives.log_negative_mean``; a test holds value and gradient of both equal.

Shapes: B batch · b this process's part of it, anchored here · D dim.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def log_negative_mean_of_views(
    anchors: Tensor,
    candidates: Tensor,
    first: int,
    temperature: float,
    beta: float,
    stop_gradient: bool,
    tile_size: int,
) -> Tensor:
    """A = LSE((1 + beta) s) - LSE(beta s) over each anchor's negatives: [2b, D], [2B, D] -> [2b].

    Both hold one view after the other; the anchors' samples stand at ``first`` and after among the
    candidates'. No candidate of the anchor's own sample is a negative. Where anchors and candidates are the
    same tensor, each tile serves its rows and its columns. Memory beside the embeddings is a few tiles of
    ``tile_size`` squared.
    """
    if anchors is candidates:
        return _LogNegativeMean.apply(anchors, None, 0, temperature, beta, stop_gradient, tile_size)
    return _LogNegativeMean.apply(anchors, candidates, first, temperature, beta, stop_gradient, tile_size)


class _LogNegativeMean(torch.autograd.Function):
    """Running log-sum-exps forward; backward recomputes each tile from the two sums kept per row."""

    @staticmethod
    def forward(ctx, anchors, candidates, first, temperature, beta, stop_gradient, tile_size):
        log_sum = anchors.new_full((len(anchors),), -torch.inf)
        log_normaliser = torch.full_like(log_sum, -torch.inf)
        for above, left, mirrored, logits, excluded in _tiles(
            anchors, candidates, first, temperature, tile_size
        ):
            for scale, running in ((1 + beta, log_sum), (beta, log_normaliser)):
                scaled = _exclude(scale * logits, excluded)
                running[above] = torch.logaddexp(running[above], scaled.logsumexp(dim=1))
                if mirrored:
                    running[left] = torch.logaddexp(running[left], scaled.logsumexp(dim=0))
        ctx.save_for_backward(anchors, candidates, log_sum, log_normaliser)
        ctx.settings = first, temperature, beta, stop_gradient, tile_size
        return log_sum - log_normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # dA_i/ds_ij = (1 + beta) softmax_j((1 + beta) s_i) - beta softmax_j(beta s_i), from row i's two sums;
        # with the weights w held constant, softmax_j((1 + beta) s_i) alone.
        anchors, candidates, log_sum, log_normaliser = ctx.saved_tensors
        first, temperature, beta, stop_gradient, tile_size = ctx.settings
        terms = [(1 + beta, 1 if stop_gradient else 1 + beta, log_sum)]
        if not stop_gradient and beta > 0:
            terms.append((beta, -beta, log_normaliser))
        grad = torch.zeros_like(anchors)
        columns, grad_columns = (
            (anchors, grad) if candidates is None else (candidates, torch.zeros_like(candidates))
        )
        for above, left, mirrored, logits, excluded in _tiles(
            anchors, candidates, first, temperature, tile_size
        ):
            grad_logits = torch.zeros_like(logits)
            for scale, factor, running in terms:
                scaled = _exclude(scale * logits, excluded)
                row_factor = factor * grad_output
                grad_logits += row_factor[above, None] * torch.exp(scaled - running[above, None])
                if mirrored:
                    grad_logits += row_factor[left] * torch.exp(scaled - running[left])
            grad[above] += grad_logits @ columns[left]
            grad_columns[left] += grad_logits.T @ anchors[above]
        grad_candidates = None if candidates is None else grad_columns / temperature
        return grad / temperature, grad_candidates, None, None, None, None, None


def _tiles(
    anchors: Tensor, candidates: Tensor | None, first: int, temperature: float, tile_size: int
) -> Iterator[tuple[slice, slice, bool, Tensor, Tensor | None]]:
    """The logits' tiles: rows, columns, whether the columns are other rows too, logits, what is no negative.

    Without candidates the matrix is symmetric, and the tiles below the diagonal are left out. The last is a
    bool tile, or None where every pair is a negative.
    """
    columns = anchors if candidates is None else candidates
    lefts = _slices(len(columns) // 2, tile_size)
    for i, (above, row_samples) in enumerate(_slices(len(anchors) // 2, tile_size, first)):
        for left, column_samples in lefts[i:] if candidates is None else lefts:
            logits = anchors[above] @ columns[left].T / temperature
            excluded = None
            if row_samples.start < column_samples.stop and column_samples.start < row_samples.stop:
                rows, others = (
                    torch.arange(samples.start, samples.stop, device=anchors.device)
                    for samples in (row_samples, column_samples)
                )
                excluded = rows[:, None] == others
            yield above, left, candidates is None and left != above, logits, excluded


def _slices(batch: int, tile_size: int, first: int = 0) -> list[tuple[slice, range]]:
    """Tiles of two views' embeddings, none across both: where they stand, and which samples they are."""
    return [
        (slice(view * batch + start, view * batch + stop), range(first + start, first + stop))
        for view in range(2)
        for start in range(0, batch, tile_size)
        for stop in [min(start + tile_size, batch)]
    ]


def _exclude(logits: Tensor, excluded: Tensor | None) -> Tensor:
    return logits if excluded is None else logits.masked_fill_(excluded, -torch.inf)
