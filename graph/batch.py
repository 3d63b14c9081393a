"""Batches of graphs for one or more runs, in which nodes with equal representations are computed once.

Shapes: S runs · G graphs of a batch · V nodes of these · U different nodes among them
        P pairs of a graph and one of its different nodes · F node features · D dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from graph.data import GraphDataset
from graph.refinement import refine


class SparseMatrix(NamedTuple):
    """A sparse matrix [m, n]. The entries of row i are those from ``first[i]`` to ``first[i + 1]``."""

    first: Tensor  # (m + 1,) int
    columns: Tensor  # (entries,) int
    values: Tensor  # (entries,)

    @classmethod
    def from_entries(
        cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> "SparseMatrix":
        """The matrix with ``values`` at ``rows`` and ``columns``, [n] each; those of one place are added."""
        places, entry = (rows * shape[1] + columns).unique(return_inverse=True)
        first = F.pad((places // shape[1]).bincount(minlength=shape[0]).cumsum(0), (1, 0))
        return cls(first, places % shape[1], values.new_zeros(len(places)).index_add_(0, entry, values))

    def __matmul__(self, x: Tensor) -> Tensor:
        """[n, D] -> [m, D]; each sum is taken in order, so that it has the same bits every time."""
        return F.embedding_bag(
            self.columns,
            x,
            self.first,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )


@dataclass(frozen=True)
class SparseSum:
    """Weighted sums of rows in each of S runs: [S, n, D] -> [S, m, D]."""

    matrix: SparseMatrix  # (S·m, S·n), block-diagonal
    transpose: SparseMatrix  # for the gradient

    @classmethod
    def from_entries(
        cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> "SparseSum":
        """The sums of a matrix that has ``values`` [n] at ``rows`` [n] and ``columns`` [n]."""
        return cls(
            SparseMatrix.from_entries(rows, columns, values, shape),
            SparseMatrix.from_entries(columns, rows, values, shape[::-1]),
        )

    def __call__(self, x: Tensor) -> Tensor:
        sums = _SparseSum.apply(x.to(self.matrix.values.dtype).flatten(0, 1), self)
        return sums.view(len(x), -1, x.shape[2])

    def to(self, *arguments: Any) -> "SparseSum":
        matrices = self.matrix, self.transpose
        return SparseSum(*(SparseMatrix(*(part.to(*arguments) for part in matrix)) for matrix in matrices))


class _SparseSum(torch.autograd.Function):
    """A x, with the gradient by the stored transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sums: SparseSum) -> Tensor:
        ctx.sums = sums
        with torch.autocast(x.device.type, enabled=False):  # half precision is too coarse for long sums
            return sums.matrix @ x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SparseSum.apply(grad.contiguous(), SparseSum(ctx.sums.transpose, ctx.sums.matrix)), None


@dataclass(frozen=True)
class GraphBatch:
    """One batch of each run, on a device. Runs with fewer nodes or pairs than another are padded."""

    sums: Tensor  # (S, U, F), the features of each node and of its neighbours: what the first layer takes
    neighbours: SparseSum  # sums over the neighbours of each node: [S, U, D] -> [S, U, D]
    members: SparseSum  # sums over the nodes of each graph: [S, U, D] -> [S, G, D]
    share: Tensor  # (S, 1, U), the fraction of the run's V nodes that a row represents; 0 in padding
    count: Tensor  # (S, 1, 1), V
    node: Tensor  # (S, P) int, the pair's row among the U
    graph: Tensor  # (S, P) int, the pair's graph among the G
    weight: Tensor  # (S, P), the fraction of the run's V nodes that a pair represents; 0 in padding
    positions: Tensor  # (S, G) int, indices of the graphs in the dataset

    def to(self, *arguments: Any) -> "GraphBatch":
        return GraphBatch(*(getattr(self, field.name).to(*arguments) for field in fields(self)))


