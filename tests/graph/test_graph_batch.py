"""Merged nodes against PyG's layers on all nodes: values and gradients must be equal."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

from core import InfoGraphLoss
from graph.batch import SparseMatrix, SparseSum, make_batches
from graph.data import load_dataset
from graph.encoder import Head, InfoGraph, make_models, state_of_run
from graph.refinement import refine

CPU = torch.device("cpu")
SEEDS = (3, 5, 6)


@st.composite
def graphs(draw):
    nodes = draw(st.integers(1, 9))
    features = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=nodes, max_size=nodes)))
    ends = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = draw(st.sets(ends, max_size=20))
    return features, torch.tensor([*edges, *((b, a) for a, b in edges)]).reshape(-1, 2).T.long()


@given(graphs(), st.integers(0, 4))
def test_colours_are_equal_exactly_if_the_trees_of_neighbours_are(graph, rounds):
    features, edges = graph

    def tree(node: int, depth: int) -> tuple:
        if depth == 0:
            return (features[node].item(),)
        below = (tree(source, depth - 1) for source, target in edges.T.tolist() if target == node)
        return tree(node, depth - 1), tuple(sorted(below))

    colour = refine(features.float().unsqueeze(1), edges, rounds).tolist()
    trees = [tree(node, rounds) for node in range(len(features))]
    for a in range(len(trees)):
        for b in range(a):
            assert (colour[a] == colour[b]) == (trees[a] == trees[b])


class PlainGIN(nn.Module):
    """The encoder with PyG's layers, which computes every node."""

    def __init__(self, num_features: int, hidden: int, layers: int) -> None:
        super().__init__()
        sizes = [num_features] + [hidden] * (layers - 1)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for size in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in sizes)
        self.dim = hidden * layers

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        x, outputs = batch.x, []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            x = norm(torch.relu(mlp(GINConv(nn.Identity())(x, batch.edge_index))))
            outputs.append(x)
        nodes = torch.cat(outputs, dim=1)
        return nodes, global_add_pool(nodes, batch.batch)


def plain_model(models: InfoGraph, run: int, num_features: int, hidden: int, layers: int) -> InfoGraph:
    """A model with PyG's and torch's layers, and the weights of one run."""
    model = InfoGraph(PlainGIN(num_features, hidden, layers))
    for name in ("local_head", "global_head"):
        head = Head(hidden * layers)
        head.block = nn.Sequential(
            *[layer for _ in range(3) for layer in (nn.Linear(hidden * layers, hidden * layers), nn.ReLU())]
        )
        head.shortcut = nn.Linear(hidden * layers, hidden * layers)
        setattr(model, name, head)
    state = {name: value for name, value in state_of_run(models, run).items() if not name.startswith("prior")}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("prior") or name.endswith("num_batches_tracked") for name in missing)
    return model.double()


