"""One graph, without PyG, which is slow to import."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph, with its class if it has one. The names are those of PyG's ``Data``, which can replace it.

    Shapes: V nodes · E edges, both directions of an undirected one · F node features.
    """

    edge_index: Tensor  # (2, E) int64, source and target
    num_nodes: int  # V
    y: Tensor | None = None  # (1,) int64, the class; None without labels
    x: Tensor | None = None  # (V, F) float32; None without node features
