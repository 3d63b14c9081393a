"""The log of the weighted mean over negatives, from a similarity matrix that is never in memory at once.

Value and gradient are those of ``functional.log_negative_mean``, to which tests compare them. Each block of
the matrix is computed by the Triton kernels of ``triton_tiles`` where they run, else by ``torch_tiles``.

Shapes: b samples of this process · n = 2b embeddings, two views of them, one view after the other · D dim.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import torch_tiles, triton_tiles
from .backward import full_precision_backward, refuse_double_backward
from .checks import Scalar, number, requires_grad
from .exchange import Exchange, blocks
from .torch_tiles import Block, TileSettings


def log_negative_mean_of_views(
    embeddings: Tensor,
    temperature: Scalar,
    beta: Scalar,
    stop_gradient: bool,
    tile_size: int,
    exchange: Exchange,
) -> Tensor:
    """A = LSE((1 + beta) s) - LSE(beta s) over each anchor's negatives: [n, D] -> [n].

    Negatives are the embeddings of all other samples, of every process unless ``exchange`` is "alone". Beside
    the embeddings, memory is for a few tiles of ``tile_size`` squared, and for the embeddings that other
    processes have sent.
    """
    # A learned setting scales all embeddings, anchors and candidates, and gets its gradient through them:
    # (x / sqrt t) . (y / sqrt t) = s, and A is the difference of log-sum-exps of (1 + beta) s and beta s.
    if requires_grad(temperature):
        embeddings, temperature = embeddings / torch.as_tensor(temperature).sqrt(), 1.0

    def log_mean(embeddings: Tensor, beta: float) -> Tensor:
        settings = TileSettings(number(temperature), beta, tile_size)
        return _LogNegativeMean.apply(embeddings, settings, stop_gradient, exchange)

    if stop_gradient or not requires_grad(beta):
        return log_mean(embeddings, number(beta))
    tiny = torch.finfo(embeddings.dtype).tiny  # a root has no gradient at 0
    hard, weights = torch.as_tensor(1 + beta).sqrt(), torch.as_tensor(beta + tiny).sqrt()
    return log_mean(embeddings * hard, 0.0) - log_mean(embeddings * weights, 0.0)


class _LogNegativeMean(torch.autograd.Function):
    """Running log-sum-exps forward; backward recomputes each tile from the two sums kept per row.

    dA_i/ds_ij = (1 + beta) softmax_j((1 + beta) s_i) - beta softmax_j(beta s_i); with the weights w constant,
    softmax_j((1 + beta) s_i) alone. An embedding is an anchor itself and a candidate of all others. Anchors'
    sums and incoming gradients are exchanged with their embeddings, so that each process computes both parts
    of its own gradient, and no gradient is exchanged.
    """

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, settings: TileSettings, stop_gradient: bool, exchange: Exchange
    ) -> Tensor:
        log_sum = embeddings.new_full((len(embeddings),), -torch.inf)
        log_normaliser = torch.full_like(log_sum, -torch.inf)
        backend = _backend(embeddings)
        own_samples, others = blocks(exchange, embeddings)
        for samples, candidates in others:
            sums = backend.log_sums(Block(embeddings, candidates, own_samples, samples), settings)
            log_sum, log_normaliser = map(torch.logaddexp, (log_sum, log_normaliser), sums)
        ctx.save_for_backward(embeddings, log_sum, log_normaliser)
        ctx.settings, ctx.stop_gradient, ctx.exchange = settings, stop_gradient, exchange
        return log_sum - log_normaliser

    @staticmethod
    @full_precision_backward
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward("a loss in tiles", instead="`tile_size=None`")
        embeddings, log_sum, log_normaliser = ctx.saved_tensors
        temperature, beta, _ = ctx.settings
        factors = (1.0, 0.0) if ctx.stop_gradient else (1 + beta, -beta)
        scaled = [factor * grad_output / temperature for factor in factors]
        anchors = torch.stack([log_sum, log_normaliser, *scaled], dim=1)  # (n, 4)
        grad = torch.zeros_like(embeddings)
        backend = _backend(embeddings)
        own_samples, others = blocks(ctx.exchange, embeddings, anchors)
        for samples, candidates, candidate_anchors in others:
            block = Block(embeddings, candidates, own_samples, samples)
            grad += backend.gradient(block, anchors, candidate_anchors, ctx.settings)
        return grad, None, None, None


def _backend(embeddings: Tensor) -> ModuleType:
    """The module that computes blocks."""
    return triton_tiles if triton_tiles.is_usable(embeddings) else torch_tiles
