"""What the gradients that are written out by hand have in common."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def first_derivative(of: str) -> Callable[[Callable], Callable]:
    """Decorate a function's ``backward``: computed in full precision, and refused a derivative of its own.

    Autocast is off inside, whoever calls ``backward`` within it: what is computed anew is what it was. Where
    a graph of the gradient is asked for (``create_graph=True``), a RuntimeError says that ``of`` has none;
    PyTorch's ``once_differentiable`` leaves the raising to a node that ``torch.autograd.grad`` may never
    come by, and a second derivative that lacks this part is silently wrong.
    """

    def decorate(backward: Callable) -> Callable:
        @functools.wraps(backward)
        def run(ctx: Any, *grad_outputs: torch.Tensor) -> Any:
            if torch.is_grad_enabled():
                raise RuntimeError(f"{of} has a first derivative only; create_graph=True cannot be had")
            with torch.autocast(grad_outputs[0].device.type, enabled=False):
                return backward(ctx, *grad_outputs)

        return run

    return decorate