class Collator:
    """Collates graphs of a dataset into batches, for encoders with a given number of layers."""

    def __init__(self, dataset: GraphDataset, layers: int) -> None:
        graphs = dataset.graphs
        sizes = torch.tensor([graph.num_nodes for graph in graphs])
        self.features = torch.cat([graph.x for graph in graphs])
        self.graph_of_node = torch.arange(len(graphs)).repeat_interleave(sizes)
        self.first_node = F.pad(sizes.cumsum(0), (1, 0))  # (graphs + 1,)
        firsts = self.first_node[:-1].tolist()
        edges = [graph.edge_index + first for graph, first in zip(graphs, firsts, strict=True)]
        edge_index = torch.cat(edges, dim=1)
        self.colour = refine(self.features, edge_index, layers)
        # Edges sorted by target: the neighbours of a node are a slice.
        source, target = edge_index
        self.source = source[target.argsort(stable=True)]
        edges_per_node = target.bincount(minlength=len(self.features))
        self.first_edge = F.pad(edges_per_node.cumsum(0), (1, 0))  # (nodes + 1,)

    def __call__(self, positions: Sequence[Tensor]) -> GraphBatch:
        """Collate the graphs at ``positions`` [G] of the dataset, for each run."""
        runs = [self._collate_run(graphs) for graphs in positions]
        num_nodes, num_graphs = max(len(run["features"]) for run in runs), len(positions[0])

        def padded(name: str) -> Tensor:
            """Stack the runs; shorter ones are padded with zeros."""
            return pad_sequence([run[name] for run in runs], batch_first=True)

        def repeated(name: str) -> Tensor:
            """Stack the runs; shorter ones are padded with their first entry."""
            length = max(len(run[name]) for run in runs)
            padding = [run[name][:1].expand(length - len(run[name])) for run in runs]
            return torch.stack(
                [torch.cat([run[name], more]) for run, more in zip(runs, padding, strict=True)]
            )

        def block_diagonal(rows: str, columns: str, values: str, height: int) -> SparseSum:
            """One matrix for all runs, with a block of ``height`` rows and ``num_nodes`` columns for each."""
            return SparseSum.from_entries(
                torch.cat([run[rows] + s * height for s, run in enumerate(runs)]),
                torch.cat([run[columns] + s * num_nodes for s, run in enumerate(runs)]),
                torch.cat([run[values] for run in runs]).float(),
                (len(runs) * height, len(runs) * num_nodes),
            )

        count = torch.stack([run["count"].sum() for run in runs]).float()
        features = padded("features")
        neighbours = block_diagonal("target", "source", "one", num_nodes)
        return GraphBatch(
            sums=features + neighbours(features),
            neighbours=neighbours,
            members=block_diagonal("graph", "node", "count", num_graphs),
            share=(padded("copies") / count.unsqueeze(1)).unsqueeze(1),
            count=count.view(-1, 1, 1),
            node=repeated("node"),
            graph=repeated("graph"),
            weight=padded("count") / count.unsqueeze(1),
            positions=torch.stack(list(positions)),
        )

    def _collate_run(self, positions: Tensor) -> dict[str, Tensor]:
        """One run's rows, edges and pairs; nodes and graphs have their numbers in the batch."""
        nodes, graph = _ranges(self.first_node, positions)  # (V,)
        colours, row = self.colour[nodes].unique(return_inverse=True)  # (U,), (V,)
        representative = nodes.new_empty(len(colours)).scatter_(0, row, nodes)  # (U,), a node of each colour
        edges, target = _ranges(self.first_edge, representative)
        row_of_node = torch.empty_like(self.graph_of_node).scatter_(0, nodes, row)
        source = row_of_node[self.source[edges]]
        (row, graph), count = torch.stack([row, graph]).unique(dim=1, return_counts=True)  # (P,) each
        return {
            "features": self.features[representative],  # (U, F)
            "target": target,  # of each edge to one of the U
            "source": source,
            "one": torch.ones_like(source),
            "node": row,  # of each pair
            "graph": graph,
            "count": count,  # nodes that a pair represents
            "copies": torch.zeros(len(colours)).index_add_(0, row, count.float()),
        }


def _ranges(firsts: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers ``firsts[i]`` to ``firsts[i + 1] - 1`` for each i in ``chosen``, and the index of that i.

    ``firsts`` [0, 2, 5] and ``chosen`` [1, 0] give [2, 3, 4, 0, 1] and [0, 0, 0, 1, 1].
    """
    counts = firsts[chosen + 1] - firsts[chosen]
    index = torch.arange(len(chosen)).repeat_interleave(counts)
    return torch.arange(len(index)) - (counts.cumsum(0) - counts - firsts[chosen])[index], index


def make_batches(
    dataset: GraphDataset, batch_size: int, seeds: Sequence[int], device: torch.device, layers: int = 3
) -> list[GraphBatch]:
    """The batches of every epoch: shuffled once by the seed of each run, collated, and moved to ``device``.

    A last batch of a single graph, which would have no negatives, is merged with the one before it.
    """
    collate = Collator(dataset, layers)
    orders = [
        torch.randperm(len(dataset.graphs), generator=torch.Generator().manual_seed(seed)).split(batch_size)
        for seed in seeds
    ]
    chunks = list(zip(*orders, strict=True))
    if len(chunks) > 1 and len(chunks[-1][0]) == 1:
        chunks[-2:] = [tuple(torch.cat(pair) for pair in zip(*chunks[-2:], strict=True))]
    return [collate(chunk).to(device) for chunk in chunks]


def step_elements(batches: Sequence[GraphBatch], hidden: int) -> int:
    """How many numbers the largest layer of a step has, for ``core.training.runtime.threads_for``."""
    return max(batch.sums.shape[:2].numel() for batch in batches) * hidden
