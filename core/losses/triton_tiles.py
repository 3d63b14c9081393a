"""The functions of ``torch_tiles`` by Triton kernels, which keep tiles of the similarity matrix in registers.

Beside the embeddings, memory is for their gradient and a few numbers per row; above 128 dimensions, also for
one more tensor of the gradient's size. No two programs write to the same address, so the same input gives the
same bits.

Shapes: R rows (anchors) · C columns (candidates) · D dim.
"""

import importlib.util
import os
import warnings
from collections import Counter

import torch
from torch import Tensor

from .torch_tiles import Block, TileSettings

MAX_ATTEMPTS = 3  # to compile and run the kernels on a device, before PyTorch's tiles are used for good
_working: set[torch.device] = set()
_failures: Counter[torch.device] = Counter()


def is_usable(embeddings: Tensor) -> bool:
    """Whether the kernels can be used: float32, on a GPU that Triton compiles for, or interpreted.

    They are interpreted if ``TRITON_INTERPRET=1`` was set when Triton was imported: slow, for tests on a CPU.
    """
    if embeddings.dtype != torch.float32 or importlib.util.find_spec("triton") is None:
        return False
    if embeddings.is_cuda:
        return _works_on(embeddings.device)
    return os.environ.get("TRITON_INTERPRET") == "1"


def log_sums(block: Block, settings: TileSettings) -> tuple[Tensor, Tensor]:
    """``torch_tiles.log_sums``: [R], [R]. The kernels have tiles of their own size."""
    from triton import cdiv

    from .triton_kernels import LOG_SUMS_BLOCKS, log_sums_kernel

    rows, columns = block.rows.contiguous(), block.columns.contiguous()
    log_sum = rows.new_empty(len(rows))
    log_normaliser = torch.empty_like(log_sum)
    with torch.cuda.device_of(rows):
        log_sums_kernel[(cdiv(len(rows), LOG_SUMS_BLOCKS["BLOCK_R"]),)](
            rows,
            columns,
            log_sum,
            log_normaliser,
            *_numbers(block, settings),
            D=rows.shape[1],
            **LOG_SUMS_BLOCKS,
        )
    return log_sum, log_normaliser


def gradient(block: Block, row_anchors: Tensor, column_anchors: Tensor, settings: TileSettings) -> Tensor:
    """``torch_tiles.gradient``: [R, D]."""
    from .triton_kernels import MAX_DIM

    by_row = row_anchors.T.contiguous()  # (4, R), so that neighbouring threads read neighbouring numbers
    by_column = by_row if column_anchors is row_anchors else column_anchors.T.contiguous()
    block = block._replace(rows=block.rows.contiguous(), columns=block.columns.contiguous())
    compute = _gradient_at_once if block.rows.shape[1] <= MAX_DIM else _gradient_in_slabs
    with torch.cuda.device_of(block.rows):
        return compute(block, by_row, by_column, settings)


def _gradient_at_once(block: Block, by_row: Tensor, by_column: Tensor, settings: TileSettings) -> Tensor:
    """By one kernel, which keeps the sums of all dimensions in registers."""
    from triton import cdiv

    from .triton_kernels import GRADIENT_BLOCKS, gradient_kernel, padded_dim

    rows, columns = block.rows, block.columns
    grad = torch.empty_like(rows)
    gradient_kernel[(cdiv(len(rows), GRADIENT_BLOCKS["BLOCK_R"]),)](
        rows,
        columns,
        by_row,
        by_column,
        grad,
        *_numbers(block, settings),
        D=rows.shape[1],
        PADDED_D=padded_dim(rows.shape[1]),
        **GRADIENT_BLOCKS,
    )
    return grad


def _gradient_in_slabs(block: Block, by_row: Tensor, by_column: Tensor, settings: TileSettings) -> Tensor:
    """D columns at a time: their weights, which take as much memory as the rows, then PyTorch's product.

    Each logit is computed once, where a kernel for some of the dimensions computes it again for the others.
    """
    from triton import cdiv

    from .triton_kernels import WEIGHTS_BLOCKS, weights_kernel

    rows, columns = block.rows, block.columns
    dim = rows.shape[1]
    grad = torch.zeros_like(rows)
    memory = rows.new_empty(len(rows) * min(dim, len(columns)))
    for first in range(0, len(columns), dim):
        slab = columns[first : first + dim]
        weights = memory[: len(rows) * len(slab)].view(len(rows), len(slab))
        grid = (cdiv(len(rows), WEIGHTS_BLOCKS["BLOCK_R"]), cdiv(len(slab), WEIGHTS_BLOCKS["BLOCK_C"]))
        weights_kernel[grid](
            rows,
            columns,
            by_row,
            by_column,
            weights,
            *_numbers(block, settings),
            first,
            len(slab),
            D=dim,
            **WEIGHTS_BLOCKS,
        )
        grad.addmm_(weights, slab)
    return grad


def _numbers(block: Block, settings: TileSettings) -> tuple[int, int, int, float, float]:
    """What every kernel takes after its tensors: R, C, shift, scale, beta."""
    shift = block.row_samples.start - block.column_samples.start
    return len(block.rows), len(block.columns), shift, 1 / settings.temperature, float(settings.beta)


def _works_on(device: torch.device) -> bool:
    """Whether the kernels compile and run: false on an old GPU, or without a C compiler.

    A failure may pass, as a full disk or memory does; only the last of ``MAX_ATTEMPTS`` is remembered.
    """
    if device in _working or _failures[device] >= MAX_ATTEMPTS:
        return device in _working
    # Of the kernels that Triton compiles for numbers of rows, 16 take the one that most batches take.
    x = torch.zeros(16, 128, device=device)
    block, settings = Block(x, x, range(8), range(8)), TileSettings(1.0, 1.0, 1)
    try:
        sums = log_sums(block, settings)
        anchors = torch.stack([*sums, *sums], dim=1)
        gradient(block, anchors, anchors, settings)
    except Exception as error:
        _failures[device] += 1
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"Triton kernels fail on {device}; using PyTorch's tiles: {reason}", stacklevel=2)
        return False
    _working.add(device)
    return True
