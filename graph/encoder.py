"""GIN with sum readout of every layer, and InfoGraph's local and global heads.

Shapes: V nodes of a batch · G graphs · F node features · H hidden · L layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph.data import GraphBatch


class GIN(nn.Module):
    """Graph isomorphism network as InfoGraph has it (Sun et al., 2020; Xu et al., ICLR 2019, eq. 4.1).

    A layer is an MLP of x_v + sum of its neighbours' x, then ReLU, then batch norm.

    Args:
        num_features: F, of a node.
        hidden: H, of every layer.
        layers: L; a node's representation is all layers' outputs side by side, L·H.
    """

    def __init__(self, num_features: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        sizes = [num_features] + [hidden] * (layers - 1)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for size in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in sizes)
        self.dim = hidden * layers
        self.apply(xavier)

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Return the nodes' and the graphs' representations: [V, L·H], [G, L·H]."""
        x = batch.features
        outputs = []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            x = norm(F.relu(mlp(x + neighbour_sum(x, batch.adjacency))))
            outputs.append(x)
        nodes = torch.cat(outputs, dim=1)
        return nodes, readout(nodes, batch)


class InfoGraph(nn.Module):
    """The encoder with the two heads whose outputs the objective scores, and a prior for the graphs'."""

    def __init__(self, encoder: GIN) -> None:
        super().__init__()
        self.encoder = encoder
        self.local_head = Head(encoder.dim)
        self.global_head = Head(encoder.dim)
        self.prior = PriorDiscriminator(encoder.dim)

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return local [V, L·H] and global [G, L·H] projections, and the graphs' representations."""
        nodes, graphs = self.encoder(batch)
        return self.local_head(nodes), self.global_head(graphs), graphs


class Head(nn.Module):
    """Three Linear-ReLU and a linear shortcut, all of one width (InfoGraph's FF)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(dim, dim), nn.ReLU())])
        self.shortcut = nn.Linear(dim, dim)
        self.apply(xavier)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)


class PriorDiscriminator(nn.Module):
    """Tells uniform draws from representations; InfoGraph's code may add its loss to the objective.

    As in that code, encoder and discriminator both minimise it: the term is no adversarial one.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.logit = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1)
        )
        self.apply(xavier)

    def forward(self, graphs: Tensor) -> Tensor:
        """-mean log D(u) - mean log(1 - D(graphs)), u uniform in [0, 1]: [G, dim] -> scalar."""
        uniform = self.logit(torch.rand_like(graphs))
        return -F.logsigmoid(uniform).mean() - F.logsigmoid(-self.logit(graphs)).mean()


class _NeighbourSum(torch.autograd.Function):
    """A x for a symmetric sparse A, whose transpose in the backward pass is A itself."""

    @staticmethod
    def forward(ctx, x: Tensor, adjacency: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return adjacency @ x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.adjacency @ grad, None


def neighbour_sum(x: Tensor, adjacency: Tensor) -> Tensor:
    """Sum of each node's neighbours: [V, F], symmetric sparse [V, V] -> [V, F].

    Several times faster than gathering and scattering along edges, the more the larger the graphs.
    """
    with torch.autocast(x.device.type, enabled=False):  # sums of many nodes are no work for half precision
        return _NeighbourSum.apply(x.to(adjacency.dtype), adjacency)


def readout(nodes: Tensor, batch: GraphBatch) -> Tensor:
    """Sum of each graph's nodes: [V, D] -> [G, D]."""
    nodes = nodes.to(batch.adjacency.dtype)
    return nodes.new_zeros(len(batch), nodes.shape[1]).index_add(0, batch.graph, nodes)


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as InfoGraph starts its linear layers."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
