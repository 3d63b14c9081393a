"""Optimizers by name, and how the learning rate goes over the epochs."""

import inspect
import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "adamw", "sgd", "lars")
SCHEDULES = ("constant", "cosine")

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


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``adam``, ``adamw``, ``sgd`` (momentum 0.9) or ``lars``."""
    if name == "adam":
        return Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    if name == "lars":
        return LARS(parameters, lr=lr, weight_decay=weight_decay)
    raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(OPTIMIZERS)}")


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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                velocity = self.state[parameter].setdefault("velocity", torch.zeros_like(parameter))
                update = self._adapted(parameter, parameter.grad, group)
                velocity.mul_(group["momentum"]).add_(update, alpha=group["lr"])
                parameter.sub_(velocity)

    @staticmethod
    def _adapted(parameter: Tensor, grad: Tensor, group: dict) -> Tensor:
        if parameter.ndim < 2:
            return grad
        grad = grad + group["weight_decay"] * parameter
        size, slope = parameter.norm(), grad.norm()
        rate = group["trust"] * size / slope
        return grad * torch.where((size > 0) & (slope > 0), rate, 1.0)


def lr_factor(schedule: str, epochs: int, warmup: int, done: float) -> float:
    """The factor of the learning rate after ``done`` of ``epochs``: a linear warm-up, then the schedule."""
    if done < warmup:
        return done / warmup if done else 1 / (10 * warmup)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(epochs - warmup, 1e-9)))
