"""What a run saves for figures belongs together: graphs, their vectors and their labels."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch_geometric.data import Batch, Data

from graph.data import load_dataset
from graph.evaluate import main as evaluate_main
from graph.loading import load_encoder
from graph.train import main as train_main
from tests.graph.conftest import remove_labels, write_attributes
from tests.graph.test_graph_train import train, train_group
from tests.runs import as_printed, printed_scores, result_of


def sample_of(run):
    return load_file(run / "sample.safetensors")


@torch.no_grad()
def vectors_of(run, dataset):
    """The saved encoder's vectors of a dataset's graphs, without merged nodes."""
    graphs = [Data(x=item.x, edge_index=item.edge_index) for item in dataset.graphs]
    return load_encoder(run)(Batch.from_data_list(graphs))


def graphs_of(sample, vectors):
    """The graph of each sampled representation, among graphs that all have vectors of their own."""
    distances = (sample["representations"].unsqueeze(1) - vectors).abs().amax(dim=2)
    nearest, chosen = distances.min(dim=1)
    assert nearest.max() < 1e-4 * vectors.abs().max()
    assert len(set(chosen.tolist())) == len(chosen)
    return chosen


@pytest.mark.parametrize("sampled", [9, 500])
def test_sampled_representations_have_the_labels_of_their_graphs(tiny_root, tmp_path, monkeypatch, sampled):
    """Whichever graphs of a larger dataset are taken, and where all are."""
    monkeypatch.setattr("graph.scoring.SAMPLED", sampled)
    write_attributes(tiny_root)  # that tell all graphs apart
    train(tiny_root, tmp_path / "run", "--node-features", "attributes")
    dataset = load_dataset("TINY", tiny_root, node_features="attributes")
    sample = sample_of(tmp_path / "run")
    graphs = graphs_of(sample, vectors_of(tmp_path / "run", dataset))
    assert len(graphs) == min(sampled, 24)
    assert sample["labels"].tolist() == dataset.labels[graphs].tolist()


def test_shown_graphs_have_the_vectors_of_the_saved_encoder(tiny_root, tmp_path):
    """Of two runs trained together, each of which shows graphs of its own first batch."""
    remove_labels(tiny_root)  # without an SVM training is fast
    train_group(tiny_root, tmp_path / "{seed}", "--seeds", "0,1", "--node-features", "degree")
    samples = [sample_of(tmp_path / seed) for seed in ("0", "1")]
    for seed, sample in enumerate(samples):
        shown = SimpleNamespace(edge_index=sample["shown_edges"].long(), batch=sample["shown_nodes"].long())
        with torch.no_grad():
            expected = load_encoder(tmp_path / str(seed))(shown)
        assert len(expected) == 10
        torch.testing.assert_close(sample["shown_after"], expected, rtol=1e-4, atol=1e-4)
        assert (sample["shown_after"] - sample["shown_before"]).abs().max() > 0.1
    assert not torch.equal(samples[0]["shown_nodes"], samples[1]["shown_nodes"])


def write_paths(data_root, sizes=range(12, 18)):
    """Write paths of these numbers of nodes, without labels."""
    raw = data_root / "TUDataset" / "PATHS" / "raw"
    raw.mkdir(parents=True)
    indicator = [graph for graph, size in enumerate(sizes, 1) for _ in range(size)]
    pairs = [(a, a + 1) for a in range(1, len(indicator)) if indicator[a - 1] == indicator[a]]
    (raw / "PATHS_A.txt").write_text("".join(f"{a}, {b}\n{b}, {a}\n" for a, b in pairs))
    (raw / "PATHS_graph_indicator.txt").write_text("".join(f"{graph}\n" for graph in indicator))


def test_five_layers_tell_nodes_of_paths_apart_in_training_and_evaluation(tmp_path, capsys):
    """Nodes merged as for fewer layers would have other vectors, and so other scores."""
    write_paths(tmp_path)
    where = ["--data-root", str(tmp_path), "--device", "cpu"]
    flags = ["--dataset", "PATHS", "--layers", "5", "--epochs", "2", "--batch-size", "3", "--hidden", "8"]
    train_main([*flags, *where, "--output-dir", str(tmp_path / "run")])
    vectors = vectors_of(tmp_path / "run", load_dataset("PATHS", tmp_path))
    assert len(graphs_of(sample_of(tmp_path / "run"), vectors)) == 6
    expected = as_printed(result_of(tmp_path / "run")["metrics"])
    assert printed_scores(evaluate_main, capsys, [tmp_path / "run", *where]) == expected
