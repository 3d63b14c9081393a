"""The functions of ``torch_tiles`` by Triton kernels: no tile of the similarity matrix is written to memory.

Beside the embeddings, memory is for their gradient and a few numbers per row. No two programs write to the
same address, so the same input gives the same bits.

Shapes: R rows (anchors) · C columns (candidates) · D dim.
"""

import functools
import importlib.util
import os
import warnings

import torch
from torch import Tensor

from .torch_tiles import Block, TileSettings


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

    from .triton_kernels import BLOCKS, log_sums_kernel

    rows, columns = block.rows.contiguous(), block.columns.contiguous()
    log_sum = rows.new_empty(len(rows))
    log_normaliser = torch.empty_like(log_sum)
    with torch.cuda.device_of(rows):
        log_sums_kernel[(cdiv(len(rows), BLOCKS["BLOCK_R"]),)](
            rows,
            columns,
            log_sum,
            log_normaliser,
            len(rows),
            len(columns),
            block.row_samples.start - block.column_samples.start,
            1 / settings.temperature,
            float(settings.beta),
            D=rows.shape[1],
            **BLOCKS,
        )
    return log_sum, log_normaliser


def gradient(block: Block, row_anchors: Tensor, column_anchors: Tensor, settings: TileSettings) -> Tensor:
    """``torch_tiles.gradient``: [R, D]."""
    from triton import cdiv

    from .triton_kernels import BLOCKS, chunk_of, gradient_kernel

    rows, dim = block.rows, block.rows.shape[1]
    chunk = chunk_of(dim)
    grad = torch.empty_like(rows, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(rows):
        gradient_kernel[(cdiv(len(rows), BLOCKS["BLOCK_R"]), cdiv(dim, chunk))](
            rows.contiguous(),
            block.columns.contiguous(),
            row_anchors.contiguous(),
            column_anchors.contiguous(),
            grad,
            len(rows),
            len(block.columns),
            block.row_samples.start - block.column_samples.start,
            1 / settings.temperature,
            float(settings.beta),
            D=dim,
            CHUNK=chunk,
            **BLOCKS,
        )
    return grad


@functools.cache
def _works_on(device: torch.device) -> bool:
    """Whether the kernels compile and run: false on an old GPU, or without a C compiler."""
    x = torch.zeros(4, 128, device=device)
    block, settings = Block(x, x, range(2), range(2)), TileSettings(1.0, 1.0, 1)
    try:
        sums = log_sums(block, settings)
        anchors = torch.stack([*sums, *sums], dim=1)
        gradient(block, anchors, anchors, settings)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"Triton kernels fail on {device}; using PyTorch's tiles: {reason}", stacklevel=2)
        return False
    return True
