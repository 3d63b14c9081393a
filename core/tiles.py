"""The two log-sum-exps of every row of a similarity matrix that is never held whole.

The plain twin is ``core.objectives.log_negative_mean``; a test holds value and gradient of both equal.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def log_negative_mean_of_views(
    anchors: Tensor, temperature: float, beta: float, stop_gradient: bool, tile_size: int
) -> Tensor:
    """A = LSE((1 + beta) s) - LSE(beta s) over each anchor's negatives: [2B, D] -> [2B].

    Rows i and i + B are the views of sample i; neither the row itself nor its other view is a negative.
    Memory beside the embeddings is a few tiles of ``tile_size`` squared.
    """
    return _LogNegativeMean.apply(anchors, temperature, beta, stop_gradient, tile_size)


class _LogNegativeMean(torch.autograd.Function):
    """Running log-sum-exps forward; backward recomputes each tile from the two sums kept per row."""

    @staticmethod
    def forward(ctx, anchors, temperature, beta, stop_gradient, tile_size):
        log_sum = anchors.new_full((len(anchors),), -torch.inf)
        log_normaliser = torch.full_like(log_sum, -torch.inf)
        for above, left, logits, excluded in _upper_tiles(anchors, temperature, tile_size):
            for scale, running in ((1 + beta, log_sum), (beta, log_normaliser)):
                scaled = _exclude(scale * logits, excluded)
                running[above] = torch.logaddexp(running[above], scaled.logsumexp(dim=1))
                if left != above:  # the matrix is symmetric: the tile's columns are rows too
                    running[left] = torch.logaddexp(running[left], scaled.logsumexp(dim=0))
        ctx.save_for_backward(anchors, log_sum, log_normaliser)
        ctx.settings = temperature, beta, stop_gradient, tile_size
        return log_sum - log_normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        # dA_i/ds_ij = (1 + beta) softmax_j((1 + beta) s_i) - beta softmax_j(beta s_i), from row i's two sums;
        # with the weights w held constant, softmax_j((1 + beta) s_i) alone.
        anchors, log_sum, log_normaliser = ctx.saved_tensors
        temperature, beta, stop_gradient, tile_size = ctx.settings
        terms = [(1 + beta, 1 if stop_gradient else 1 + beta, log_sum)]
        if not stop_gradient and beta > 0:
            terms.append((beta, -beta, log_normaliser))
        grad = torch.zeros_like(anchors)
        for above, left, logits, excluded in _upper_tiles(anchors, temperature, tile_size):
            grad_logits = torch.zeros_like(logits)
            for scale, factor, running in terms:
                scaled = _exclude(scale * logits, excluded)
                row_factor = factor * grad_output
                grad_logits += row_factor[above, None] * torch.exp(scaled - running[above, None])
                if left != above:
                    grad_logits += row_factor[left] * torch.exp(scaled - running[left])
            grad[above] += grad_logits @ anchors[left]
            grad[left] += grad_logits.T @ anchors[above]
        return grad / temperature, None, None, None, None


def _upper_tiles(
    anchors: Tensor, temperature: float, tile_size: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
    """The logits' tiles on and above the diagonal: rows, columns, logits, what is no negative in them.

    The last is a bool tile, or None where every pair is a negative.
    """
    count = len(anchors)
    sample = torch.arange(count, device=anchors.device) % (count // 2)
    slices = [slice(start, min(start + tile_size, count)) for start in range(0, count, tile_size)]
    for i, above in enumerate(slices):
        for left in slices[i:]:
            # Excluded pairs lie on the diagonal and on the diagonal B columns to the right of it.
            touched = left == above or (
                left.start < above.stop + count // 2 and above.start + count // 2 < left.stop
            )
            excluded = sample[above, None] == sample[left] if touched else None
            yield above, left, anchors[above] @ anchors[left].T / temperature, excluded


def _exclude(logits: Tensor, excluded: Tensor | None) -> Tensor:
    return logits if excluded is None else logits.masked_fill_(excluded, -torch.inf)
