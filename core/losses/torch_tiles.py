"""The two log-sum-exps of every row, and their gradient, one tile of the similarity matrix at a time.

Shapes: R rows (anchors) · C columns (candidates) · D dim. Rows, and columns, are the embeddings of two views
of some samples, one view after the other.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Block(NamedTuple):
    """A part of the similarity matrix. Row and column of one sample are not negatives of each other."""

    rows: Tensor  # [R, D]
    columns: Tensor  # [C, D]; the same tensor as ``rows`` where the block is symmetric
    row_samples: range  # R == 2 * len(row_samples)
    column_samples: range


class TileSettings(NamedTuple):
    """What a logit is divided by, how much hard negatives weigh, and how large a tile is."""

    temperature: float
    beta: float
    tile_size: int


class Tile(NamedTuple):
    """A tile of a block."""

    rows: slice
    columns: slice
    logits: Tensor
    excluded: Tensor | None  # bool: true where a pair is not a negative; None where all are
    is_mirrored: bool  # the tile's transpose belongs to the block too, and is not visited


def log_sums(block: Block, settings: TileSettings) -> tuple[Tensor, Tensor]:
    """LSE_j((1 + beta) s_ij) and LSE_j(beta s_ij) over each row's negatives: [R], [R].

    Where the columns contain no negative of a row, both are -inf.
    """
    rows, beta = block.rows, settings.beta
    log_sum = rows.new_full((len(rows),), -torch.inf)
    log_normaliser = torch.full_like(log_sum, -torch.inf)
    sums = [(1 + beta, log_sum), (beta, log_normaliser)]
    if beta == 0:  # the second sum counts the negatives
        samples = torch.arange(block.row_samples.start, block.row_samples.stop, device=rows.device).repeat(2)
        has_own = (samples >= block.column_samples.start) & (samples < block.column_samples.stop)
        log_normaliser = (len(block.columns) - 2 * has_own).to(rows.dtype).log()
        del sums[1]
    for tile in _tiles(block, settings):
        for scale, running in sums:
            scaled = _exclude(scale * tile.logits, tile.excluded)
            running[tile.rows] = torch.logaddexp(running[tile.rows], scaled.logsumexp(dim=1))
            if tile.is_mirrored:
                running[tile.columns] = torch.logaddexp(running[tile.columns], scaled.logsumexp(dim=0))
    return log_sum, log_normaliser


def gradient(block: Block, row_anchors: Tensor, column_anchors: Tensor, settings: TileSettings) -> Tensor:
    """The gradient of the rows [R, D], as anchors of the columns and as candidates of the columns' anchors.

    ``row_anchors`` [R, 4] and ``column_anchors`` [C, 4] contain the two log-sum-exps of each embedding as an
    anchor, which may be over more than this block, and the factor of the gradient of each.
    """
    rows, columns, beta = block.rows, block.columns, settings.beta
    grad = torch.zeros_like(rows)
    terms = [(1 + beta, 0, 2), (beta, 1, 3)]  # scale, and the anchors' columns of its sum and its factor
    if beta == 0:  # the second sum is constant
        del terms[1]
    for tile in _tiles(block, settings):
        by_row, by_column = row_anchors[tile.rows].unsqueeze(1), column_anchors[tile.columns]
        weights = torch.zeros_like(tile.logits)
        for scale, log_sum, factor in terms:
            scaled = _exclude(scale * tile.logits, tile.excluded)
            weights += by_row[..., factor] * torch.exp(scaled - by_row[..., log_sum])
            weights += by_column[..., factor] * torch.exp(scaled - by_column[..., log_sum])
        grad[tile.rows] += weights @ columns[tile.columns]
        if tile.is_mirrored:
            grad[tile.columns] += weights.T @ rows[tile.rows]
    return grad


def _tiles(block: Block, settings: TileSettings) -> Iterator[Tile]:
    """The tiles of a block; of a symmetric one those on and above the diagonal."""
    is_symmetric = block.rows is block.columns
    columns_of_tiles = _slices(block.column_samples, settings.tile_size)
    for i, (rows, row_samples) in enumerate(_slices(block.row_samples, settings.tile_size)):
        for columns, column_samples in columns_of_tiles[i:] if is_symmetric else columns_of_tiles:
            logits = block.rows[rows] @ block.columns[columns].T / settings.temperature
            excluded = None
            if row_samples.start < column_samples.stop and column_samples.start < row_samples.stop:
                first, second = (
                    torch.arange(samples.start, samples.stop, device=logits.device)
                    for samples in (row_samples, column_samples)
                )
                excluded = first[:, None] == second
            yield Tile(rows, columns, logits, excluded, is_symmetric and columns != rows)


def _slices(samples: range, tile_size: int) -> list[tuple[slice, range]]:
    """The rows of each tile, and their samples; no tile contains rows of both views."""
    return [
        (slice(view * len(samples) + start, view * len(samples) + stop), samples[start:stop])
        for view in range(2)
        for start in range(0, len(samples), tile_size)
        for stop in [min(start + tile_size, len(samples))]
    ]


def _exclude(logits: Tensor, excluded: Tensor | None) -> Tensor:
    return logits if excluded is None else logits.masked_fill_(excluded, -torch.inf)
