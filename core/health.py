"""Whether training goes well: three numbers of every step, kept on the device and read once in a while."""

import torch
from torch import Tensor, nn

from core.errors import DivergedError

# Sums over the nodes of graphs have gradients of 1e3 (DD) that look absurd for images; with a learning rate
# a thousand times too high they reach 1e16.
LARGEST_NORM = 1e10
# The spread of constant embeddings is 0 up to rounding; below this float32 and bfloat16 hardly tell two
# samples' cosines apart. Networks have 0.1 and more before their first step.
LEAST_SPREAD = 1e-6
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
    embedding = embedding.detach().float()
    size = embedding.square().mean(-2).sum(-1)
    spread = embedding.var(-2, correction=0).sum(-1) / size.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.stack([loss.detach().float(), norm.detach().float(), spread], dim=-1)


def check(measures: Tensor, epoch: int, advice: str, is_whole: bool = False) -> None:
    """Raise DivergedError, naming epoch, step and what to try, if training has gone astray: [steps, 3].

    That is a loss or a gradient that is not finite, a gradient of absurd size, or constant embeddings in
    the last ten steps, or in all of a whole epoch.
    """
    losses, norms, spreads = measures.unbind(1)
    _raise_at(~losses.isfinite(), losses, "the loss became {:g}", "non-finite loss", epoch, advice)
    _raise_at(
        ~(norms < LARGEST_NORM), norms, "the gradient's norm became {:g}", "exploding gradient", epoch, advice
    )
    varied = (spreads > LEAST_SPREAD).nonzero()
    first = int(varied[-1]) + 1 if len(varied) else 0
    if len(spreads) - first >= (min(COLLAPSED_STEPS, len(spreads)) if is_whole else COLLAPSED_STEPS):
        collapsed = torch.arange(len(spreads), device=spreads.device) >= first
        what = "the embeddings became constant, their relative spread {:g}"
        _raise_at(collapsed, spreads, what, "constant embeddings", epoch, advice)


def seem_constant(measures: Tensor) -> bool:
    """Whether the last step's embeddings were constant: one batch proves nothing, but is to be doubted."""
    return len(measures) > 0 and bool((measures[-1, ..., 2] <= LEAST_SPREAD).any())


def weight_norms(model: nn.Module, runs: int) -> list[float]:
    """The norm of each run's weights; this waits for the device."""
    return _norm([parameter.detach() for parameter in model.parameters()], torch.empty(runs)).tolist()


def check_weights(norm: float, epoch: int, step: int, advice: str) -> None:
    """Raise DivergedError if the norm of the weights after a step is not finite."""
    if not norm < LARGEST_NORM:
        raise DivergedError(
            "non-finite weights",
            epoch,
            step,
            _message(f"the weights' norm became {norm:g}", epoch, step, advice),
        )


def _raise_at(where: Tensor, values: Tensor, what: str, reason: str, epoch: int, advice: str) -> None:
    if where.any():
        step = int(where.int().argmax())
        said = what.format(values[step].item())
        raise DivergedError(reason, epoch, step + 1, _message(said, epoch, step + 1, advice))


def _message(what: str, epoch: int, step: int, advice: str) -> str:
    return f"{what} in epoch {epoch}, step {step}; {advice}"
