"""InfoGraph with hard negatives on plain PyG graphs, beside PyG's DeepGraphInfomax: half a minute on a CPU.

    pip install . scikit-learn torch-geometric
    python examples/infograph_pyg.py --beta 1.0

The graphs are paths, combs, trees and stars with random edges. Prints the accuracy of a support vector
machine on the graphs' representations: untrained, by InfoGraphLoss, and by DeepGraphInfomax.
"""

import argparse

import torch
from hard_negatives import InfoGraphLoss
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, DeepGraphInfomax, GINConv, global_add_pool
from torch_geometric.utils import degree, to_undirected


def make_graphs(count: int) -> list[Data]:
    """Graphs of four classes with degrees as features, and a tenth more edges at random."""
    graphs = []
    for i in range(count):
        nodes, label = int(torch.randint(12, 25, ())), i % 4
        v = torch.arange(1, nodes)
        comb = (v - 1) // 2 * 2  # a path of the even nodes, each with a tooth
        parents = (v - 1, comb, (v - 1) // 2, torch.zeros_like(v))[label]  # path, comb, tree, star
        extra = torch.randint(0, nodes, (2, nodes // 10 + 1))
        edges = to_undirected(torch.cat([torch.stack([v, parents]), extra], dim=1), num_nodes=nodes)
        features = nn.functional.one_hot(degree(edges[0], nodes).long().clamp(max=9), 10).float()
        graphs.append(Data(x=features, edge_index=edges, y=label))
    return graphs


class GIN(nn.Module):
    """Node representations of three layers, concatenated: -> [nodes, 96]."""

    def __init__(self, features: int, hidden: int = 32) -> None:
        super().__init__()
        sizes = [features, hidden, hidden]
        self.layers = nn.ModuleList(GINConv(MLP([size, hidden, hidden])) for size in sizes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outputs = []
        for layer in self.layers:
            x = layer(x, edge_index).relu()
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def accuracy(encoder: nn.Module, graphs: list[Data]) -> float:
    """Of five folds, in percent."""
    batch = Batch.from_data_list(graphs)
    encoder.eval()  # batch norm has the statistics of training, not of these graphs
    with torch.no_grad():
        representations = global_add_pool(encoder(batch.x, batch.edge_index), batch.batch)
    encoder.train()
    return 100 * cross_val_score(SVC(), representations.numpy(), batch.y.numpy(), cv=5).mean()


def train_infograph(encoder: GIN, graphs: list[Data], beta: float, epochs: int) -> None:
    heads = [MLP([96, 96, 96], norm=None) for _ in range(2)]  # of nodes and of graphs
    objective = InfoGraphLoss(beta=beta, tau_plus=0.1)
    modules = nn.ModuleList([encoder, *heads])
    optimizer = torch.optim.Adam(modules.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in DataLoader(graphs, batch_size=64, shuffle=True):
            nodes = encoder(batch.x, batch.edge_index)
            pooled = global_add_pool(nodes, batch.batch)
            loss = objective(heads[0](nodes), heads[1](pooled), batch.batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def train_dgi(encoder: GIN, graphs: list[Data], epochs: int) -> None:
    model = DeepGraphInfomax(
        hidden_channels=96,
        encoder=encoder,
        summary=lambda z, *_: z.mean(dim=0).sigmoid(),
        corruption=lambda x, edge_index: (x[torch.randperm(len(x))], edge_index),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in DataLoader(graphs, batch_size=64, shuffle=True):
            loss = model.loss(*model(batch.x, batch.edge_index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(beta: float, epochs: int) -> None:
    torch.manual_seed(0)
    graphs = make_graphs(200)
    encoder = GIN(10)
    print(f"untrained {accuracy(encoder, graphs):.1f}")
    train_infograph(encoder, graphs, beta, epochs)
    print(f"InfoGraphLoss, beta {beta:g} {accuracy(encoder, graphs):.1f}")
    torch.manual_seed(0)
    encoder = GIN(10)
    train_dgi(encoder, graphs, epochs)
    print(f"DeepGraphInfomax {accuracy(encoder, graphs):.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beta", type=float, default=1.0, help="hardness; 0 is the debiased loss")
    parser.add_argument("--epochs", type=int, default=20)
    main(**vars(parser.parse_args()))
