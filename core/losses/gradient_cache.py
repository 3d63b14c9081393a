"""Gradient caching: encode a batch in chunks, when what the encoder saves for backward exceeds memory.

An encoder's output is small, what it saves for its gradient is large. So the loss is differentiated with
respect to the outputs first; then each chunk is encoded again and takes its part of the gradient (GradCache:
Gao, Zhang, Han and Callan, RepL4NLP 2021).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from .backward import full_precision_backward, refuse_double_backward

Split = Callable[..., Sequence[tuple[Tensor, ...]]]


def parts_of(x: Tensor, chunk: int) -> Sequence[Tensor]:
    """Parts of nearly equal size, at most ``chunk`` rows each: [B, ...] -> [b, ...] each."""
    return x.tensor_split(-(-len(x) // chunk))


def split_rows(chunk: int, *batch: Tensor) -> list[tuple[Tensor, ...]]:
    """Chunks of tensors that have a row for each sample; raises TypeError if one is not a tensor."""
    for x in batch:
        if not isinstance(x, Tensor):
            kind = type(x).__name__
            raise TypeError(f"the batch has a {kind}; it must be tensors with a row for each sample")
    return list(zip(*(parts_of(x, chunk) for x in batch), strict=True))


def cached(encoder: nn.Module, chunk: int | None, split: Split = split_rows) -> nn.Module:
    """``encoder`` with its gradient cached, or unchanged where ``chunk`` is None."""
    return encoder if chunk is None else GradientCached(encoder, chunk, split)


class GradientCached(nn.Module):
    """Encodes a whole batch in the memory of a chunk; every chunk is encoded twice.

    Value and gradient are those of the encoder called chunk by chunk: where it treats samples independently,
    those of the whole batch at once. Batch norm does not: its statistics are then a chunk's, and its running
    statistics are updated once per chunk. Dropout draws the same masks both times. The gradient reaches every
    parameter once, as from a single call, so clipping and DistributedDataParallel work with it; only tensor
    hooks of parameters also see every chunk's part.

    Args:
        encoder: Returns a tensor with a row for each sample, or a tuple of such tensors, which depend only on
            its input, its parameters and the random states. To compile, compile this encoder.
        chunk: Largest number of samples in a chunk.
        split: Splits a batch, the call's arguments, into the encoder's arguments for each chunk.

    Raises:
        ValueError: ``chunk`` is not an integer of at least 1.
        TypeError: The encoder is not a module, whose parameters would be known.
    """

    def __init__(self, encoder: nn.Module, chunk: int, split: Split = split_rows) -> None:
        if not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"`chunk` is {chunk!r}; it must be an integer of at least 1")
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"the encoder is a {type(encoder).__name__}; it must be a module")
        super().__init__()
        self.encoder, self.chunk, self.split = encoder, chunk, split

    def forward(self, *batch: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the encoder's output for the whole batch: a tensor, or a tuple of them.

        Backward raises RuntimeError if a parameter, the batch, or the encoder's mode (train or eval) has
        changed since.

        Raises ValueError if the batch is empty or requires a gradient, which it would not get.
        """
        _check_batch([x for x in batch if isinstance(x, Tensor)])
        chunks = self.split(self.chunk, *batch)
        if len(chunks) == 1:
            return self.encoder(*chunks[0])
        parameters = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        return _InChunks.apply(self.encoder, chunks, *parameters)


class _InChunks(torch.autograd.Function):
    """Forward keeps no graph; backward encodes each chunk again and sums the parameters' gradients."""

    @staticmethod
    def forward(
        ctx: Any, encoder: nn.Module, chunks: Sequence[tuple[Tensor, ...]], *parameters: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        ctx.encoder, ctx.chunks, ctx.random_states = encoder, chunks, []
        device = chunks[0][0].device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
            # PyTorch 2.6 and older would use weights cast here, without a gradient, again in backward.
            "cache_enabled": False,
        }
        outputs = []
        for chunk in chunks:
            ctx.random_states.append((torch.get_rng_state(), *get_device_states(*chunk)))
            with torch.autocast(**ctx.autocast):
                outputs.append(encoder(*chunk))
        if not isinstance(outputs[0], Tensor | tuple | list):
            kind = type(outputs[0]).__name__
            raise TypeError(f"the encoder returns a {kind}; it must return a tensor or a tuple of tensors")
        is_tensor = isinstance(outputs[0], Tensor)
        ctx.sizes = [len(output if is_tensor else output[0]) for output in outputs]
        ctx.save_for_backward(*parameters)  # so that autograd notices if one changes
        ctx.state = _state(encoder, chunks)
        if is_tensor:
            return torch.cat(outputs)
        joined = tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
        ctx.mark_non_differentiable(*(output for output in joined if not output.is_floating_point()))
        return joined

    @staticmethod
    @full_precision_backward
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward("a cached encoder", instead="the encoder itself, `chunk=None`,")
        parameters = ctx.saved_tensors
        if _state(ctx.encoder, ctx.chunks) != ctx.state:
            raise RuntimeError(
                "the batch, or the mode of the encoder (train or eval), has changed since it was encoded"
            )
        grads: list[Tensor | None] = [None] * len(parameters)
        buffers = [(buffer, buffer.clone()) for buffer in ctx.encoder.buffers()]
        by_chunk = [grad.split(ctx.sizes) for grad in grad_outputs]
        devices = ctx.random_states[0][1]  # the same for every chunk
        with torch.random.fork_rng(devices):
            for chunk, states, *chunk_grads in zip(ctx.chunks, ctx.random_states, *by_chunk, strict=True):
                torch.set_rng_state(states[0])
                set_device_states(*states[1:])
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    outputs = ctx.encoder(*chunk)
                outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
                # A frozen tower's output has no gradient.
                kept = [i for i, output in enumerate(outputs) if output.requires_grad]
                if kept:
                    wanted, incoming = ([tensors[i] for i in kept] for tensors in (outputs, chunk_grads))
                    parts = torch.autograd.grad(wanted, parameters, incoming, allow_unused=True)
                    grads = list(map(_add, parts, grads, parameters))
        for buffer, value in buffers:  # the forward pass has updated batch norm's running statistics
            buffer.copy_(value)
        return None, None, *grads


def _check_batch(tensors: Sequence[Tensor]) -> None:
    """Raise ValueError if the batch is empty, or requires a gradient."""
    if any(x.ndim and not len(x) for x in tensors):
        raise ValueError("the batch has 0 samples; at least 1 is needed")
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        raise ValueError("the batch requires a gradient, which gradient caching does not compute; detach it")


def _state(encoder: nn.Module, chunks: Sequence[tuple[Tensor, ...]]) -> list[int]:
    """What must not change between both passes: the modes of the encoder, the versions of its inputs."""
    tensors = [x for chunk in chunks for x in chunk if isinstance(x, Tensor) and not x.is_inference()]
    return [module.training for module in encoder.modules()] + [x._version for x in tensors]


def _add(part: Tensor | None, grad: Tensor | None, parameter: Tensor) -> Tensor | None:
    """A parameter's gradient so far plus a chunk's; None where no chunk has used the parameter.

    It is a new tensor in the parameter's layout: autograd may return one gradient for several parameters, and
    DistributedDataParallel expects their layout.
    """
    if part is None:
        return grad
    return (torch.zeros_like(parameter) if grad is None else grad).add_(part)
