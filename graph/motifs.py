"""The embedded graph dataset: random trees with copies of one of five motifs."""

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.datasets.motif_generator import CustomMotif, CycleMotif, HouseMotif, MotifGenerator
from torch_geometric.utils import coalesce

from core.training.seeding import seeded

GRAPHS_PER_CLASS = 30
MIN_MOTIFS, MAX_MOTIFS = 2, 20
TREE_NODES_PER_MOTIF = 2.0
# Expected number of random edges for each node. Without them an untrained encoder separates the classes.
NOISE_EDGES_PER_NODE = 0.3


def make_motifs(seed: int = 0) -> list[Data]:
    """30 graphs for each of five classes: a tree with 2 to 20 copies of the class's motif, and random edges.

    The motifs are a path, a star, a cycle and a house of five nodes, and the complete graph of four. Sizes
    vary as much within a class as between classes. Nodes have no features; ``y`` is the class.
    """
    motifs = (
        CustomMotif(nx.path_graph(5)),
        CustomMotif(nx.star_graph(4)),
        CycleMotif(5),
        HouseMotif(),
        CustomMotif(nx.complete_graph(4)),
    )
    with seeded(seed):
        return [
            _graph_with(motif, label) for label, motif in enumerate(motifs) for _ in range(GRAPHS_PER_CLASS)
        ]


def _graph_with(motif: MotifGenerator, label: int) -> Data:
    count = int(torch.randint(MIN_MOTIFS, MAX_MOTIFS + 1, ()))
    scale = 0.5 + torch.rand(()).item()
    tree = BAGraph(max(count + 1, int(TREE_NODES_PER_MOTIF * scale * count)), num_edges=1)
    graph = ExplainerDataset(tree, motif, num_motifs=count)[0]
    edges = torch.cat([graph.edge_index, _random_edges(graph.num_nodes)], dim=1)
    return Data(edge_index=coalesce(edges), num_nodes=graph.num_nodes, y=torch.tensor([label]))


def _random_edges(nodes: int) -> Tensor:
    """About ``NOISE_EDGES_PER_NODE`` undirected edges for each node, without self-loops: [2, edges]."""
    count = int(torch.poisson(torch.tensor(NOISE_EDGES_PER_NODE * nodes)))
    ends = torch.randint(0, nodes, (2, count))
    ends = ends[:, ends[0] != ends[1]]
    return torch.cat([ends, ends.flip(0)], dim=1)
