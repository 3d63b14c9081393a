"""Checks of the losses' settings and inputs. Each raises ValueError."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Literal, get_args

from torch import Tensor

Scalar = float | Tensor  # a tensor has shape [] and may require a gradient
Reduction = Literal["mean", "sum", "none"]
REDUCTIONS: tuple[str, ...] = get_args(Reduction)  # here, because compiled code cannot call get_args


def check_hardness(beta: Scalar, tau_plus: float, stop_gradient: bool = False) -> None:
    """Raise unless beta >= 0 and 0 <= tau_plus < 1, and whatever requires a gradient has one."""
    check_range("beta", beta, lambda value: 0 <= value < math.inf, "at least 0 and finite")
    check_range("tau_plus", tau_plus, lambda value: 0 <= value < 1, "at least 0 and below 1")
    if requires_grad(tau_plus):
        raise ValueError("`tau_plus` requires a gradient; only `temperature` and `beta` can be learned")
    if stop_gradient and requires_grad(beta):
        raise ValueError("`beta` requires a gradient, but `stop_gradient` makes the weights constants")


def check_temperature(temperature: Scalar) -> None:
    """Raise unless the temperature is above 0 and finite."""
    check_range("temperature", temperature, lambda value: 0 < value < math.inf, "above 0 and finite")


def check_range(name: str, value: Scalar, is_inside: Callable[[float], bool], bounds: str) -> None:
    """Raise unless a setting is a number inside its bounds.

    The value of a learned one is not read: on a GPU the host would wait for it, and it changes.
    """
    check_number(name, value)
    if not requires_grad(value) and not is_inside(number(value)):
        raise ValueError(f"`{name}` is {as_text(value)}; it must be {bounds}")


def check_number(name: str, value: Scalar) -> None:
    """Raise unless a setting is a number or a tensor []."""
    if isinstance(value, Tensor):
        if value.ndim > 0:
            raise ValueError(f"`{name}` is a tensor {list(value.shape)}; it must be a number or a tensor []")
    elif type(value) not in (float, int) and not isinstance(value, Real):  # PyTorch 2.4 compiles the former
        raise ValueError(f"`{name}` is {value!r}; it must be a number or a tensor []")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless a setting is one of its choices."""
    if value not in choices:
        raise ValueError(f"`{name}` is {value!r}; it must be one of {', '.join(choices)}")


def check_views(view1: Tensor, view2: Tensor, names: tuple[str, str] = ("view1", "view2")) -> None:
    """Raise unless both views are float tensors of one type and one shape [batch, dim]."""
    first, second = names
    if not (isinstance(view1, Tensor) and isinstance(view2, Tensor)):
        kinds = type(view1).__name__, type(view2).__name__
        raise ValueError(f"`{first}` is a {kinds[0]} and `{second}` a {kinds[1]}; both must be tensors")
    if view1.ndim != 2 or view1.shape != view2.shape:
        raise ValueError(
            f"`{first}` is {list(view1.shape)} and `{second}` {list(view2.shape)}; "
            "both must be the same [batch, dim]"
        )
    if not (view1.is_floating_point() and view1.dtype == view2.dtype):
        raise ValueError(
            f"`{first}` is {view1.dtype} and `{second}` {view2.dtype}; both must be the same float type"
        )


def check_labels(labels: Tensor, batch: int) -> None:
    """Raise unless the labels are integers, one a sample."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"`labels` is a {type(labels).__name__}; it must be a tensor [{batch}] of integers")
    if labels.shape != (batch,) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"`labels` is {list(labels.shape)} of {labels.dtype}; it must be [{batch}] of integers"
        )


def number(value: Scalar) -> float:
    """The value of a setting."""
    return float(value.detach()) if isinstance(value, Tensor) else value


def as_text(value: object) -> str:
    """A setting as ``repr`` shows it, tensors as numbers."""
    return repr(value.tolist() if isinstance(value, Tensor) else value)


def requires_grad(value: object) -> bool:
    """Whether a setting is to be learned."""
    return isinstance(value, Tensor) and value.requires_grad
