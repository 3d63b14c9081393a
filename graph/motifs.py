"""The built-in graph dataset: random trees with copies of one of five motifs."""

import numpy as np
import torch
from torch import Tensor

from core.training.seeding import seeded
from graph.graphs import Graph

GRAPHS_PER_CLASS = 30
MIN_MOTIFS, MAX_MOTIFS = 2, 20
TREE_NODES_PER_MOTIF = 2.0
# Expected number of random edges for each node. Without them an untrained encoder separates the classes.
NOISE_EDGES_PER_NODE = 0.3
# The undirected edges of each class's motif: a path, a star, a cycle, a house, a complete graph.
MOTIFS = (
    ((0, 1), (1, 2), (2, 3), (3, 4)),
    ((0, 1), (0, 2), (0, 3), (0, 4)),
    ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0)),
    ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)),
    ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)),
)


def make_motifs(seed: int = 0) -> list[Graph]:
    """30 graphs for each of five classes: a tree with 2 to 20 copies of the class's motif, and random edges.

    The motifs are a path, a star, a cycle and a house of five nodes, and the complete graph of four. Sizes
    vary as much within a class as between classes. Nodes have no features; ``y`` is the class.
    """
    with seeded(seed):
        return [
            _graph_with(torch.tensor(motif).T, label)
            for label, motif in enumerate(MOTIFS)
            for _ in range(GRAPHS_PER_CLASS)
        ]


def _graph_with(motif: Tensor, label: int) -> Graph:
    """A graph with copies of ``motif`` [2, edges], each joined by one edge to a node of its own of the tree.

    The draws and their order are those of PyG's ``ExplainerDataset`` with a ``BAGraph``.
    """
    count = int(torch.randint(MIN_MOTIFS, MAX_MOTIFS + 1, ()))
    scale = 0.5 + torch.rand(()).item()
    nodes = max(count + 1, int(TREE_NODES_PER_MOTIF * scale * count))
    edges = [_random_tree(nodes)]
    size = int(motif.max()) + 1
    for tree_node in torch.randperm(nodes)[:count].tolist():
        motif_node = nodes + int(torch.randint(0, size, (1,)))
        edges += [motif + nodes, torch.tensor([[tree_node], [motif_node]])]
        nodes += size
    edges.append(_random_edges(nodes))
    edge_index = torch.cat(edges, dim=1)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]  # without self-loops
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1)
    return Graph(edge_index=edge_index, num_nodes=nodes, y=torch.tensor([label]))


def _random_tree(nodes: int) -> Tensor:
    """Barabási and Albert's preferential attachment with one edge for each new node: [2, nodes].

    A node that draws itself gets a self-loop, as its only edge.
    """
    targets = torch.randperm(1).tolist()  # drawn although it is always 0
    for node in range(1, nodes):
        ends = [*range(node + 1), *targets]  # of all edges: nodes are drawn in proportion to their degrees
        targets += np.random.choice(ends, 1).tolist()
    return torch.stack([torch.arange(nodes), torch.tensor(targets)])


def _random_edges(nodes: int) -> Tensor:
    """About ``NOISE_EDGES_PER_NODE`` edges for each node, self-loops among them: [2, edges]."""
    count = int(torch.poisson(torch.tensor(NOISE_EDGES_PER_NODE * nodes)))
    return torch.randint(0, nodes, (2, count))
