"""The built-in graphs against PyG's generators: equal bit for bit."""

import networkx as nx
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.datasets.motif_generator import CustomMotif, CycleMotif, HouseMotif
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from core.training.seeding import seeded
from graph.motifs import make_motifs


def pyg_graph(motif: CustomMotif) -> Data:
    count = int(torch.randint(2, 21, ()))
    scale = 0.5 + torch.rand(()).item()
    tree = BAGraph(max(count + 1, int(2.0 * scale * count)), num_edges=1)
    graph = ExplainerDataset(tree, motif, num_motifs=count)[0]
    noise = torch.randint(0, graph.num_nodes, (2, int(torch.poisson(torch.tensor(0.3 * graph.num_nodes)))))
    noise = to_undirected(remove_self_loops(noise)[0])
    return Data(edge_index=coalesce(torch.cat([graph.edge_index, noise], 1)), num_nodes=graph.num_nodes)


def test_motifs_equal_those_of_pyg():
    motifs = [CustomMotif(nx.path_graph(5)), CustomMotif(nx.star_graph(4)), CycleMotif(5), HouseMotif()]
    motifs.append(CustomMotif(nx.complete_graph(4)))
    with seeded(0):
        expected = [pyg_graph(motif) for motif in motifs for _ in range(30)]
    graphs = make_motifs(0)
    assert [int(graph.y) for graph in graphs] == [label for label in range(5) for _ in range(30)]
    for graph, reference in zip(graphs, expected, strict=True):
        assert graph.num_nodes == reference.num_nodes
        assert torch.equal(graph.edge_index, reference.edge_index)
