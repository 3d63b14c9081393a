"""Graphs with self-loops and repeated edges, without edges or nodes, and values that float32 cannot tell."""

from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Batch, Data

import graph
from graph.data import load_dataset
from graph.graphs import simple_edges
from graph.train import main as train_main
from graph.training import dataset_of
from tests.graph.conftest import write_tu_dataset
from tests.runs import failure_of

SETTINGS = {"epochs": 2, "batch_size": 10, "hidden": 8, "device": "cpu"}
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
ODD_PATH = torch.tensor([[0, 0, 1, 2, 0, 1, 2, 2], [1, 0, 0, 2, 1, 2, 1, 2]])  # with loops and repeats


def stars(size=3):
    """Stars of 3 to 14 nodes, their edges at a time in one direction."""
    for nodes in range(size, size + 12):
        rays = torch.stack([torch.zeros(nodes - 1, dtype=torch.long), torch.arange(1, nodes)])
        yield torch.cat([rays, rays.flip(0)], dim=1)


def odd(edge_index):
    """The same edges, one of them three times, and a self-loop."""
    return torch.cat([edge_index, edge_index[:, :1], torch.tensor([[1], [1]]), edge_index[:, :1]], dim=1)


def write_files(folder, graphs):
    """Write graphs as they are, in the text format of the TUDatasets."""
    folder.mkdir()
    edges, indicator, first = [], [], 1
    for number, item in enumerate(graphs, 1):
        edges += [f"{a}, {b}\n" for a, b in (item.edge_index + first).T.tolist()]
        indicator += [f"{number}\n"] * item.num_nodes
        first += item.num_nodes
    (folder / "ODD_A.txt").write_text("".join(edges))
    (folder / "ODD_graph_indicator.txt").write_text("".join(indicator))


@pytest.fixture(scope="module")
def of_degrees():
    """An encoder of degrees up to 13."""
    return graph.train_on([SimpleNamespace(edge_index=edges) for edges in stars()], **SETTINGS)


@pytest.fixture(scope="module")
def of_features():
    """An encoder of two features a node."""
    data = [
        SimpleNamespace(edge_index=edges, x=torch.eye(2)[torch.arange(edges.shape[1] // 2 + 1) % 2])
        for edges in stars()
    ]
    return graph.train_on(data, **SETTINGS)


def test_simple_edges_keep_their_order():
    assert simple_edges(ODD_PATH).tolist() == PATH.tolist()
    assert simple_edges(PATH.flip(1)).tolist() == PATH.flip(1).tolist()
    assert simple_edges(torch.tensor([[2], [2]])).shape == (2, 0)
    assert simple_edges(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0)


def test_files_and_python_have_the_same_graphs(tmp_path):
    """Self-loops and repeats are dropped from both, so that degrees, vectors and weights are equal."""
    given = [SimpleNamespace(edge_index=odd(e), num_nodes=int(e.max()) + 1) for e in stars()]
    write_files(tmp_path / "odd", given)
    from_files = load_dataset(f"folder:{tmp_path / 'odd'}", tmp_path)
    from_python = dataset_of(given)
    for ours, theirs in zip(from_python.graphs, from_files.graphs, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert {*map(tuple, ours.edge_index.T.tolist())} == {*map(tuple, theirs.edge_index.T.tolist())}
        assert ours.edge_index.shape == theirs.edge_index.shape


def test_edge_that_is_there_twice_in_one_direction_is_one_edge():
    twice = [SimpleNamespace(edge_index=torch.tensor([[0, 0, 1], [1, 1, 0]]))] * 2
    assert all(item.edge_index.tolist() == [[0, 1], [1, 0]] for item in dataset_of(twice).graphs)


def test_encoder_drops_self_loops_and_repeats(of_degrees, of_features):
    x = torch.eye(2)[torch.tensor([0, 1, 0])]
    with torch.no_grad():
        for encoder in (of_degrees, of_features):
            expected = encoder(Data(x=x, edge_index=PATH))
            torch.testing.assert_close(encoder(Data(x=x, edge_index=ODD_PATH)), expected)
        both = Batch.from_data_list([Data(x=x, edge_index=ODD_PATH), Data(x=x, edge_index=PATH)])
        torch.testing.assert_close(of_features(both), expected.expand(2, -1))
        torch.testing.assert_close(of_features(x, ODD_PATH), expected)


def test_node_with_a_self_loop_alone_is_a_node(of_degrees):
    loop = torch.tensor([[0, 1, 2], [1, 0, 2]])
    with torch.no_grad():
        expected = of_degrees(SimpleNamespace(edge_index=loop[:, :2], num_nodes=3))
        torch.testing.assert_close(of_degrees(SimpleNamespace(edge_index=loop)), expected)


@pytest.mark.parametrize("batch", [None, torch.empty(0, dtype=torch.long)], ids=["graph", "batch"])
def test_graph_without_nodes_is_named(of_degrees, of_features, batch):
    nothing = torch.empty(2, 0, dtype=torch.long)
    for encoder, width in ((of_degrees, of_degrees.num_features), (of_features, 2)):
        for x in (None, torch.ones(0, width)):
            if x is None and encoder is of_features:
                continue
            with pytest.raises(ValueError, match=r"^the graph has no nodes; at least 1 is needed$"):
                encoder(SimpleNamespace(x=x, edge_index=nothing, batch=batch, num_nodes=0))


def test_list_of_graphs_is_refused_with_what_to_do(of_features):
    data = [Data(x=torch.ones(3, 2), edge_index=PATH)] * 2
    with pytest.raises(ValueError, match=r"got a list without edge_index; .* Batch.from_data_list makes"):
        of_features(data)
    with pytest.raises(ValueError, match="got a Data without edge_index"):
        of_features(Data(x=torch.ones(3, 2)))
    assert of_features(Batch.from_data_list(data)).shape == (2, of_features.dim)


def test_tau_plus_that_is_1_in_float32_is_refused(tmp_path, capsys):
    flags = ["--output-dir", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu", "--tau-plus"]
    [line] = failure_of(train_main, capsys, [*flags, "0.99999999"])
    assert line == "error: --tau-plus is 0.99999999; it must be at least 0 and below 1 (0.99999994 at most)"
    assert not (tmp_path / "run").exists()


def test_files_without_any_edge_are_named(tmp_path, capsys):
    raw = write_tu_dataset(tmp_path, graphs=4)
    (raw / "TINY_A.txt").write_text("\n")
    flags = ["--dataset", f"folder:{raw}", "--output-dir", str(tmp_path / "run")]
    [line] = failure_of(train_main, capsys, flags)
    assert line.endswith("TINY_A.txt is damaged: it has no edges; at least one graph must have some")
