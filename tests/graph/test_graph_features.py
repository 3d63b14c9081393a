"""What the encoder knows of a node: labels, attributes, both or the degree."""

import json

import pytest
import torch
from torch_geometric.io import read_tu_data
from torch_geometric.utils import degree

from core.io.errors import InputError
from graph.config import GraphConfig
from graph.data import load_dataset
from graph.evaluate import main as evaluate_main
from graph.features import Coding, NodeValues, fit_coding
from graph.train import main as train_main
from tests.graph.conftest import write_attributes, write_tu_dataset
from tests.graph.test_graph_train import FAST, train, train_failure
from tests.runs import as_printed, failure_of, interrupted_before_step, printed_scores


def all_features(dataset):
    return torch.cat([graph.x for graph in dataset.graphs])


@pytest.fixture
def root(tiny_root):
    """A data root with TINY with attributes."""
    write_attributes(tiny_root)
    return tiny_root


def read_by_pyg(data_root, name):
    """PyG's features of all nodes, attributes first, and how many of them are attributes."""
    data, _, sizes = read_tu_data(str(data_root / "TUDataset" / name / "raw"), name)
    return data.x, sizes["num_node_attributes"]


def assert_equal_to_pyg(data_root, name):
    expected, attributes = read_by_pyg(data_root, name)
    for wanted, part in (
        ("both", expected),
        ("attributes", expected[:, :attributes]),
        ("labels", expected[:, attributes:]),
        ("auto", expected[:, attributes:]),
    ):
        assert torch.equal(all_features(load_dataset(name, data_root, node_features=wanted)), part)


def test_features_equal_pyg_s(root):
    assert_equal_to_pyg(root, "TINY")


@pytest.mark.data("TUDataset/ENZYMES")
def test_features_of_enzymes_equal_pyg_s(data_root):
    assert_equal_to_pyg(data_root, "ENZYMES")


def test_degrees_are_used_where_there_are_labels_too(root):
    dataset = load_dataset("TINY", root, node_features="degree")
    for graph in dataset.graphs:
        torch.testing.assert_close(graph.x.argmax(1).float(), degree(graph.edge_index[0], graph.num_nodes))
    assert dataset.coding == Coding(max_degree=5)


def test_auto_does_not_read_attributes(root):
    (root / "TUDataset" / "TINY" / "raw" / "TINY_node_attributes.txt").write_text("?\n" * 120)
    assert load_dataset("TINY", root).num_features == 3
    assert load_dataset("TINY", root, node_features="degree").num_features == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1.5, 2\n" * 119 + "nan, 2\n", "line 120 is 'nan, 2'; each line must have 2 numbers"),
        ("1e39\n" * 120, "line 1: an attribute is not a finite number in float32"),
        ("1.5, 2\n" * 119 + "1.5\n", "line 120 is '1.5'; each line must have 2 numbers, as line 1 has"),
        (".5\n" * 60 + "x\n" * 60, "line 61 is 'x'; each line must have 1 number, as line 1 has"),
        ("1.5\n" * 119, "TINY_node_attributes.txt has 119 lines; it must have 120"),
    ],
)
def test_damaged_attributes_are_an_error_that_names_the_line(root, content, message):
    (root / "TUDataset" / "TINY" / "raw" / "TINY_node_attributes.txt").write_text(content)
    with pytest.raises(InputError) as error:
        load_dataset("TINY", root, node_features="attributes")
    assert message in str(error.value)


def test_features_that_a_dataset_lacks_are_an_error(tmp_path, capsys):
    write_tu_dataset(tmp_path, node_labels=False)
    for wanted, kind in (("labels", "labels"), ("attributes", "attributes"), ("both", "labels")):
        message = train_failure(capsys, tmp_path, tmp_path / "run", "--node-features", wanted)
        assert f"--node-features is {wanted}, but --dataset 'TINY' has no node {kind}; use auto" in message
    with pytest.raises(InputError, match=r"`dataset` 'motifs' has no node attributes"):
        load_dataset("motifs", tmp_path, node_features="attributes")


@pytest.mark.parametrize(
    ("wanted", "coding"),
    [
        ("auto", {"lowest": [0], "widths": [3]}),
        ("both", {"attributes": 2, "lowest": [0], "widths": [3]}),
        ("attributes", {"attributes": 2}),
        ("degree", {"max_degree": 5}),
    ],
)
def test_run_records_its_features_and_evaluates_with_them(root, tmp_path, capsys, wanted, coding):
    result = train(root, tmp_path / "run", "--node-features", wanted)
    assert result["node_features"] == coding
    assert result["objective"]["encoder"] == (None if wanted == "auto" else f"features-{wanted}")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["node_features"] == wanted
    flags = [tmp_path / "run", "--data-root", root, "--device", "cpu"]
    assert printed_scores(evaluate_main, capsys, flags) == as_printed(result["metrics"])