def in_double(batch):
    def convert(value):
        if isinstance(value, SparseSum):
            rows = value.matrix, value.transpose
            return SparseSum(*(SparseMatrix(first, columns, x.double()) for first, columns, x in rows))
        return value.double() if value.is_floating_point() else value

    values = {field.name: convert(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    for name, nodes in (("share", batch.count), ("weight", batch.count.squeeze(2))):
        values[name] = (values[name] * nodes).round() / nodes.double()
    return dataclasses.replace(batch, **values)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_runs_trained_together_equal_each_run_alone_in_pyg(tiny_root, training, variant):
    """Representations, losses, gradients and batch norm's statistics of three runs, in float64."""
    dataset = load_dataset("TINY", tiny_root)
    batch = in_double(make_batches(dataset, 10, SEEDS, CPU, layers=3)[1])
    models = make_models(dataset.num_features, 8, 3, SEEDS).double().train(training)
    plain = [plain_model(models, run, dataset.num_features, 8, 3).train(training) for run in range(3)]
    betas = [0.0, 1.0, 10.0]
    assert batch.sums.shape[1] < 30 < batch.count.min()  # equal nodes are computed once

    local, global_, graphs = models(batch)
    losses = InfoGraphLoss(betas, 0.1, variant=variant)(local, global_, batch.graph, batch.node, batch.weight)
    parameters = {name: p for name, p in models.named_parameters() if not name.startswith("prior")}
    gradients = dict(
        zip(parameters, torch.autograd.grad(losses.sum(), list(parameters.values())), strict=True)
    )
    for run, (model, beta) in enumerate(zip(plain, betas, strict=True)):
        positions = batch.positions[run].tolist()
        pyg_batch = Batch.from_data_list([Data(**vars(dataset.graphs[i])) for i in positions])
        pyg_batch.x = pyg_batch.x.double()
        one_local, one_global, one_graphs = model(pyg_batch)
        torch.testing.assert_close(graphs[run], one_graphs)
        loss = InfoGraphLoss(beta, 0.1, variant=variant)(one_local, one_global, pyg_batch.batch)
        torch.testing.assert_close(losses[run], loss)
        own = dict(model.named_parameters())
        alone = torch.autograd.grad(loss, [own[name] for name in gradients])
        for (name, gradient), wanted in zip(gradients.items(), alone, strict=True):
            torch.testing.assert_close(gradient[run], wanted, rtol=1e-6, atol=1e-9, msg=name)
        for name, buffer in models.named_buffers():
            torch.testing.assert_close(buffer[run], dict(model.named_buffers())[name])


def test_shares_and_weights_sum_to_one(tiny_root):
    for batch in make_batches(load_dataset("TINY", tiny_root), 10, SEEDS, CPU):
        for part in (batch.share.sum((1, 2)), batch.weight.sum(1)):
            torch.testing.assert_close(part, torch.ones(len(SEEDS)))


def test_sparse_sum_has_the_right_gradient(tiny_root):
    batch = in_double(make_batches(load_dataset("TINY", tiny_root), 24, SEEDS, CPU)[0])
    for sums in (batch.neighbours, batch.members):
        x = torch.randn(*batch.sums.shape[:2], 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(sums, (x,))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_sums_equal_the_dense_product_and_its_gradient(dtype, bound):
    """Also of rows without entries; ``bound`` is relative to the sum of the terms' absolute values."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 40, (300,), generator=generator)
    rows[rows % 7 == 0] = 1
    columns = torch.randint(0, 30, (300,), generator=generator)
    values = torch.randn(300, dtype=dtype, generator=generator)
    sums = SparseSum.from_entries(rows, columns, values, (40, 30))
    x = torch.randn(30, 5, dtype=dtype, generator=generator)
    weights = torch.randn(40, 5, dtype=dtype, generator=generator)

    dense = torch.zeros(40, 30, dtype=dtype).index_put_((rows, columns), values, accumulate=True)
    assert not dense.any(dim=1).all()
    for matrix, product, factor in ((dense, sums.matrix, x), (dense.T, sums.transpose, weights)):
        actual = product @ factor
        size = (matrix.abs() @ factor.abs()).amax()
        torch.testing.assert_close(actual, matrix @ factor, rtol=0, atol=bound * size.item())
        assert torch.equal(product @ factor, actual)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sums_have_the_bits_of_pytorchs_sparse_product(tiny_root):
    batch = make_batches(load_dataset("TINY", tiny_root), 10, SEEDS, CPU)[0]
    for sums in (batch.neighbours, batch.members):
        x = torch.randn(*batch.sums.shape[:2], 5)
        size = (len(sums.matrix.first) - 1, len(x.flatten(0, 1)))
        matrix = torch.sparse_csr_tensor(*sums.matrix, size=size, check_invariants=True)
        assert torch.equal(sums(x).flatten(0, 1), matrix @ x.flatten(0, 1))


def test_first_layer_takes_the_features_of_nodes_and_their_neighbours(tiny_root):
    """All the graphs in one batch: each node's sum by a loop over its edges."""
    dataset = load_dataset("TINY", tiny_root)
    [batch] = make_batches(dataset, 100, [0], CPU, layers=1)
    expected = {
        tuple((graph.x[node] + graph.x[graph.edge_index[0, graph.edge_index[1] == node]].sum(0)).tolist())
        for graph in dataset.graphs
        for node in range(graph.num_nodes)
    }
    assert {tuple(row) for row in batch.sums[0].tolist()} == expected


def test_batches_contain_every_graph_once_in_an_order_drawn_from_the_seed(tiny_root):
    dataset = load_dataset("TINY", tiny_root)
    batches = make_batches(dataset, 10, SEEDS, CPU)
    assert [batch.positions.shape for batch in batches] == [(3, 10), (3, 10), (3, 4)]
    positions = torch.cat([batch.positions for batch in batches], dim=1)
    for run, seed in enumerate(SEEDS):
        assert sorted(positions[run].tolist()) == list(range(24))
        alone = torch.cat([batch.positions[0] for batch in make_batches(dataset, 10, [seed], CPU)])
        assert positions[run].tolist() == alone.tolist()
    assert len({tuple(order) for order in positions.tolist()}) == 3


def test_last_batch_of_a_single_graph_is_merged_with_the_one_before(tiny_root):
    dataset = load_dataset("TINY", tiny_root)
    for batch_size, sizes in ((23, [24]), (8, [8, 8, 8])):
        batches = make_batches(dataset, batch_size, SEEDS, CPU)
        assert [batch.positions.shape[1] for batch in batches] == sizes
