"""Checks of the losses' settings and inputs. Each raises ValueError."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

Scalar = float | Tensor  # a tensor has shape [] and may require a gradient
Setting = float | Sequence[float] | Tensor  # one for all runs, or one for each
Reduction = Literal["mean", "sum", "none"]
MAX_TAU_PLUS = 1 - 2**-24  # the largest float32 below 1: losses divide by 1 - tau_plus
REDUCTIONS: tuple[str, ...] = get_args(Reduction)  # here, because compiled code cannot call get_args


def check_hardness(beta: Scalar, tau_plus: float, stop_gradient: bool = False) -> None:
    """Raise unless beta >= 0 and 0 <= tau_plus < 1, and whatever requires a gradient has one.

    The value of a tensor is not read, as on a GPU the host would wait for it, here and in other checks.
    """
    below_1 = f"at least 0 and below 1 ({MAX_TAU_PLUS:.8f} at most)"
    check_range("beta", beta, lambda value: 0 <= value < math.inf, "at least 0 and finite")
    check_range("tau_plus", tau_plus, lambda value: 0 <= value <= MAX_TAU_PLUS, below_1)
    if requires_grad(tau_plus):
        raise ValueError("`tau_plus` requires a gradient; only `temperature` and `beta` can be learned")
    if stop_gradient and requires_grad(beta):
        raise ValueError("`beta` requires a gradient, but `stop_gradient` makes the weights constants")


def check_temperature(temperature: Scalar) -> None:
    """Raise unless the temperature is above 0 and finite."""
    check_range("temperature", temperature, lambda value: 0 < value < math.inf, "above 0 and finite")


def check_range(name: str, value: Scalar, is_inside: Callable[[float], bool], bounds: str) -> None:
    """Raise unless a setting is a number inside its bounds, or a tensor []."""
    check_number(name, value)
    if not isinstance(value, Tensor) and not is_inside(value):
        raise ValueError(f"`{name}` is {value!r}; it must be {bounds}")


def check_number(name: str, value: Scalar) -> None:
    """Raise unless a setting is a number or a tensor []."""
    if isinstance(value, Tensor):
        if value.ndim > 0:
            raise ValueError(f"`{name}` is a tensor {list(value.shape)}; it must be a number or a tensor []")
    elif type(value) not in (float, int) and not isinstance(value, Real):  # PyTorch 2.4 compiles the former
        raise ValueError(f"`{name}` is {value!r}; it must be a number or a tensor []")


def check_tensor(name: str, value: object) -> None:
    """Raise unless an input is a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"`{name}` is a {type(value).__name__}; it must be a tensor")


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
    check_float_type(view1, view2, names)


def check_float_type(one: Tensor, other: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both tensors are of the same float type."""
    if not (one.is_floating_point() and one.dtype == other.dtype):
        raise ValueError(
            f"`{names[0]}` is {one.dtype} and `{names[1]}` {other.dtype}; both must be the same float type"
        )


def check_labels(labels: Tensor, batch: int) -> None:
    """Raise unless the labels are integers, one a sample."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"`labels` is a {type(labels).__name__}; it must be a tensor [{batch}] of integers")
    if labels.shape != (batch,) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"`labels` is {list(labels.shape)} of {labels.dtype}; it must be [{batch}] of integers"
        )


def check_local_global(
    local: Tensor, global_: Tensor, batch: Tensor, node: Tensor | None = None, weight: Tensor | None = None
) -> None:
    """Raise unless the shapes are [nodes, dim], [graphs, dim], [nodes], of two graphs or more."""
    for name, value in (("local", local), ("global_", global_), ("batch", batch)):
        check_tensor(name, value)
    ends = local.shape[:-2] == global_.shape[:-2] and local.shape[-1:] == global_.shape[-1:]
    if local.ndim < 2 or global_.ndim != local.ndim or not ends:
        raise ValueError(
            f"`local` is {list(local.shape)} and `global_` {list(global_.shape)}; "
            "they must be [nodes, dim] and [graphs, dim] with the same dim, and the same runs in front"
        )
    check_float_type(local, global_, ("local", "global_"))
    if node is not None and node.dtype != torch.int64:
        raise ValueError(f"`node` is of {node.dtype}; it must be of torch.int64")
    entries = local.shape[:-1] if node is None else node.shape
    if batch.shape != entries or batch.dtype != torch.int64:
        raise ValueError(
            f"`batch` is {list(batch.shape)} of {batch.dtype}; it must be {list(entries)} of torch.int64"
        )
    if weight is not None and weight.shape != batch.shape:
        raise ValueError(f"`weight` is {list(weight.shape)}; it must be {list(batch.shape)}")
    if local.shape[-2] == 0:
        raise ValueError("`local` has 0 nodes; at least 1 is needed")
    if global_.shape[-2] < 2:
        raise ValueError(f"`global_` has {global_.shape[-2]} graph; at least 2 are needed to have negatives")
    if batch.device.type == "cpu" and not torch.compiler.is_compiling():  # a GPU would be waited for
        for name, places, count in (("batch", batch, global_.shape[-2]), ("node", node, local.shape[-2])):
            if places is not None and places.numel():
                low, high = (int(bound) for bound in places.aminmax())
                if low < 0 or high >= count:
                    raise ValueError(f"`{name}` has {low} to {high}; it must have 0 to {count - 1}")


def check_pairs(beta: Setting, tau_plus: Setting) -> None:
    """Raise unless each run's beta and tau_plus are in their ranges; learned ones are not read."""
    values = [_read_setting("beta", beta), _read_setting("tau_plus", tau_plus)]
    try:
        pairs = torch.stack(torch.broadcast_tensors(*values), dim=-1)
    except RuntimeError:
        shapes = [list(value.shape) for value in values]
        raise ValueError(
            f"`beta` is {shapes[0]} and `tau_plus` {shapes[1]}; both need one number a run"
        ) from None
    for pair in pairs.reshape(-1, 2).tolist():
        check_hardness(*pair)


def _read_setting(name: str, value: Setting) -> Tensor:
    """A setting on the CPU; of a learned one only the shape."""
    if isinstance(value, Tensor) and value.requires_grad:
        return torch.zeros(value.shape, device="cpu")
    try:
        return torch.as_tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"`{name}` is {value!r}; it must be a number, or one for each run") from None


def check_shape_of_setting(name: str, value: Setting, runs: torch.Size) -> None:
    """Raise unless a setting is one number, or one for each run along the last dimensions."""
    shape = torch.as_tensor(value).shape
    if len(shape) > len(runs) or shape != runs[len(runs) - len(shape) :]:
        each = f", or one for each of the {list(runs)} runs" if runs else ""
        raise ValueError(f"`{name}` is {list(shape)}; it must be a number{each}")


def number(value: Scalar) -> float:
    """The value of a setting."""
    return float(value.detach()) if isinstance(value, Tensor) else value


def constant(value: Scalar) -> Scalar:
    """A setting, a tensor that is not learned as its number; on a GPU the host waits for that."""
    return value if requires_grad(value) else number(value)


def as_text(value: object) -> str:
    """A setting as ``repr`` shows it, tensors as numbers."""
    return repr(value.tolist() if isinstance(value, Tensor) else value)


def requires_grad(value: object) -> bool:
    """Whether a setting is to be learned."""
    return isinstance(value, Tensor) and value.requires_grad
