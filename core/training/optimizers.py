"""Optimizers by name, and how the learning rate goes over the epochs."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """A class of optimizers without what prepares it for torch.compile.

    These decorators import torch._dynamo at the first call, which takes as long as the import of torch.
    """
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


Adam = eager(torch.optim.Adam)
AdamW = eager(torch.optim.AdamW)
SGD = eager(torch.optim.SGD)


@eager
class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rates over SGD with momentum (You, Gitman, Ginsburg, 2017, algorithm 1).

    As SimCLR uses it, vectors (biases and batch norm) have neither weight decay nor adaptation.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(
            parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust}
        )

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            updates = self._updates(parameters, group["weight_decay"], group["trust"])
            velocities = [self._velocity(parameter) for parameter in parameters]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, updates, alpha=group["lr"])
            torch._foreach_sub_(parameters, velocities)

    def _velocity(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        return state["velocity"]

    @staticmethod
    def _updates(parameters: list[nn.Parameter], weight_decay: float, trust: float) -> list[Tensor]:
        """Each parameter's gradient, of a matrix with weight decay and adapted. All matrices together."""
        updates = [parameter.grad for parameter in parameters if parameter.grad is not None]
        matrices = [i for i, parameter in enumerate(parameters) if parameter.ndim >= 2]
        if matrices:
            weights: list[Tensor] = [parameters[i] for i in matrices]
            decayed = torch._foreach_mul(weights, weight_decay)
            torch._foreach_add_(decayed, [updates[i] for i in matrices])
            sizes, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, decayed))
            rates = torch.where((sizes > 0) & (slopes > 0), trust * sizes / slopes, 1.0)
            torch._foreach_mul_(decayed, rates.unbind())
            for i, update in zip(matrices, decayed, strict=True):
                updates[i] = update
        return updates


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(Adam, fused=True),
    "adamw": partial(AdamW, fused=True),
    "sgd": partial(SGD, momentum=0.9, fused=True),
    "lars": LARS,
}


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``adam``, ``adamw``, ``sgd`` (momentum 0.9) or ``lars``."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](parameters, lr=lr, weight_decay=weight_decay)


def lr_factor(schedule: str, epochs: int, warmup: int, done: float, step: float) -> float:
    """The factor of the learning rate of the step after ``done`` of ``epochs``: a warm-up, then the schedule.

    A ``step`` is this part of an epoch. The warm-up is linear, and its last step has the whole rate.
    """
    if done < warmup:
        return min(1.0, (done + step) / warmup)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(epochs - warmup, 1e-9)))
