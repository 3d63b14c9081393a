"""Optimizers by name, and how the learning rate goes over the epochs."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adam", "adamw", "sgd", "lars")
SCHEDULES = ("constant", "cosine")

# Before these methods first run, torch imports torch._dynamo, which takes as long as torch itself, to exclude
# them from torch.compile. No optimizer is compiled here, so they are marked as excluded already.
for _method in (
    torch.optim.Optimizer.add_param_group,
    torch.optim.Optimizer.load_state_dict,
    torch.optim.Optimizer.state_dict,
    torch.optim.Optimizer.zero_grad,
):
    _wrapped = getattr(_method, "__wrapped__", _method)
    vars(_wrapped).setdefault("__dynamo_disable", _wrapped)


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """``adam``, ``adamw``, ``sgd`` (momentum 0.9) or ``lars``."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=True)
    if name == "lars":
        return LARS(parameters, lr=lr, weight_decay=weight_decay)
    raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(OPTIMIZERS)}")


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

    @torch.no_grad()
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
