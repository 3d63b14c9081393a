"""Whether training diverges: three numbers of every step, kept on the device and read once in a while.

Shapes: R runs that are trained together · T steps · B batch · N samples · D dim.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Sums over the nodes of graphs have gradients of 1e3 (DD), absurd for images; with a learning rate that is a
# thousand times too high they reach 1e16.
MAX_NORM = 1e10
# Scores without bound have losses of 3e3 (REDDIT-BINARY) before the first step, and of 1e5 in training that
# still learns; with a learning rate that is far too high they reach 1e10 and more.
MAX_LOSS = 1e8
# The spread of constant embeddings is 0 up to rounding; below this float32 and bfloat16 hardly distinguish
# the cosines of two samples. Networks have 0.1 and more before their first step.
MIN_SPREAD = 1e-6
COLLAPSED_STEPS = 10  # a single batch may consist of equal samples
CONSTANT = "constant embeddings"


@dataclass(frozen=True)
class Divergence:
    """How a run diverged: a short reason, a description, and the step, from 1, if it is known."""

    reason: str
    description: str
    step: int | None = None

    def advice(self, epoch: int, step: int, settings: str) -> str:
        """What to try after this in an epoch and a step, counted from 1; ``settings`` says which and how.

        Constant embeddings may also mean constant data. In the first step they do: before it no setting has
        had an effect.
        """
        if self.reason != CONSTANT:
            return f"try {settings}"
        data = "check that the samples of the data differ"
        return data if (epoch, step) == (1, 1) else f"{data}; try {settings}"


def gradient_norms(model: nn.Module, runs: int) -> Tensor:
    """The norm of all gradients of each run: [R], on the device; nothing here waits for it.

    Of several runs, every parameter has a dimension of runs in front.
    """
    return _norms([p.grad for p in model.parameters() if p.grad is not None], runs)


def weight_norms(model: nn.Module, runs: int) -> list[float]:
    """The norm of each run's weights; this waits for the device."""
    return _norms([p.detach() for p in model.parameters()], runs).tolist()


def _norms(tensors: list[Tensor], runs: int) -> Tensor:
    if runs == 1:
        return nn.utils.get_total_norm(tensors).expand(1)
    norms = [torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def step_statistics(losses: Tensor, norms: Tensor, embeddings: Tensor) -> Tensor:
    """Loss, gradient norm and spread of the embeddings of each run: [R], [R], [R, B, D] -> float32 [R, 3]."""
    spreads = relative_spread(embeddings.detach().float())
    return torch.stack([losses.detach().float(), norms.detach().float(), spreads], dim=-1)


def relative_spread(embeddings: Tensor) -> Tensor:
    """The variance over the batch divided by the mean square, summed over dimensions: [..., B, D] -> [...].

    It is 0 if all embeddings are equal, and 1 if their mean is zero.
    """
    size = embeddings.square().mean(-2).sum(-1)
    return embeddings.var(-2, correction=0).sum(-1) / size.clamp(min=torch.finfo(torch.float32).tiny)


def check_steps(
    statistics: Tensor, *, epoch_is_complete: bool, constant_before: int = 0
) -> Divergence | None:
    """Whether one run has diverged or collapsed in the steps of an epoch so far: [T, 3].

    That is a loss or a gradient that is not finite or exploding, or constant embeddings in the last ten
    steps, or in all steps of a complete epoch. ``constant_before``: as ``constant_steps`` takes it.
    """
    losses, norms, spreads = statistics.unbind(1)
    for values, maximum, what, name in (
        (losses, MAX_LOSS, "loss", "loss"),
        (norms, MAX_NORM, "gradient", "gradient's norm"),
    ):
        diverged = ~(values.abs() < maximum)
        if diverged.any():
            step = int(diverged.int().argmax())
            return _diverged(what, name, values[step].item(), step + 1)
    constant = constant_steps(statistics, constant_before)
    needed = min(COLLAPSED_STEPS, len(spreads)) if epoch_is_complete else COLLAPSED_STEPS
    if constant >= needed:
        first = max(len(spreads) - constant, 0)
        return _collapsed("embeddings became constant", spreads[first].item(), first + 1)
    return None


def check_weights(norm: float) -> Divergence | None:
    """Whether the norm of a run's weights is not finite or exploding."""
    return None if norm < MAX_NORM else _diverged("weights", "weights' norm", norm)


def check_collapse(representations: Tensor) -> Divergence | None:
    """Whether a run's representations in eval mode are constant: [N, D].

    Batch norm gives the embeddings of a training batch a spread even then.
    """
    spread = relative_spread(representations.detach().double()).item()
    if spread > MIN_SPREAD:
        return None
    return _collapsed("representations became constant in eval mode", spread)


def constant_steps(statistics: Tensor, before: int = 0) -> int:
    """How many steps of one run, up to the last, had constant embeddings: [T, 3]; few prove nothing.

    ``before``: how many there were up to the first of these steps.
    """
    varied = (statistics[:, 2] > MIN_SPREAD).nonzero()
    return len(statistics) - 1 - int(varied[-1]) if len(varied) else before + len(statistics)


def _diverged(what: str, name: str, value: float, step: int | None = None) -> Divergence:
    kind = "exploding" if math.isfinite(value) else "non-finite"
    return Divergence(f"{kind} {what}", f"the {name} became {value:g}", step)


def _collapsed(what: str, spread: float, step: int | None = None) -> Divergence:
    return Divergence(CONSTANT, f"the {what}, their relative spread {spread:g}", step)
