"""The kernels of ``triton_tiles``: a program owns a block of embeddings and meets the others by tiles.

Shapes: R own embeddings · C others · D dim; BLOCK_R, BLOCK_C, BLOCK_D what is held of each at a time.
"""
# ruff: noqa: N803 -- sizes are capitals, as in the legend

import triton
import triton.language as tl

# Three TF32 products restore float32's precision and run on the tensor cores. One would not do: its 11 bits
# are off by 0.1 in a logit of 100 (temperature 0.01). "ieee" is as exact, but leaves the tensor cores idle.
PRECISION = tl.constexpr("tf32x3")
# In place of -inf, whose differences and products with 0 are nan. No logit is as low.
LOWEST = tl.constexpr(-1e30)

# By what the compiler reports for an H100: both kernels use its matrix instructions for whole warpgroups and
# 80 KiB of shared memory (every GPU since Ampere has 99), and with 8 warps keep nearly all in registers.
BLOCKS = {"BLOCK_R": 128, "BLOCK_C": 64, "BLOCK_D": 32, "num_warps": 8}


def chunk_of(dim: int) -> int:
    """Dimensions of the gradient that one program makes; where D is more, each makes the logits anew."""
    return min(128, max(16, triton.next_power_of_2(dim)))


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
    """LSE((1 + beta) s) and LSE(beta s) of BLOCK_R rows, s = scale * rows @ columns.T over the negatives."""
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    # One running maximum serves both: beta s and (1 + beta) s are largest where s is.
    largest = tl.full([BLOCK_R], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    normaliser = tl.zeros([BLOCK_R], tl.float32)
    for start in range(0, C, BLOCK_C):
        j = start + tl.arange(0, BLOCK_C)
        logits, negative = _logits(rows, columns, i, j, R, C, shift, scale, D, BLOCK_D)
        logits = tl.where(negative, logits, LOWEST)
        new = tl.maximum(largest, tl.max(logits, axis=1))
        below = logits - new[:, None]
        weights = tl.where(negative, tl.exp(beta * below), 0.0)
        total = total * tl.exp((1 + beta) * (largest - new)) + tl.sum(weights * tl.exp(below), axis=1)
        normaliser = normaliser * tl.exp(beta * (largest - new)) + tl.sum(weights, axis=1)
        largest = new
    tl.store(log_sum + i, (1 + beta) * largest + tl.log(total), mask=i < R)
    tl.store(log_normaliser + i, beta * largest + tl.log(normaliser), mask=i < R)


@triton.jit(do_not_specialize=["shift"])
def gradient_kernel(
    own,
    others,
    own_anchors,
    other_anchors,
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
    CHUNK: tl.constexpr,
):
    """CHUNK dimensions of the gradient of BLOCK_R embeddings: sum_j G_ij others_j.

    G_ij holds the softmaxes of anchor i over candidates j, and those of anchor j over candidates i.
    """
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    total = tl.zeros([BLOCK_R, CHUNK], tl.float32)
    for start in range(0, C, BLOCK_C):
        j = start + tl.arange(0, BLOCK_C)
        logits, negative = _logits(own, others, i, j, R, C, shift, scale, D, BLOCK_D)
        weights = _softmaxes(own_anchors, i[:, None], R, logits, beta)
        weights += _softmaxes(other_anchors, j[None, :], C, logits, beta)
        weights = tl.where(negative, weights, 0.0)
        total = tl.dot(weights, _part(others, j, d, C, D), total, input_precision=PRECISION)
    tl.store(grad + i[:, None].to(tl.int64) * D + d, total, mask=(i[:, None] < R) & (d < D))


@triton.jit
def _logits(rows, columns, i, j, R, C, shift, scale, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The tile at rows i and columns j, and what of it is a negative; rows beyond the last are for nobody."""
    product = tl.zeros([i.shape[0], j.shape[0]], tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        row, column = _part(rows, i, d, R, D), _part(columns, j, d, C, D)
        product = tl.dot(row, tl.trans(column), product, input_precision=PRECISION)
    other_sample = (_sample(i, R) + shift)[:, None] != _sample(j, C)[None, :]
    return scale * product, other_sample & (j < C)[None, :]


@triton.jit
def _part(embeddings, i, d, count, D: tl.constexpr):
    """Dimensions d of embeddings i, 0 beyond the ends; in 64 bits, for there may be 2^31 numbers and more."""
    inside = (i < count)[:, None] & (d < D)[None, :]
    return tl.load(embeddings + i[:, None].to(tl.int64) * D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _sample(i, count):
    """The samples of embeddings i, counted from the first: one view after the other."""
    return tl.where(i < count // 2, i, i - count // 2)


@triton.jit
def _softmaxes(anchors, i, count, logits, beta):
    """Both softmaxes of anchors i, each times its factor: ``anchors`` [count, 4], sums, then factors."""
    inside = i < count
    log_sum = tl.load(anchors + 4 * i, mask=inside, other=0.0)
    log_normaliser = tl.load(anchors + 4 * i + 1, mask=inside, other=0.0)
    for_sum = tl.load(anchors + 4 * i + 2, mask=inside, other=0.0)
    for_normaliser = tl.load(anchors + 4 * i + 3, mask=inside, other=0.0)
    return for_sum * tl.exp((1 + beta) * logits - log_sum) + for_normaliser * tl.exp(
        beta * logits - log_normaliser
    )
