"""The functions of ``torch_tiles`` by Triton kernels: no tile of the similarity matrix is written to memory.

Beside the embeddings, memory is for their gradient and a few numbers per row. No two programs write to the
same address, so the same input gives the same bits.

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
            len(rows),
            len(columns),
            block.row_samples.start - block.column_samples.start,
            1 / settings.temperature,
            float(settings.beta),
            D=rows.shape[1],
            **LOG_SUMS_BLOCKS,
        )
    return log_sum, log_normaliser


def gradient(block: Block, row_anchors: Tensor, column_anchors: Tensor, settings: TileSettings) -> Tensor:
    """``torch_tiles.gradient``: [R, D]."""
    from triton import cdiv

    from .triton_kernels import GRADIENT_BLOCKS, chunk_of, gradient_kernel

    rows, dim = block.rows, block.rows.shape[1]
    chunk = chunk_of(dim)
    by_row = row_anchors.T.contiguous()  # (4, R), so that neighbouring threads read neighbouring numbers
    by_column = by_row if column_anchors is row_anchors else column_anchors.T.contiguous()
    grad = torch.empty_like(rows, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(rows):
        gradient_kernel[(cdiv(len(rows), GRADIENT_BLOCKS["BLOCK_R"]), cdiv(dim, chunk))](
            rows.contiguous(),
            block.columns.contiguous(),
            by_row,
            by_column,
            grad,
            len(rows),
            len(block.columns),
            block.row_samples.start - block.column_samples.start,
            1 / settings.temperature,
            float(settings.beta),
            D=dim,
            CHUNK=chunk,
            **GRADIENT_BLOCKS,
        )
    return grad


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
