"""The two log-sum-exps of every row, and their gradient, by Triton kernels: no tile ever leaves the chip.

The plain twin is ``tiled``; tests hold both to the whole matrix. Memory beside the embeddings is their
gradient and a few numbers a row. No two programs write to one place, so the same input gives the same bits.

Shapes: R rows (anchors) · C columns (candidates) · D dim. Rows, and columns, are samples of two views, one
view after the other; where samples are asked for, it is the range that each view holds, R == 2 * len(range).
"""

import functools
import importlib.util
import os
import warnings

import torch
from torch import Tensor


def is_usable(embeddings: Tensor) -> bool:
    """Whether the kernels take these: float32, on a GPU for which Triton can compile, or interpreted.

    Interpreted means ``TRITON_INTERPRET=1`` in the environment from the start: slow, for tests on a CPU.
    """
    if embeddings.dtype != torch.float32 or importlib.util.find_spec("triton") is None:
        return False
    if embeddings.is_cuda:
        return _works_on(embeddings.device)
    return os.environ.get("TRITON_INTERPRET") == "1"


def log_sums(
    rows: Tensor,
    columns: Tensor,
    row_samples: range,
    column_samples: range,
    temperature: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """LSE_j((1 + beta) s_ij) and LSE_j(beta s_ij) over each row's negatives: [R, D], [C, D] -> [R], [R].

    s = rows @ columns.T / temperature; a column of the row's own sample is no negative. Where the columns
    hold no negative of a row, both are -inf.
    """
    from triton import cdiv

    from .triton_kernels import BLOCKS, log_sums_kernel

    rows, columns = rows.contiguous(), columns.contiguous()
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
            row_samples.start - column_samples.start,
            1 / temperature,
            float(beta),
            D=rows.shape[1],
            **BLOCKS,
        )
    return log_sum, log_normaliser


def gradient(
    own: Tensor,
    others: Tensor,
    own_samples: range,
    other_samples: range,
    own_anchors: Tensor,
    other_anchors: Tensor,
    temperature: float,
    beta: float,
) -> Tensor:
    """The gradient of ``own`` [R, D], as anchors of the ``others`` [C, D] and as their candidates.

    Of anchors, [R, 4] and [C, 4]: both log-sum-exps, which may be over more than these, and what the gradient
    of each is multiplied by.
    """
    from triton import cdiv

    from .triton_kernels import BLOCKS, chunk_of, gradient_kernel

    dim = own.shape[1]
    chunk = chunk_of(dim)
    grad = torch.empty_like(own, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(own):
        gradient_kernel[(cdiv(len(own), BLOCKS["BLOCK_R"]), cdiv(dim, chunk))](
            own.contiguous(),
            others.contiguous(),
            own_anchors.contiguous(),
            other_anchors.contiguous(),
            grad,
            len(own),
            len(others),
            own_samples.start - other_samples.start,
            1 / temperature,
            float(beta),
            D=dim,
            CHUNK=chunk,
            **BLOCKS,
        )
    return grad


@functools.cache
def _works_on(device: torch.device) -> bool:
    """Whether the kernels compile and run: an old GPU, or a machine without a C compiler, is found here."""
    x = torch.zeros(4, 128, device=device)
    samples = range(2)
    try:
        sums = log_sums(x, x, samples, samples, 1.0, 1.0)
        anchors = torch.stack([*sums, *sums], dim=1)
        gradient(x, x, samples, samples, anchors, anchors, 1.0, 1.0)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"Triton's kernels cannot run on {device}, PyTorch's tiles can: {reason}", stacklevel=2)
        return False
    return True
