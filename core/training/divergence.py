"""Whether training goes well: three numbers of every step, kept on the device and read once in a while."""

import math

import torch
from torch import Tensor, nn

from core.io.errors import DivergedError

# Sums over the nodes of graphs have gradients of 1e3 (DD) that look absurd for images; with a learning rate
# a thousand times too high they reach 1e16.
MAX_NORM = 1e10
# Scores without bound give losses of 3e3 (REDDIT-BINARY) before the first step, and of 1e5 in training that
# still learns; with learning rates that throw the weights about they reach 1e10 and more.
MAX_LOSS = 1e8
# The spread of constant embeddings is 0 up to rounding; below this float32 and bfloat16 hardly tell two
# samples' cosines apart. Networks have 0.1 and more before their first step.
MIN_SPREAD = 1e-6
# A single batch may be of equal samples.
COLLAPSED_STEPS = 10


def gradient_norm(model: nn.Module, like: Tensor) -> Tensor:
    """The norm of all gradients together, a scalar on the device; nothing here waits for it.

    One for each run where ``like``, the loss, is [runs]: every parameter then has those in front.
    """
    return _norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None], like)


def _norm(tensors: list[Tensor], like: Tensor) -> Tensor:
    if like.numel() == 1:
        return nn.utils.get_total_norm(tensors).expand(like.shape)
    norms = [torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def measure(loss: Tensor, norm: Tensor, embedding: Tensor) -> Tensor:
    """A step's loss, gradient norm and the relative spread of its embeddings [B, D]: float32 [3].

    The spread is the variance over the batch by the mean square, summed over dimensions: from 0, where all
    embeddings are one, to 1, where their mean is zero. With runs in front of each, [runs, 3].
    """
    spread = _spread(embedding.detach().float())
    return torch.stack([loss.detach().float(), norm.detach().float(), spread], dim=-1)


def _spread(embedding: Tensor) -> Tensor:
    size = embedding.square().mean(-2).sum(-1)
    return embedding.var(-2, correction=0).sum(-1) / size.clamp(min=torch.finfo(torch.float32).tiny)


def check(measures: Tensor, epoch: int, advice: str, is_whole: bool = False) -> None:
    """Raise DivergedError, naming epoch, step and what to try, if training has gone astray: [steps, 3].

    That is a loss or a gradient that is not finite or of absurd size, or constant embeddings in the last ten
    steps, or in all of a whole epoch.
    """
    losses, norms, spreads = measures.unbind(1)
    for values, largest, of, what in (
        (losses, MAX_LOSS, "loss", "loss"),
        (norms, MAX_NORM, "gradient", "gradient's norm"),
    ):
        wild = ~(values.abs() < largest)
        if wild.any():
            step = int(wild.int().argmax())
            raise _gone_wild(of, what, values[step].item(), epoch, step + 1, advice)
    varied = (spreads > MIN_SPREAD).nonzero()
    first = int(varied[-1]) + 1 if len(varied) else 0
    if len(spreads) - first >= (min(COLLAPSED_STEPS, len(spreads)) if is_whole else COLLAPSED_STEPS):
        raise _collapsed("embeddings became constant", spreads[first].item(), epoch, first + 1, advice)


def seem_constant(measures: Tensor) -> bool:
    """Whether the last step's embeddings were constant: one batch proves nothing, but is to be doubted."""
    return len(measures) > 0 and bool((measures[-1, ..., 2] <= MIN_SPREAD).any())


def weight_norms(model: nn.Module, runs: int) -> list[float]:
    """The norm of each run's weights; this waits for the device."""
    return _norm([parameter.detach() for parameter in model.parameters()], torch.empty(runs)).tolist()


def check_weights(norm: float, epoch: int, step: int, advice: str) -> None:
    """Raise DivergedError if the norm of the weights after a step is not finite or of absurd size."""
    if not norm < MAX_NORM:
        raise _gone_wild("weights", "weights' norm", norm, epoch, step, advice)


def check_spread(representations: Tensor, epoch: int, step: int, advice: str) -> None:
    """Raise DivergedError if representations [N, D], as they are after a step in eval mode, are constant.

    Batch norm gives the embeddings of a training batch a spread even then.
    """
    spread = _spread(representations.detach().double()).item()
    if not spread > MIN_SPREAD:
        raise _collapsed("representations became constant in eval mode", spread, epoch, step, advice)


def _gone_wild(of: str, what: str, value: float, epoch: int, step: int, advice: str) -> DivergedError:
    kind = "exploding" if math.isfinite(value) else "non-finite"
    message = f"the {what} became {value:g} in epoch {epoch}, step {step}; {advice}"
    return DivergedError(f"{kind} {of}", epoch, step, message)


def _collapsed(what: str, spread: float, epoch: int, step: int, advice: str) -> DivergedError:
    message = f"the {what}, their relative spread {spread:g} in epoch {epoch}, step {step}; {advice}"
    return DivergedError("constant embeddings", epoch, step, message)
