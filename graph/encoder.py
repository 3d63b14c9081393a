"""GIN with sum readout of every layer, and InfoGraph's local and global heads, for S runs at once.

Every parameter and buffer has a first dimension of S. No operation mixes the runs.

Shapes: S runs · U different nodes of a batch · G graphs · F node features · H hidden · L layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.losses.backward import refuse_double_backward
from core.training.seeding import seed_everything
from graph.batch import GraphBatch


class Linear(nn.Module):
    """A linear layer for each run, with InfoGraph's initialisation: weights Xavier-uniform, biases zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, inputs)).unsqueeze(0))
        self.bias = nn.Parameter(torch.zeros(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[S, n, inputs] -> [S, n, outputs]."""
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class BatchNorm(nn.Module):
    """Batch norm for each run; a row has the weight of all equal nodes that it represents."""

    running_mean: Tensor  # (S, H)
    running_var: Tensor

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(1, dim))
        self.bias = nn.Parameter(torch.zeros(1, dim))
        self.register_buffer("running_mean", torch.zeros(1, dim))
        self.register_buffer("running_var", torch.ones(1, dim))

    def forward(self, x: Tensor, share: Tensor, count: Tensor) -> Tensor:
        """Rows [S, U, H], their shares [S, 1, U] of the ``count`` [S, 1, 1] nodes -> [S, U, H]."""
        if not self.training:
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            return (x - self.running_mean.unsqueeze(1)) * scale.unsqueeze(1) + self.bias.unsqueeze(1)
        with torch.autocast(x.device.type, enabled=False):
            x, mean, variance = _BatchNorm.apply(
                x.to(share.dtype), self.weight.unsqueeze(1), self.bias.unsqueeze(1), share, self.eps
            )
            with torch.no_grad():
                self.running_mean.lerp_(mean.squeeze(1), self.momentum)
                unbiased = variance * (count / (count - 1))
                self.running_var.lerp_(unbiased.squeeze(1), self.momentum)
            return x


class _BatchNorm(torch.autograd.Function):
    """Batch norm in training: rows [S, U, H], weight and bias [S, 1, H], shares [S, 1, U].

    It returns the normalised rows, and mean and variance [S, 1, H] without a gradient. The gradient by rows
    is scale (g_u - share_u (sum g + x_u sum g x)) with x the rows normalised: a third of the passes over rows
    that automatic differentiation takes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, share: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = share @ x
        centred = x - mean
        variance = share @ centred.square()
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(centred, inverse, weight, share)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias, centred, weight * inverse), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *of_statistics: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward("batch norm in training", "eval mode")
        centred, inverse, weight, share = ctx.saved_tensors
        scale = weight * inverse
        grad_bias = grad.sum(1, keepdim=True)
        grad_weight = (grad * centred).sum(1, keepdim=True) * inverse
        means = torch.addcmul(scale * grad_bias, centred, scale * inverse * grad_weight)
        return (grad * scale).addcmul_(share.mT, means, value=-1), grad_weight, grad_bias, None, None


class GIN(nn.Module):
    """InfoGraph's graph isomorphism network (Sun et al., ICLR 2020; Xu et al., ICLR 2019, eq. 4.1).

    A layer is an MLP of x_v + sum of x over the neighbours of v, then ReLU, then batch norm.

    Args:
        num_features: F.
        hidden: H, the width of every layer.
        layers: L. The outputs of all layers are concatenated to representations of L·H numbers.
    """

    def __init__(self, num_features: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        sizes = [num_features] + [hidden] * (layers - 1)
        self.mlps = nn.ModuleList(
            nn.Sequential(Linear(size, hidden), nn.ReLU(inplace=True), Linear(hidden, hidden))
            for size in sizes
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in sizes)
        self.dim = hidden * layers

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """The representations of nodes [S, U, L·H] and of graphs [S, G, L·H]."""
        outputs: list[Tensor] = []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            sums = outputs[-1] + batch.neighbours(outputs[-1]) if outputs else batch.sums
            outputs.append(norm(mlp(sums).relu_(), batch.share, batch.count))
        nodes = torch.cat(outputs, dim=2)
        return nodes, batch.members(nodes)


class InfoGraph(nn.Module):
    """The encoder, the two heads whose outputs the objective scores, and the prior discriminator."""

    def __init__(self, encoder: GIN) -> None:
        super().__init__()
        self.encoder = encoder
        self.local_head = Head(encoder.dim)
        self.global_head = Head(encoder.dim)
        self.prior = PriorDiscriminator(encoder.dim)

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Local projections [S, U, L·H], global projections and graph representations [S, G, L·H]."""
        nodes, graphs = self.encoder(batch)
        return self.local_head(nodes), self.global_head(graphs), graphs

    @property
    def heads(self) -> nn.ModuleDict:
        """The two heads, as a run saves them; they share their weights with the model."""
        return nn.ModuleDict({"local": self.local_head, "global": self.global_head})


class Head(nn.Module):
    """Three Linear-ReLU blocks and a linear shortcut, all of one width (InfoGraph's FF)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *[layer for _ in range(3) for layer in (Linear(dim, dim), nn.ReLU(inplace=True))]
        )
        self.shortcut = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x).add_(self.block(x))


class PriorDiscriminator(nn.Module):
    """Classifies uniform noise against representations; an option of InfoGraph's code.

    As in that code, encoder and discriminator both minimise the loss: it is not adversarial.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.logit = nn.Sequential(Linear(dim, dim), nn.ReLU(), Linear(dim, dim), nn.ReLU(), Linear(dim, 1))

    def forward(self, graphs: Tensor, uniform: Tensor) -> Tensor:
        """-mean log D(uniform) - mean log(1 - D(graphs)): [S, G, dim] twice -> [S]."""
        terms = F.logsigmoid(self.logit(uniform)) + F.logsigmoid(-self.logit(graphs))
        return -terms.mean(dim=(1, 2))


def make_models(num_features: int, hidden: int, layers: int, seeds: Sequence[int]) -> InfoGraph:
    """A model with the weights of one run for each seed; they depend on that seed alone."""

    def initial_state(seed: int) -> dict[str, Tensor]:
        seed_everything(seed)
        return InfoGraph(GIN(num_features, hidden, layers)).state_dict()

    states = [initial_state(seed) for seed in seeds]
    models = InfoGraph(GIN(num_features, hidden, layers))
    for name, value in (*models.named_parameters(), *models.named_buffers()):
        value.data = torch.cat([state[name] for state in states])
    return models


def state_of_run(module: nn.Module, run: int) -> dict[str, Tensor]:
    """The state dict of one run, without the dimension S."""
    return {name: value[run] for name, value in module.state_dict().items()}
