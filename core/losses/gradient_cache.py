"""Gradient caching: a batch larger than memory goes through its encoder in chunks.

What an encoder makes of a batch is small; what it has to remember for its gradient is large. So the gradient
is taken at the projections first, then carried through the encoder a chunk at a time (GradCache: Gao, Zhang,
Han and Callan, RepL4NLP 2021).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from .custom_backward import first_derivative

Split = Callable[..., Sequence[tuple[Tensor, ...]]]


def parts_of(x: Tensor, chunk: int) -> Sequence[Tensor]:
    """Parts of at most ``chunk`` rows, as equal as can be: [B, ...] -> [b, ...] each."""
    return x.tensor_split(-(-len(x) // chunk))


def split_rows(chunk: int, *batch: Tensor) -> list[tuple[Tensor, ...]]:
    """The chunks of tensors that have a row for each sample."""
    return list(zip(*(parts_of(x, chunk) for x in batch), strict=True))


def cached(encoder: nn.Module, chunk: int | None, split: Split = split_rows) -> nn.Module:
    """``encoder`` with its gradient cached; itself where there is no ``chunk``."""
    return encoder if chunk is None else GradientCached(encoder, chunk, split)


class GradientCached(nn.Module):
    """``encoder`` of a whole batch, in the memory of a chunk; every chunk is encoded twice.

    Value and gradient are those of the encoder called chunk by chunk: where it treats samples one by one,
    those of the whole batch at once. Batch norm does not: its statistics are then a chunk's, and its running
    ones move once for each chunk. Dropout draws the same masks both times. The gradient reaches every
    parameter once, as from a single call, so clipping, hooks and DistributedDataParallel work around it.

    Args:
        encoder: Returns tensors with a row for each sample, which depend on its input, its parameters and the
            random states alone. The input gets no gradient. Compile it, not what this class makes of it.
        chunk: Most samples of a chunk.
        split: Cuts a batch, the call's arguments, into the encoder's arguments for chunks of that size.
    """

    def __init__(self, encoder: nn.Module, chunk: int, split: Split = split_rows) -> None:
        super().__init__()
        self.encoder, self.chunk, self.split = encoder, chunk, split

    def forward(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """What the encoder returns, of the whole batch.

        Its gradient raises RuntimeError if a parameter has been changed in between.
        """
        chunks = self.split(self.chunk, *batch)
        if len(chunks) == 1:
            return self.encoder(*chunks[0])
        parameters = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        return _InChunks.apply(self.encoder, chunks, *parameters)


class _InChunks(torch.autograd.Function):
    """Forward keeps no graph; backward makes each chunk's anew, and sums the parameters' gradients."""

    @staticmethod
    def forward(ctx, encoder, chunks, *parameters):
        ctx.encoder, ctx.chunks, ctx.random_states = encoder, chunks, []
        device = chunks[0][0].device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        outputs = []
        for chunk in chunks:
            ctx.random_states.append((torch.get_rng_state(), *get_device_states(*chunk)))
            outputs.append(encoder(*chunk))
        ctx.sizes = [len(first) for first, *_ in outputs]
        ctx.save_for_backward(*parameters)  # in order that a change in between is noticed
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    @staticmethod
    @first_derivative(of="a cached encoder")
    def backward(ctx, *grad_outputs):
        parameters = ctx.saved_tensors
        grads = [None] * len(parameters)
        buffers = [(buffer, buffer.clone()) for buffer in ctx.encoder.buffers()]
        by_chunk = [grad.split(ctx.sizes) for grad in grad_outputs]
        with torch.random.fork_rng():
            for chunk, states, *grads_of_chunk in zip(ctx.chunks, ctx.random_states, *by_chunk, strict=True):
                torch.set_rng_state(states[0])
                set_device_states(*states[1:])
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    outputs = ctx.encoder(*chunk)
                parts = torch.autograd.grad(outputs, parameters, grads_of_chunk, allow_unused=True)
                grads = list(map(_add, parts, grads, parameters))
        for buffer, held in buffers:  # batch norm's running statistics have moved in the forward pass
            buffer.copy_(held)
        return None, None, *grads


def _add(part: Tensor | None, grad: Tensor | None, parameter: Tensor) -> Tensor | None:
    """A parameter's gradient so far, a chunk's added; None where no chunk has used the parameter.

    It is a tensor of its own, in the parameter's layout: autograd may hand out one gradient for several
    parameters, and DistributedDataParallel wants their layout.
    """
    if part is None:
        return grad
    return (torch.zeros_like(parameter) if grad is None else grad).add_(part)
