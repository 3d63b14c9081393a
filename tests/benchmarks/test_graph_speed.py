"""The slow twins of the graph benchmark compute what ours computes."""

import torch
from torch_geometric.data import Batch

from benchmarks.graph_speed import SlowGIN, slow_objective
from core import InfoGraphLoss
from graph.data import load_dataset, make_batches
from graph.encoder import GIN


def test_twins_agree():
    dataset = load_dataset("motifs", None)
    batch = make_batches(dataset, 16, 0, torch.device("cpu"))[0]
    torch.manual_seed(0)
    encoder = GIN(dataset.num_features).eval()
    pyg = Batch.from_data_list([dataset.graphs[i] for i in batch.positions.tolist()])
    nodes, graphs = encoder(batch)
    slow_nodes, slow_graphs = SlowGIN(encoder)(pyg)
    torch.testing.assert_close(slow_nodes, nodes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slow_graphs, graphs, rtol=1e-4, atol=1e-3)
    local, global_ = torch.randn(len(batch.graph), 8), torch.randn(len(batch), 8)
    ours = InfoGraphLoss(0.0, 0.0)(local, global_, batch.graph)
    torch.testing.assert_close(slow_objective(local, global_, batch.graph), ours, rtol=1e-5, atol=1e-6)