def test_evaluate_codes_labels_as_training_did(root, tmp_path, capsys):
    """After all labels moved up by one a new coding would give the same features, and so a score."""
    train(root, tmp_path / "run")
    path = root / "TUDataset" / "TINY" / "raw" / "TINY_node_labels.txt"
    path.write_text("".join(f"{int(label) + 1}\n" for label in path.read_text().split()))
    flags = [tmp_path / "run", "--data-root", root, "--device", "cpu"]
    line = failure_of(evaluate_main, capsys, map(str, flags))[-1]
    assert "TINY has node label 3; the encoder was trained with labels 0 to 2" in line


def test_labels_that_have_become_too_few_to_evaluate_are_named_with_their_dataset(root, tmp_path, capsys):
    train(root, tmp_path / "run")
    path = root / "TUDataset" / "TINY" / "raw" / "TINY_graph_labels.txt"
    count = len(path.read_text().split())
    path.write_text("1\n" * (count - 5) + "2\n" * 5)
    flags = [tmp_path / "run", "--data-root", root, "--device", "cpu"]
    line = failure_of(evaluate_main, capsys, map(str, flags))[-1]
    assert line.startswith("error: TINY: class 1 has 5 samples")
    assert line.endswith("remove its _graph_labels.txt to train and score without labels")


def test_single_graph_is_not_evaluated(tmp_path, capsys):
    """A graph has no negatives alone."""
    write_tu_dataset(tmp_path / "before")
    train(tmp_path / "before", tmp_path / "run")
    write_tu_dataset(tmp_path / "after", graphs=1)
    flags = [str(tmp_path / "run"), "--data-root", str(tmp_path / "after"), "--device", "cpu"]
    assert "TINY has 1 graph; at least 2 are needed" in failure_of(evaluate_main, capsys, flags)[-1]


def test_features_are_part_of_the_run_s_identity(root, tmp_path, capsys):
    train(root, tmp_path / "run")
    message = train_failure(capsys, root, tmp_path / "run", "--node-features", "both")
    assert 'node-features "auto" there, "both" now' in message
    names = {
        GraphConfig(beta=1.0, tau_plus=0.1, node_features=wanted).folder().parts[-2]
        for wanted in ("auto", "labels", "attributes", "both", "degree")
    }
    assert len(names) == 5
    assert "hard-beta1-tau0.1" in names  # as before there were others


def test_run_does_not_resume_with_other_attributes(root, tmp_path, capsys):
    flags = ["--node-features", "attributes", "--checkpoint-seconds", "0"]
    with interrupted_before_step(8):
        train_main([*FAST, "--data-root", str(root), "--output-dir", str(tmp_path / "run"), *flags])
    path = root / "TUDataset" / "TINY" / "raw" / "TINY_node_attributes.txt"
    path.write_text(path.read_text().replace("119, 14", "119, 15"))
    capsys.readouterr()
    message = train_failure(capsys, root, tmp_path / "run", *flags, "--resume")
    assert "the data are not those that the run in" in message
    assert "nodes" in message


@pytest.mark.parametrize(
    ("coding", "values", "message"),
    [
        (
            Coding(lowest=(1,), widths=(3,)),
            NodeValues(torch.tensor([[1], [4]])),
            "node label 4; .* labels 1 to 3",
        ),
        (
            Coding(lowest=(1,), widths=(3,)),
            NodeValues(torch.tensor([[0], [1]])),
            "node label 0; .* labels 1 to 3",
        ),
        (Coding(lowest=(0,), widths=(2,)), NodeValues(), "has 0 columns of node labels; the encoder takes 1"),
        (
            Coding(attributes=3),
            NodeValues(attributes=torch.ones(2, 2)),
            "2 node attributes; the encoder takes 3",
        ),
        (Coding(attributes=3), NodeValues(), "has 0 node attributes; the encoder takes 3"),
        (
            Coding(max_degree=1),
            NodeValues(),
            "a node of degree 2; the encoder was trained with degrees up to 1",
        ),
    ],
)
def test_values_that_an_encoder_does_not_know_are_an_error(coding, values, message):
    with pytest.raises(InputError, match=message):
        coding.features(values, torch.tensor([1, 2]), "NEW")


def test_coding_survives_a_record():
    for coding in (
        Coding(attributes=2, lowest=(-1, 0), widths=(3, 1)),
        Coding(max_degree=0),
        Coding(mean=0.0, std=1.5),
    ):
        assert Coding.from_dict(json.loads(json.dumps(coding.as_dict()))) == coding
    with pytest.raises(InputError, match='`max_degree` is "many"'):
        Coding.from_dict({"max_degree": "many"})


def test_equal_degrees_of_a_thousand_are_finite_features():
    """Standardised degrees have deviation 0 there."""
    degrees = torch.full((2002,), 1000)
    coding = fit_coding("degree", NodeValues(), degrees, "one")
    assert (coding.features(NodeValues(), degrees, "one") == 0).all()
