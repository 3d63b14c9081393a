"""``graph.train_on``: PyG's ``Data`` objects in, the encoder out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data, InMemoryDataset

import graph
from core.io.errors import InputError
from graph.data import load_dataset
from graph.evaluate import main as evaluate_main
from tests.graph.conftest import write_tu_dataset
from tests.graph.test_graph_train import train
from tests.imports import outcomes
from tests.runs import failure_of, metrics_of, result_of

SETTINGS = {"epochs": 4, "batch_size": 10, "hidden": 8, "device": "cpu"}
RING = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])


@pytest.fixture
def tiny(tiny_root):
    """The graphs of TINY as PyG's, with features and classes."""
    graphs = load_dataset("TINY", tiny_root).graphs
    return [Data(x=item.x, edge_index=item.edge_index, y=item.y) for item in graphs]


def without(name, data):
    """PyG's graphs without one of their values; what has no features has a number of nodes."""
    return [
        Data(**{key: value for key, value in item if key != name} | {"num_nodes": item.num_nodes})
        for item in data
    ]


def same_weights(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_run_equals_the_command_s(tiny, tiny_root, tmp_path, capsys):
    """The same weights, losses and scores; settings differ in the name of the dataset alone."""
    expected = train(tiny_root, tmp_path / "command", "--objective", "debiased", "--seed", "3")
    encoder = graph.train_on(tiny, output_dir=tmp_path / "run", objective="debiased", seed=3, **SETTINGS)
    result = result_of(tmp_path / "run")
    assert same_weights(encoder, graph.load_encoder(tmp_path / "command"))
    for name in ("metrics", "untrained_metrics", "objective"):
        assert result[name] == expected[name]
    losses = [[line.get("loss") for line in metrics_of(tmp_path / run)] for run in ("run", "command")]
    assert losses[0] == losses[1]
    assert result["node_features"] == {"attributes": 3}
    ours, theirs = (json.loads((tmp_path / run / "config.json").read_text()) for run in ("run", "command"))
    assert {name for name in ours if ours[name] != theirs[name]} == {"dataset", "output_dir", "data_root"}
    assert f"svm_accuracy {result['metrics']['svm_accuracy']:.4f}" in capsys.readouterr().out


def test_graphs_without_labels_are_scored_without(tiny, tmp_path, capsys):
    expected = graph.train_on(tiny, **SETTINGS)
    encoder = graph.train_on(without("y", tiny), output_dir=tmp_path / "run", **SETTINGS)
    assert same_weights(encoder, expected)
    result = result_of(tmp_path / "run")
    assert result["labels"] == "none"
    assert "own_graph_accuracy" in result["metrics"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "y",
    [torch.tensor([0.5]), torch.tensor([[0.1, 0.2]]), torch.tensor([1, 0]), None],
    ids=["regression target", "several targets", "several classes", "one graph without"],
)
def test_graphs_that_do_not_all_have_a_class_are_scored_without_labels(tiny, tmp_path, y):
    tiny[5].y = y
    graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS)
    assert result_of(tmp_path / "run")["labels"] == "none"


def test_classes_may_be_any_integers(tiny, tmp_path):
    expected = graph.train_on(tiny, output_dir=tmp_path / "expected", **SETTINGS)
    for item in tiny:
        item.y = int(item.y) * 70 - 5
    assert same_weights(graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS), expected)
    assert result_of(tmp_path / "run")["metrics"] == result_of(tmp_path / "expected")["metrics"]


def test_graphs_without_features_get_degrees(tmp_path):
    """As the command gives to files without node labels; the encoder takes such graphs as they are."""
    write_tu_dataset(tmp_path, node_labels=False)
    train(tmp_path, tmp_path / "command")
    graphs = load_dataset("TINY", tmp_path).graphs
    data = [Data(edge_index=item.edge_index, y=item.y, num_nodes=item.num_nodes) for item in graphs]
    encoder = graph.train_on(data, output_dir=tmp_path / "run", **SETTINGS)
    assert same_weights(encoder, graph.load_encoder(tmp_path / "command"))
    assert encoder(Batch.from_data_list(data)).shape == (24, 24)
    assert result_of(tmp_path / "run")["node_features"] == {"max_degree": 5}


def test_degrees_can_replace_features(tiny):
    encoder = graph.train_on(tiny, node_features="degree", **SETTINGS)
    assert encoder.num_features == 6
    bare = [SimpleNamespace(edge_index=item.edge_index) for item in tiny]
    with torch.no_grad():
        assert all(torch.equal(encoder(item), encoder(other)) for item, other in zip(tiny, bare, strict=True))


def test_other_objects_than_pyg_s_are_taken(tiny):
    """Anything with ``edge_index``; nodes are counted by the edges if nothing else says how many."""
    bare = [SimpleNamespace(edge_index=item.edge_index) for item in tiny]
    encoder = graph.train_on(bare, **SETTINGS)
    assert same_weights(encoder, graph.train_on(without("x", without("y", tiny)), **SETTINGS))


def test_finished_run_is_loaded_and_other_graphs_are_refused(tiny, tmp_path):
    first = graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS)
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert same_weights(graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS), first)
    tiny[3].x = tiny[3].x.flip(1)
    with pytest.raises(
        InputError, match=r"holds a run of other settings \(dataset \"graphs-.*choose another"
    ):
        graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS)
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_dataset_of_pyg_is_taken_as_a_list_of_its_graphs(tiny, tmp_path):
    dataset = InMemoryDataset()
    dataset.data, dataset.slices = dataset.collate(tiny)
    expected = graph.train_on(tiny, **SETTINGS)
    assert same_weights(graph.train_on(dataset, **SETTINGS), expected)


