"""One graph, without PyG, which is slow to import."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph, with its class if it has one. The names are those of PyG's ``Data``, which can replace it.

    Shapes: V nodes · E edges, both directions of an undirected one · F node features.
    """

    edge_index: Tensor  # (2, E) int64, source and target; without self-loops and repeats
    num_nodes: int  # V
    y: Tensor | None = None  # (1,) int64, the class; None without labels
    x: Tensor | None = None  # (V, F) float32; None without node features


def simple_edges(edge_index: Tensor) -> Tensor:
    """The edges [2, E] without self-loops and repeats, in their order."""
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    if not edge_index.numel():
        return edge_index
    source, target = edge_index
    place = source.long() * (edge_index.max() + 1) + target
    order = place.argsort(stable=True)
    is_first = place[order].diff(prepend=place.new_tensor([-1])) != 0
    return edge_index[:, order[is_first].sort().values]
