"""What the hand-written gradients have in common."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def full_precision_backward(backward: Callable) -> Callable:
    """Decorate a Function's ``backward``: autocast is off inside, even where the caller has it on.

    So a value that backward recomputes is the value of the forward pass.
    """

    @functools.wraps(backward)
    def run(ctx: Any, *grad_outputs: torch.Tensor) -> Any:
        with torch.autocast(grad_outputs[0].device.type, enabled=False):
            return backward(ctx, *grad_outputs)

    return run


def refuse_double_backward(what: str, instead: str) -> None:
    """Raise RuntimeError inside a ``backward`` that is itself to be differentiated.

    PyTorch's ``once_differentiable`` raises in a node that ``torch.autograd.grad`` may never visit: a second
    derivative then lacks this part without an error.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{what} does not support double backward (create_graph=True); {instead} does")
