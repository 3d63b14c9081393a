"""Convolutions in bfloat16 on a CPU, whose threads sleep while they wait for each other.

oneDNN's threads spin at barriers of its own while they compute the weights' gradient. If another process uses
one of the cores, a step then takes many times as long. Here each thread computes the gradient on its part of
the batch, and they meet once.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``: the same values, and the same gradients up to rounding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._needs_no_stride(input):
            return F.conv2d(input, weight, bias, 1, self.padding, self.dilation, self.groups)
        if not self._splits(input, bias):
            return super()._conv_forward(input, weight, bias)
        return _Convolution.apply(
            input.to(torch.bfloat16), weight.to(torch.bfloat16), self.stride, self.padding
        )

    def _needs_no_stride(self, input: Tensor) -> bool:
        """Whether image and output have one pixel, at any stride.

        In bfloat16 oneDNN leaves a part of the weights' gradient undefined if a stride leads out of it.
        """
        return (
            input.device.type == "cpu"
            and input.shape[-2:] == (1, 1)
            and self.stride != (1, 1)
            and (self.dilation, self.padding_mode) == ((1, 1), "zeros")
            and self.padding == tuple(size // 2 for size in self.kernel_size)
            and all(size % 2 for size in self.kernel_size)
        )

    def _splits(self, input: Tensor, bias: Tensor | None) -> bool:
        """Whether several CPU threads compute the gradient of this, a plain convolution in bfloat16."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        return (
            (input.device.type, dtype) == ("cpu", torch.bfloat16)
            and torch.is_grad_enabled()
            and torch.get_num_threads() > 1
            and not torch.compiler.is_compiling()
            and bias is None
            and input.ndim == 4
            and (self.groups, self.dilation, self.padding_mode) == (1, (1, 1), "zeros")
        )


class _Convolution(torch.autograd.Function):
    """A convolution whose weights' gradient is computed on parts of the batch, one for each thread."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(input, weight, None, stride, padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        input, weight = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:  # conv2d_input of torch.nn.grad forgets the memory format
            settings = (ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)  # neither dilated nor transposed
            of_input, _, _ = torch.ops.aten.convolution_backward(
                grad, input, weight, None, *settings, (True, False, False)
            )
        if ctx.needs_input_grad[1]:
            threads = torch.get_num_threads()

            def of_part(grad: Tensor, input: Tensor) -> Tensor:
                torch.set_num_threads(1)  # of this thread
                return conv2d_weight(input, weight.shape, grad, ctx.stride, ctx.padding)

            parts = list(_pool(threads).map(of_part, grad.chunk(threads), input.chunk(threads)))
            # The threads of the pool have set torch's default, which new threads take.
            torch.set_num_threads(threads)
            of_weight = torch.stack(parts).float().sum(0).to(weight.dtype)
        return of_input, of_weight, None, None


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "weights' gradient")