def with_item(index, **values):
    """A change of one graph of TINY."""

    def change(data):
        for name, value in values.items():
            setattr(data[index], name, value)
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [], "`data` has 0 graphs; at least 2 are needed"),
        (lambda data: data[:1], "`data` has 1 graph; at least 2 are needed"),
        (lambda data: data[0], "`data` is a single graph; it must be a list of at least 2"),
        (lambda data: 24, "`data` is of type int; it must be a list of PyG's Data"),
        (lambda data: "mine", "`data` is of type str; it must be a list of PyG's Data"),
        (lambda data: [*data, "graph"], "graph 24 of `data` has no edge_index"),
        (with_item(3, x=None, num_nodes=4), "graph 0 of `data` has 3 features a node and graph 3 no x"),
        (
            with_item(3, x=torch.ones(5, 2)),
            "3 features a node and graph 3 2 features a node; they must agree",
        ),
        (with_item(3, x=torch.ones(5)), r"graph 3 .* has x of shape \[5\] .* it must be a tensor \[nodes"),
        (with_item(3, x=np.ones((4, 3))), "graph 3 of `data` has x of type ndarray; it must be a tensor"),
        (with_item(3, x=torch.ones(5, 0)), r"graph 3 of `data` has x of shape \[5, 0\]"),
        (with_item(3, x=torch.full((4, 3), torch.nan)), "graph 3 of `data` has x that is not finite"),
        (
            with_item(3, x=torch.ones(4, 3) * 1j),
            "x of .* type torch.complex64; it must be .* of real numbers",
        ),
        (with_item(3, x=torch.ones(6, 3), num_nodes=4), "x of 6 rows and num_nodes 4; they must agree"),
        (with_item(3, x=torch.ones(0, 3)), "graph 3 of `data` has no nodes"),
        (with_item(3, x=torch.ones(2, 3)), "graph 3 .* edges between nodes 0 to 3; its nodes are 0 to 1"),
        (with_item(3, edge_index=-RING), "graph 3 of `data` has edges between nodes -2 to 0"),
        (with_item(3, edge_index=RING.numpy()), "edge_index of type ndarray; a tensor .* is needed"),
        (with_item(3, edge_index=RING.T), r"graph 3 of `data` has edge_index of shape \[6, 2\]"),
        (with_item(3, edge_index=RING.float()), "type torch.float32; it must be integers"),
        (
            with_item(3, edge_index=RING[:, :5]),
            r"graph 3 of `data` has edge 2, 0 but not 0, 2 \(1 such\); graphs are undirected and list both",
        ),
        (with_item(3, y="toxic"), "graph 3 of `data` has y 'toxic'; a class must be an integer"),
        (with_item(3, y=np.array(["toxic"])), r"graph 3 of `data` has y .*toxic.*; a class must be an int"),
        (lambda data: data[:15], "class 1 has 7 samples; .* at least 10 of every class; remove y"),
        (
            lambda data: [item for item in data if item.y],
            "the labels have 1 class; at least 2 are needed to classify; remove y",
        ),
    ],
)
def test_invalid_graphs_are_an_error_that_names_them(tiny, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        graph.train_on(change(tiny), output_dir=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "`epoch` is not a setting of graph training; did you mean epochs"),
        ({"epochs": 0}, "`epochs` is 0"),
        ({"epochs": "many"}, '`epochs` is "many"; it must be int'),
        ({"dataset": "MUTAG"}, "`dataset` is MUTAG, but train_on takes `data` instead; leave it out"),
        ({"dataset": None}, "`dataset` is None, but train_on takes `data` instead"),
        ({"seeds": "0-9"}, "`seeds` is not a setting of train_on, which trains one encoder"),
        ({"node_features": "labels"}, "`node_features` is labels, but .* has no node labels; use auto"),
    ],
)
def test_invalid_settings_are_an_error(tiny, settings, message):
    with pytest.raises(InputError, match=message):
        graph.train_on(tiny, **settings)


def test_import_of_graph_imports_nothing_heavy():
    """Torch is imported at the first use of ``load_encoder`` or ``train_on``."""
    imported, _ = outcomes([], preload=["graph"])
    assert imported == set()


def test_graphs_that_were_given_are_not_looked_for(tiny, tmp_path, capsys):
    graph.train_on(tiny, output_dir=tmp_path / "run", **SETTINGS)
    capsys.readouterr()
    [line] = failure_of(evaluate_main, capsys, [str(tmp_path / "run"), "--data-root", str(tmp_path)])
    assert "was trained by train_on, on graphs that are in no file; result.json there has its scores" in line


def test_numpy_integers_are_classes(tiny, tmp_path):
    """As ints and tensors are: the run has an SVM's score."""
    as_numpy = [Data(x=item.x, edge_index=item.edge_index, y=item.y.numpy()) for item in tiny]
    as_scalars = [
        SimpleNamespace(x=item.x, edge_index=item.edge_index, y=np.int64(item.y.item())) for item in tiny
    ]
    expected = graph.train_on(tiny, output_dir=tmp_path / "tensors", **SETTINGS)
    for name, data in (("arrays", as_numpy), ("scalars", as_scalars)):
        assert same_weights(graph.train_on(data, output_dir=tmp_path / name, **SETTINGS), expected)
        assert result_of(tmp_path / name)["metrics"] == result_of(tmp_path / "tensors")["metrics"]
