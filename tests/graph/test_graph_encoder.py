"""The encoder against PyG's own layers."""

import pytest
import torch
from torch_geometric.nn import GINConv, global_add_pool

from graph.data import load_dataset, make_batches
from graph.encoder import GIN, InfoGraph, neighbour_sum


@pytest.fixture
def batch(tiny_root):
    return make_batches(load_dataset("TINY", tiny_root), 24, 0, torch.device("cpu"))[0]


@pytest.mark.parametrize("training", [True, False])
def test_equals_pyg(batch, training):
    """GINConv along edges, ReLU, batch norm, sum pooling of every layer: value and gradient."""
    torch.manual_seed(0)
    encoder = GIN(3, hidden=8, layers=3).double().train(training)
    edges = batch.adjacency.to_dense().nonzero().T
    features = batch.features.double()
    double = type(batch)(features, batch.adjacency.double(), batch.graph, batch.positions)
    nodes, graphs = encoder(double)

    x, pooled = features, []
    for mlp, norm in zip(encoder.mlps, encoder.norms, strict=True):
        x = norm(torch.relu(mlp(GINConv(torch.nn.Identity())(x, edges))))
        pooled.append(global_add_pool(x, batch.graph))
    torch.testing.assert_close(nodes[:, -8:], x)
    torch.testing.assert_close(graphs, torch.cat(pooled, dim=1))
    weights = torch.randn_like(graphs)
    parameters = list(encoder.parameters())
    ours = torch.autograd.grad((graphs * weights).sum(), parameters)
    theirs = torch.autograd.grad((torch.cat(pooled, dim=1) * weights).sum(), parameters)
    for actual, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_gradient_of_neighbour_sum(batch):
    x = torch.randn(batch.features.shape[0], 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: neighbour_sum(x, batch.adjacency.double()), (x,))


def test_shapes_and_start(batch):
    torch.manual_seed(0)
    model = InfoGraph(GIN(3, hidden=8, layers=2))
    local, global_, graphs = model(batch)
    assert local.shape == (120, 16)
    assert global_.shape == graphs.shape == (24, 16)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            assert 0.5 * bound < module.weight.abs().max() <= bound
            assert (module.bias == 0).all()


def test_prior_is_log_two_each_for_an_indifferent_discriminator(batch):
    prior = InfoGraph(GIN(3, hidden=8, layers=2)).prior
    torch.nn.init.zeros_(prior.logit[-1].weight)
    assert prior(torch.randn(5, 16)).item() == pytest.approx(2 * torch.tensor(2.0).log().item())
