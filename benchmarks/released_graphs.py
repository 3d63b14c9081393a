"""InfoGraph as the released code computes it, on plain layers: the reference implementation for ``graph``.

Shapes: V nodes of a batch · G graphs · L·H representation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import GINConv, global_add_pool


class ReleasedGIN(nn.Module):
    """GIN that passes messages along edges and computes every node; parameters are named as ours."""

    def __init__(self, num_features: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        sizes = [num_features] + [hidden] * (layers - 1)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for size in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in sizes)
        self.sum_of_neighbours = GINConv(nn.Identity())
        self.dim = hidden * layers

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the nodes' and the graphs' representations: [V, L·H], [G, L·H]."""
        x, outputs = batch.x, []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            x = norm(F.relu(mlp(self.sum_of_neighbours(x, batch.edge_index))))
            outputs.append(x)
        pooled = [global_add_pool(x, batch.batch) for x in outputs]
        return torch.cat(outputs, dim=1), torch.cat(pooled, dim=1)


class ReleasedHead(nn.Module):
    """Three Linear-ReLU and a linear shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(dim, dim), nn.ReLU())])
        self.shortcut = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.shortcut(x)


class ReleasedInfoGraph(nn.Module):
    """The encoder with its two heads."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.encoder = ReleasedGIN(num_features)
        self.local_head = ReleasedHead(self.encoder.dim)
        self.global_head = ReleasedHead(self.encoder.dim)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return local and global projections: [V, L·H], [G, L·H]."""
        nodes, graphs = self.encoder(batch)
        return self.local_head(nodes), self.global_head(graphs)


def released_objective(local: Tensor, global_: Tensor, batch: Tensor) -> Tensor:
    """InfoGraph's objective with both masks filled one node at a time."""
    positive = torch.zeros(len(local), len(global_), device=local.device)
    negative = torch.ones_like(positive)
    for node, graph in enumerate(batch):
        positive[node][graph] = 1.0
        negative[node][graph] = 0.0
    scores = local @ global_.T
    pulled = (F.softplus(-scores * positive) - F.softplus(torch.zeros(()))).sum() / len(local)
    pushed = (F.softplus(scores * negative) - F.softplus(torch.zeros(()))).sum()
    return pulled + pushed / (len(local) * (len(global_) - 1))
