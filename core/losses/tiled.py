"""The two log-sum-exps of every row of a similarity matrix that is never held whole, by whoever trains.

The plain twin is ``contrastive.log_negative_mean``; tests hold value and gradient of both equal. On a GPU
the kernels of ``core.losses.triton_tiles`` do the work of the two functions here that go through tiles.

Shapes: b samples of this process · n = 2b embeddings, two views of them, one view after the other · D dim.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from . import triton_tiles
from .custom_backward import first_derivative
from .exchange import Exchange, blocks


def log_negative_mean_of_views(
    embeddings: Tensor,
    temperature: float,
    beta: float,
    stop_gradient: bool,
    tile_size: int,
    exchange: Exchange,
) -> Tensor:
    """A = LSE((1 + beta) s) - LSE(beta s) over each anchor's negatives: [n, D] -> [n].

    Negatives are the embeddings of all other samples, of every process that ``exchange`` reaches. Memory
    beside the embeddings is a few tiles of ``tile_size`` squared, and what of other processes' embeddings is
    here at a time.
    """
    return _LogNegativeMean.apply(embeddings, temperature, beta, stop_gradient, tile_size, exchange)


class _LogNegativeMean(torch.autograd.Function):
    """Running log-sum-exps forward; backward recomputes each tile from the two sums kept per row.

    dA_i/ds_ij = (1 + beta) softmax_j((1 + beta) s_i) - beta softmax_j(beta s_i); with the weights w held
    constant, softmax_j((1 + beta) s_i) alone. An embedding is an anchor of its own and a candidate of all
    others. Anchors' sums and incoming gradients travel with their embeddings, so each process finds both
    parts of its own gradient, and no gradient has to travel.
    """

    @staticmethod
    def forward(ctx, embeddings, temperature, beta, stop_gradient, tile_size, exchange):
        log_sum = embeddings.new_full((len(embeddings),), -torch.inf)
        log_normaliser = torch.full_like(log_sum, -torch.inf)
        own_samples, others = blocks(exchange, embeddings)
        for samples, candidates in others:
            parts = _log_sums(embeddings, candidates, own_samples, samples, temperature, beta, tile_size)
            log_sum, log_normaliser = map(torch.logaddexp, (log_sum, log_normaliser), parts)
        ctx.save_for_backward(embeddings, log_sum, log_normaliser)
        ctx.settings = temperature, beta, stop_gradient, tile_size, exchange
        return log_sum - log_normaliser

    @staticmethod
    @first_derivative(of="the loss in tiles (tile_size=None has more)")
    def backward(ctx, grad_output):
        embeddings, log_sum, log_normaliser = ctx.saved_tensors
        temperature, beta, stop_gradient, tile_size, exchange = ctx.settings
        factors = (1.0, 0.0) if stop_gradient else (1 + beta, -beta)
        factors = [factor * grad_output / temperature for factor in factors]
        anchors = torch.stack([log_sum, log_normaliser, *factors], dim=1)  # (n, 4)
        grad = torch.zeros_like(embeddings)
        own_samples, others = blocks(exchange, embeddings, anchors)
        for samples, candidates, other_anchors in others:
            grad += _gradient(
                embeddings,
                candidates,
                own_samples,
                samples,
                anchors,
                other_anchors,
                temperature,
                beta,
                tile_size,
            )
        return grad, None, None, None, None, None


def _log_sums(
    rows: Tensor,
    columns: Tensor,
    row_samples: range,
    column_samples: range,
    temperature: float,
    beta: float,
    tile_size: int,
) -> tuple[Tensor, Tensor]:
    """LSE_j((1 + beta) s_ij) and LSE_j(beta s_ij) over each row's negatives: [R, D], [C, D] -> [R], [R].

    Where ``rows`` is ``columns`` the matrix is symmetric, and each tile serves its rows and its columns.
    """
    if triton_tiles.is_usable(rows):
        return triton_tiles.log_sums(rows, columns, row_samples, column_samples, temperature, beta)
    log_sum = rows.new_full((len(rows),), -torch.inf)
    log_normaliser = torch.full_like(log_sum, -torch.inf)
    sums = [(1 + beta, log_sum), (beta, log_normaliser)]
    if beta == 0:  # the second sum is of as many ones as there are negatives
        samples = torch.arange(row_samples.start, row_samples.stop, device=rows.device).repeat(2)
        has_own = (samples >= column_samples.start) & (samples < column_samples.stop)
        log_normaliser = (len(columns) - 2 * has_own).to(rows.dtype).log()
        del sums[1]
    for above, left, mirrored, logits, excluded in _tiles(
        rows, columns, row_samples, column_samples, temperature, tile_size
    ):
        for scale, running in sums:
            scaled = _exclude(scale * logits, excluded)
            running[above] = torch.logaddexp(running[above], scaled.logsumexp(dim=1))
            if mirrored:
                running[left] = torch.logaddexp(running[left], scaled.logsumexp(dim=0))
    return log_sum, log_normaliser


def _gradient(
    own: Tensor,
    others: Tensor,
    own_samples: range,
    other_samples: range,
    own_anchors: Tensor,
    other_anchors: Tensor,
    temperature: float,
    beta: float,
    tile_size: int,
) -> Tensor:
    """The gradient of ``own`` [R, D], as anchors of the ``others`` [C, D] and as their candidates.

    Of anchors, [R, 4] and [C, 4]: both log-sum-exps, then what the gradient of each is multiplied by.
    """
    if triton_tiles.is_usable(own):
        return triton_tiles.gradient(
            own, others, own_samples, other_samples, own_anchors, other_anchors, temperature, beta
        )
    grad = torch.zeros_like(own)
    terms = [(1 + beta, 0, 2), (beta, 1, 3)][: 1 if beta == 0 else 2]  # scale, its sum and its factor
    for above, left, mirrored, logits, excluded in _tiles(
        own, others, own_samples, other_samples, temperature, tile_size
    ):
        weights = torch.zeros_like(logits)
        for scale, sums, factor in terms:
            scaled = _exclude(scale * logits, excluded)
            of_rows, of_columns = own_anchors[above].unsqueeze(1), other_anchors[left]
            weights += of_rows[..., factor] * torch.exp(scaled - of_rows[..., sums])
            weights += of_columns[..., factor] * torch.exp(scaled - of_columns[..., sums])
        grad[above] += weights @ others[left]
        if mirrored:
            grad[left] += weights.T @ own[above]
    return grad


def _tiles(
    rows: Tensor,
    columns: Tensor,
    row_samples: range,
    column_samples: range,
    temperature: float,
    tile_size: int,
) -> Iterator[tuple[slice, slice, bool, Tensor, Tensor | None]]:
    """The logits' tiles: rows, columns, whether the columns are other rows too, logits, what is no negative.

    Where ``rows`` is ``columns``, the tiles below the diagonal are left out. The last is a bool tile, or None
    where every pair is a negative.
    """
    lefts = _slices(column_samples, tile_size)
    for i, (above, of_rows) in enumerate(_slices(row_samples, tile_size)):
        for left, of_columns in lefts[i:] if rows is columns else lefts:
            logits = rows[above] @ columns[left].T / temperature
            excluded = None
            if of_rows.start < of_columns.stop and of_columns.start < of_rows.stop:
                here, there = (
                    torch.arange(samples.start, samples.stop, device=rows.device)
                    for samples in (of_rows, of_columns)
                )
                excluded = here[:, None] == there
            yield above, left, rows is columns and left != above, logits, excluded


def _slices(samples: range, tile_size: int) -> list[tuple[slice, range]]:
    """Tiles of two views' embeddings, none across both: where they stand, and which samples they are."""
    return [
        (slice(view * len(samples) + start, view * len(samples) + stop), samples[start:stop])
        for view in range(2)
        for start in range(0, len(samples), tile_size)
        for stop in [min(start + tile_size, len(samples))]
    ]


def _exclude(logits: Tensor, excluded: Tensor | None) -> Tensor:
    return logits if excluded is None else logits.masked_fill_(excluded, -torch.inf)
