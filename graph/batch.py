"""Batches in which equal nodes stand once, for one run or for several that are trained together.

Shapes: S runs · G graphs of a batch · V nodes of these · U different ones among them
        P pairs of a graph and one of its different nodes · F node features · D dim.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch_geometric.data import Batch

from graph.data import GraphDataset
from graph.refinement import refine


@dataclass(frozen=True)
class SparseSum:
    """Sums of rows, within each of S runs: [S, n, D] -> [S, m, D]; the transpose is for the gradient."""

    matrix: Tensor  # (S·m, S·n) sparse CSR, block-diagonal
    transpose: Tensor

    @classmethod
    def of(cls, to: Tensor, of: Tensor, count: Tensor, shape: tuple[int, int]) -> "SparseSum":
        """Row ``to`` of the sums has ``count`` times the row ``of``: [entries] each."""
        matrix = torch.sparse_coo_tensor(torch.stack([to, of]), count, shape, check_invariants=False)
        with warnings.catch_warnings():  # torch announces that sparse CSR is in beta, once a process
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return cls(matrix.coalesce().to_sparse_csr(), matrix.T.coalesce().to_sparse_csr())

    def __call__(self, x: Tensor) -> Tensor:
        sums = _SparseSum.apply(x.to(self.matrix.dtype).flatten(0, 1), self)
        return sums.view(len(x), -1, x.shape[2])

    def to(self, *arguments) -> "SparseSum":
        return SparseSum(self.matrix.to(*arguments), self.transpose.to(*arguments))


class _SparseSum(torch.autograd.Function):
    """A x; torch's own gradient makes the transpose anew at every step."""

    @staticmethod
    def forward(ctx, x: Tensor, sums: SparseSum) -> Tensor:
        ctx.sums = sums
        with torch.autocast(x.device.type, enabled=False):  # sums of many rows are no work for half precision
            return sums.matrix @ x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _SparseSum.apply(grad.contiguous(), SparseSum(ctx.sums.transpose, ctx.sums.matrix)), None


@dataclass(frozen=True)
class GraphBatch:
    """Some graphs of each run, on a device. A run with fewer nodes than another is padded."""

    features: Tensor  # (S, U, F)
    neighbours: SparseSum  # over the neighbours of a node: [S, U, D] -> [S, U, D]
    members: SparseSum  # over the nodes of a graph: [S, U, D] -> [S, G, D]
    share: Tensor  # (S, 1, U), how much of a run's nodes a row stands for; sums to 1
    count: Tensor  # (S, 1, 1), V of each run
    node: Tensor  # (S, P) int, a pair's row among the U
    graph: Tensor  # (S, P) int, its graph among the G
    weight: Tensor  # (S, P), how much of a run's nodes a pair stands for; sums to 1, 0 in padding
    positions: Tensor  # (S, G) int, where each graph stands in the dataset

    def to(self, *arguments) -> "GraphBatch":
        return GraphBatch(*(getattr(self, field.name).to(*arguments) for field in fields(self)))


class Collator:
    """Makes batches of a dataset's graphs, for encoders of so many layers."""

    def __init__(self, dataset: GraphDataset, layers: int) -> None:
        whole = Batch.from_data_list(dataset.graphs)
        self.features, self.graph_of_node = whole.x, whole.batch
        self.first_node = whole.ptr  # (graphs + 1,)
        self.colour = refine(whole.x, whole.edge_index, layers)
        # Edges by their target, so that a node's neighbours are found by slicing.
        source, target = whole.edge_index
        self.source = source[target.argsort(stable=True)]
        self.first_edge = torch.cat([target.new_zeros(1), target.bincount(minlength=len(whole.x)).cumsum(0)])

    def __call__(self, positions: Sequence[Tensor]) -> GraphBatch:
        """The graphs at ``positions`` of the dataset, [G] for each run."""
        parts = [self._of_run(of_run) for of_run in positions]
        rows, graphs = max(len(part["features"]) for part in parts), len(positions[0])

        def padded(name: str, repeat: bool = False) -> Tensor:
            """Shorter runs end in zeros, or in their first entry again."""
            longest = max(len(part[name]) for part in parts)
            if repeat:
                return torch.stack(
                    [
                        torch.cat([part[name], part[name][:1].expand(longest - len(part[name]))])
                        for part in parts
                    ]
                )
            return pad_sequence([part[name] for part in parts], batch_first=True)

        def sums(to: str, of: str, count: str, height: int) -> SparseSum:
            """The runs' sums as one: each run's rows and columns after those of the run before."""
            lines = [part[to] + s * height for s, part in enumerate(parts)]
            columns = [part[of] + s * rows for s, part in enumerate(parts)]
            counts = torch.cat([part[count] for part in parts]).float()
            shape = (len(parts) * height, len(parts) * rows)
            return SparseSum.of(torch.cat(lines), torch.cat(columns), counts, shape)

        count = torch.stack([part["count"].sum() for part in parts]).float()
        return GraphBatch(
            features=padded("features"),
            neighbours=sums("target", "source", "one", rows),
            members=sums("graph", "node", "count", graphs),
            share=(padded("copies") / count.unsqueeze(1)).unsqueeze(1),
            count=count.view(-1, 1, 1),
            node=padded("node", repeat=True),
            graph=padded("graph", repeat=True),
            weight=padded("count") / count.unsqueeze(1),
            positions=torch.stack(list(positions)),
        )

    def _of_run(self, positions: Tensor) -> dict[str, Tensor]:
        """One run's part: rows, edges and pairs by the numbers that they have in it."""
        nodes, graph = _ranges(self.first_node, positions)  # (V,)
        colours, row = self.colour[nodes].unique(return_inverse=True)  # (U,), (V,)
        chosen = nodes.new_empty(len(colours)).scatter_(0, row, nodes)  # a node of each colour
        neighbours, target = _ranges(self.first_edge, chosen)
        row_of_node = torch.empty_like(self.graph_of_node).scatter_(0, nodes, row)
        source = row_of_node[self.source[neighbours]]
        (row, graph), count = torch.stack([row, graph]).unique(dim=1, return_counts=True)
        return {
            "features": self.features[chosen],
            "target": target,
            "source": source,
            "one": torch.ones_like(source),
            "node": row,
            "graph": graph,
            "count": count,
            "copies": torch.zeros(len(colours)).index_add_(0, row, count.float()),
        }


def _ranges(firsts: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Everything from ``firsts[i]`` to before ``firsts[i + 1]`` for each chosen i, and the place of its i."""
    counts = firsts[chosen + 1] - firsts[chosen]
    place = torch.arange(len(chosen)).repeat_interleave(counts)
    return torch.arange(len(place)) - (counts.cumsum(0) - counts - firsts[chosen])[place], place


def make_batches(
    dataset: GraphDataset, batch_size: int, seeds: Sequence[int], device: torch.device, layers: int = 3
) -> list[GraphBatch]:
    """Shuffle once by each run's seed, collate, and move to ``device``: the batches of every epoch.

    A single graph left over joins the batch before it: alone it would have no negatives.
    """
    collate = Collator(dataset, layers)
    orders = [
        torch.randperm(len(dataset.graphs), generator=torch.Generator().manual_seed(seed)).split(batch_size)
        for seed in seeds
    ]
    chunks = list(zip(*orders, strict=True))
    if len(chunks) > 1 and len(chunks[-1][0]) == 1:
        chunks[-2:] = [[torch.cat(pair) for pair in zip(*chunks[-2:], strict=True)]]
    return [collate(chunk).to(device) for chunk in chunks]
