"""The kernels of ``triton_tiles``: a program owns some rows and loops over the columns, tile by tile.

Shapes: R rows · C columns · D dim; BLOCK_R, BLOCK_C, BLOCK_D of each in a tile.
"""
# ruff: noqa: N803 -- sizes are capitals, as in the legend

import math

import triton
import triton.language as tl

# Three TF32 products restore float32's precision and run on the tensor cores. One is not enough: with its 11
# bits a logit of 100 (temperature 0.01) is wrong by 0.1. "ieee" is as exact, but does not use tensor cores.
PRECISION = tl.constexpr("tf32x3")
LOG2_E = tl.constexpr(1 / math.log(2))
# Instead of -inf, whose differences and products with 0 are nan. No logit is as low.
LOWEST = tl.constexpr(-1e30)

# Chosen by the compiler's report for an H100, which a test holds: both kernels use its warpgroup matrix
# instructions, nothing is spilled, and a multiprocessor has room for at least two blocks. Tiles of 64
# columns, or sums of more than MAX_DIM dimensions, make the gradient spill. 64 rows give a small batch more
# programs.
LOG_SUMS_BLOCKS = {"BLOCK_R": 64, "BLOCK_C": 64, "BLOCK_D": 32, "num_warps": 4, "num_stages": 2}
GRADIENT_BLOCKS = {"BLOCK_R": 64, "BLOCK_C": 32, "BLOCK_D": 32, "num_warps": 4, "num_stages": 2}
WEIGHTS_BLOCKS = LOG_SUMS_BLOCKS
MAX_DIM = 128  # of ``gradient_kernel``; more are computed by ``weights_kernel`` and a matrix product


def padded_dim(dim: int) -> int:
    """The number of dimensions that ``gradient_kernel`` sums: a power of 2, as Triton needs."""
    return max(16, triton.next_power_of_2(dim))


@triton.jit(do_not_specialize=["shift"])
def log_sums_kernel(
    rows,
    columns,
    log_sum,
    log_normaliser,
    R,
    C,
    shift,
    scale,
    beta,
    D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """LSE((1 + beta) s) and LSE(beta s) of BLOCK_R rows over the negatives, s = scale * rows @ columns.T."""
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    # One running maximum is enough: beta s and (1 + beta) s are largest where s is.
    largest = tl.full([BLOCK_R], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    normaliser = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, C, BLOCK_C):
        j = start + tl.arange(0, BLOCK_C)
        logits, negative = _logits(rows, columns, i, j, R, C, shift, scale, D, BLOCK_D)
        logits = tl.where(negative, logits, LOWEST)
        new = tl.maximum(largest, tl.max(logits, axis=1))
        below = logits - new[:, None]
        weights = tl.where(negative, _exp(beta * below), 0.0)
        total = total * _exp((1 + beta) * (largest - new)) + tl.sum(weights * _exp(below), axis=1)
        normaliser = normaliser * _exp(beta * (largest - new)) + tl.sum(weights, axis=1)
        largest = new
    tl.store(log_sum + i, (1 + beta) * largest + tl.log(total), mask=i < R)
    tl.store(log_normaliser + i, beta * largest + tl.log(normaliser), mask=i < R)


@triton.jit(do_not_specialize=["shift"])
def gradient_kernel(
    rows,
    columns,
    row_anchors,
    column_anchors,
    grad,
    R,
    C,
    shift,
    scale,
    beta,
    D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PADDED_D: tl.constexpr,
):
    """The gradient of BLOCK_R rows, sum_j G_ij columns_j, for D up to MAX_DIM."""
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.arange(0, PADDED_D)
    total = tl.zeros([BLOCK_R, PADDED_D], tl.float32)
    for start in range(0, C, BLOCK_C):
        j = start + tl.arange(0, BLOCK_C)
        weights = _weights(
            rows, columns, row_anchors, column_anchors, i, j, R, C, shift, scale, beta, D, BLOCK_D
        )
        total = tl.dot(weights, _load(columns, j, d, C, D), total, input_precision=PRECISION)
    tl.store(grad + i[:, None].to(tl.int64) * D + d, total, mask=(i[:, None] < R) & (d < D))


@triton.jit(do_not_specialize=["shift", "first"])
def weights_kernel(
    rows,
    columns,
    row_anchors,
    column_anchors,
    weights,
    R,
    C,
    shift,
    scale,
    beta,
    first,
    width,
    D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """G of all rows at ``width`` columns from ``first`` on: [R, width]."""
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    k = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = _weights(
        rows, columns, row_anchors, column_anchors, i, first + k, R, C, shift, scale, beta, D, BLOCK_D
    )
    inside = (i < R)[:, None] & (k < width)[None, :]
    tl.store(weights + i[:, None].to(tl.int64) * width + k[None, :], tile, mask=inside)


@triton.jit
def _weights(
    rows,
    columns,
    row_anchors,
    column_anchors,
    i,
    j,
    R,
    C,
    shift,
    scale,
    beta,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """G_ij: the softmaxes of anchor i at candidate j, and of anchor j at candidate i, added; 0 for pairs."""
    logits, negative = _logits(rows, columns, i, j, R, C, shift, scale, D, BLOCK_D)
    weights = _softmaxes(row_anchors, i[:, None], R, logits, beta)
    weights += _softmaxes(column_anchors, j[None, :], C, logits, beta)
    return tl.where(negative, weights, 0.0)


@triton.jit
def _logits(rows, columns, i, j, R, C, shift, scale, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The logits at rows i and columns j, and which are negatives. Rows beyond the last are not used."""
    product = tl.zeros([i.shape[0], j.shape[0]], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        row, column = _load(rows, i, d, R, D), _load(columns, j, d, C, D)
        product = tl.dot(row, tl.trans(column), product, input_precision=PRECISION)
    other_sample = (_samples(i, R) + shift)[:, None] != _samples(j, C)[None, :]
    return scale * product, other_sample & (j < C)[None, :]


@triton.jit
def _load(embeddings, i, d, count, D: tl.constexpr):
    """Dimensions d of embeddings i, 0 beyond the ends. Offsets are 64-bit: there may be 2^31 numbers."""
    inside = (i < count)[:, None] & (d < D)[None, :]
    return tl.load(embeddings + i[:, None].to(tl.int64) * D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _samples(i, count):
    """The samples of embeddings i of two views, one view after the other, numbered from 0."""
    return tl.where(i < count // 2, i, i - count // 2)


@triton.jit
def _softmaxes(anchors, i, count, logits, beta):
    """Both softmaxes of anchors i, each times its factor, added: ``anchors`` [4, count] are sums, factors."""
    inside = i < count
    at = anchors + i.to(tl.int64)
    log_sum = tl.load(at, mask=inside, other=0.0)
    log_normaliser = tl.load(at + count, mask=inside, other=0.0)
    for_sum = tl.load(at + count + count, mask=inside, other=0.0)
    for_normaliser = tl.load(at + count + count + count, mask=inside, other=0.0)
    return for_sum * _exp((1 + beta) * logits - log_sum) + for_normaliser * _exp(
        beta * logits - log_normaliser
    )


@triton.jit
def _exp(x):
    """e^x; tl.exp needs more instructions on a GPU, for results below float32's normal range."""
    return tl.exp2(x * LOG2_E)
