"""``graph.embed``: the vectors of graphs in a file."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch_geometric.data import Batch, Data

import graph
from graph import embedding
from graph.data import load_dataset
from graph.embed import main as embed_main
from shared_eval.probes import svm_accuracy
from tests.graph.conftest import write_attributes, write_tu_dataset
from tests.graph.test_graph_train import train, train_group
from tests.runs import as_command, failure_of, result_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data root with TINY, and in it the run of an encoder."""
    root = tmp_path_factory.mktemp("data")
    write_tu_dataset(root)
    train(root, root / "run")
    return root


def embed(root, output, *flags, dataset="TINY", run="run"):
    embed_main(
        [*map(str, (root / run, dataset, "--output", output, "--data-root", root)), "--device", "cpu", *flags]
    )


def failure(capsys, root, output, *flags, dataset="TINY", run="run"):
    words = [root / run, dataset, "--output", output, "--data-root", root, "--device", "cpu", *flags]
    [line] = failure_of(embed_main, capsys, [str(word) for word in words])
    return line


def expected_of(root, run="run", name="TINY"):
    dataset = load_dataset(name, root)
    batch = Batch.from_data_list([Data(x=item.x, edge_index=item.edge_index) for item in dataset.graphs])
    with torch.no_grad():
        return graph.load_encoder(root / run)(batch).numpy()


def test_file_has_a_row_for_each_graph(trained, tmp_path, capsys):
    embed(trained, tmp_path / "x.parquet")
    assert capsys.readouterr().out == f"{tmp_path / 'x.parquet'}: 24 embeddings\n"
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert list(table.columns) == ["id", "label", "embedding"]
    assert table["id"].tolist() == list(range(24))
    in_file = (trained / "TUDataset" / "TINY" / "raw" / "TINY_graph_labels.txt").read_text()
    assert table["label"].tolist() == [int(line) for line in in_file.split()]  # -1 and 1
    np.testing.assert_allclose(np.stack(table["embedding"]), expected_of(trained), rtol=1e-5, atol=1e-5)


def test_projections_are_those_of_the_global_head(trained, tmp_path, capsys):
    """By the head's equation in NumPy, from the vectors and the weights in the run's folder."""
    embed(trained, tmp_path / "x.npz")
    embed(trained, tmp_path / "p.npz", "--projections")
    vectors, projections = (np.load(tmp_path / name)["embedding"] for name in ("x.npz", "p.npz"))
    weights = load_file(trained / "run" / "heads.safetensors")

    def linear(x, name):
        return x @ weights[f"global.{name}.weight"].T + weights[f"global.{name}.bias"]

    hidden = vectors
    for layer in (0, 2, 4):
        hidden = np.maximum(linear(hidden, f"block.{layer}"), 0)
    expected = hidden + linear(vectors, "shortcut")
    np.testing.assert_allclose(projections, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    shutil.copytree(trained / "run", tmp_path / "older")
    (tmp_path / "older" / "heads.safetensors").unlink()
    line = failure(capsys, trained, tmp_path / "y.npz", "--projections", run=tmp_path / "older")
    assert line.startswith(f"error: --projections need {tmp_path / 'older' / 'heads.safetensors'}")
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "csv"])
def test_other_formats_have_the_same_vectors(trained, tmp_path, suffix):
    output = tmp_path / f"x.{suffix}"
    embed(trained, output)
    if suffix == "csv":
        vectors = pd.read_csv(output).filter(like="embedding_").to_numpy()
    else:
        vectors = (np.load(output) if suffix == "npz" else load_file(output))["embedding"]
    np.testing.assert_allclose(vectors, expected_of(trained), rtol=1e-5, atol=1e-5)


def test_batches_do_not_change_the_rows(trained, tmp_path, monkeypatch):
    """Of one, two and three graphs."""
    embed(trained, tmp_path / "whole.npz")
    for nodes in (11, 4):
        monkeypatch.setattr(embedding, "BATCH_NODES", nodes)
        embed(trained, tmp_path / f"{nodes}.npz")
        whole, parts = (np.load(tmp_path / f"{name}.npz") for name in ("whole", nodes))
        assert parts["id"].tolist() == whole["id"].tolist()
        assert parts["label"].tolist() == whole["label"].tolist()
        np.testing.assert_allclose(parts["embedding"], whole["embedding"], rtol=1e-5, atol=1e-5)


def test_graphs_without_labels_from_a_folder_keep_their_numbers(trained, tmp_path):
    """The files lie in the folder itself; graph 3 has no nodes and is left out."""
    folder = tmp_path / "mine"
    shutil.copytree(trained / "TUDataset" / "TINY" / "raw", folder)
    (folder / "TINY_graph_labels.txt").unlink()
    indicator = folder / "TINY_graph_indicator.txt"
    lines = [int(line) + (int(line) > 3) for line in indicator.read_text().split()]
    indicator.write_text("".join(f"{line}\n" for line in lines))
    embed(trained, tmp_path / "x.parquet", dataset=f"folder:{folder}")
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert list(table.columns) == ["id", "embedding"]
    assert table["id"].tolist() == [0, 1, 2, *range(4, 25)]
    np.testing.assert_allclose(np.stack(table["embedding"]), expected_of(trained), rtol=1e-5, atol=1e-5)


def test_folder_trains_as_its_name_does(trained, tmp_path):
    folder = trained / "TUDataset" / "TINY"
    train_group(trained, tmp_path / "run", "--dataset", f"folder:{folder}")
    assert result_of(tmp_path / "run")["metrics"] == result_of(trained / "run")["metrics"]
    assert result_of(tmp_path / "run")["dataset"] == f"folder:{folder}"


def test_single_graph_is_embedded(trained, tmp_path):
    """With one graph nothing is trained, but it has a vector."""
    write_tu_dataset(tmp_path, "ONE", graphs=1)
    embed(trained, tmp_path / "x.npz", dataset=f"folder:{tmp_path / 'TUDataset' / 'ONE'}")
    vectors = np.load(tmp_path / "x.npz")["embedding"]
    np.testing.assert_allclose(vectors, expected_of(trained)[:1], rtol=1e-5, atol=1e-5)


def test_labels_are_coded_as_in_training(trained, tmp_path, capsys):
    """Graphs whose lowest label is another one than in training, and a label that was not there."""
    raw = write_tu_dataset(tmp_path / "data", "OTHER")
    path = raw / "OTHER_node_labels.txt"
    path.write_text("1\n2\n" * 60)
    embed(trained, tmp_path / "x.npz", dataset=f"folder:{raw}")
    features = torch.zeros(4, 3)
    features[[0, 2], 1] = features[[1, 3], 2] = 1
    ring = load_dataset("OTHER", tmp_path / "data").graphs[0].edge_index
    with torch.no_grad():
        expected = graph.load_encoder(trained / "run")(features, ring)
    np.testing.assert_allclose(np.load(tmp_path / "x.npz")["embedding"][:1], expected, rtol=1e-5, atol=1e-5)
    path.write_text("1\n7\n" * 60)
    line = failure(capsys, trained, tmp_path / "y.npz", dataset=f"folder:{raw}")
    assert "has node label 7; the encoder was trained with labels 0 to 2" in line
    path.unlink()
    line = failure(capsys, trained, tmp_path / "y.npz", dataset=f"folder:{raw}")
    assert "has 0 columns of node labels; the encoder takes 1" in line
    assert not (tmp_path / "y.npz").exists()


def test_attributes_of_another_width_are_an_error(tmp_path, capsys):
    root = tmp_path / "data"
    raw = write_tu_dataset(root)
    write_attributes(root)
    train(root, root / "run", "--node-features", "attributes")
    embed(root, tmp_path / "x.npz")
    (raw / "TINY_node_attributes.txt").write_text("1, 2, 3\n" * 120)
    line = failure(capsys, root, tmp_path / "y.npz")
    assert "TINY has 3 node attributes; the encoder takes 2" in line


def test_run_of_an_older_version_embeds(trained, tmp_path, capsys):
    """Its record does not say how features were made: they are fitted to the graphs, and must be as many."""
    shutil.copytree(trained / "run", tmp_path / "run")
    record = result_of(tmp_path / "run")
    for name in ("node_features", "checksum", "files"):
        del record[name]
    (tmp_path / "run" / "result.json").write_text(json.dumps(record))
    embed(trained, tmp_path / "x.npz", run=tmp_path / "run")
    assert len(np.load(tmp_path / "x.npz")["id"]) == 24
    line = failure(capsys, trained, tmp_path / "y.npz", dataset="motifs", run=tmp_path / "run")
    assert "features a node; the encoder in" in line
    assert line.endswith("takes 3")


def test_existing_output_is_refused_unless_it_is_to_be_replaced(trained, tmp_path, capsys):
    output = tmp_path / "x.npz"
    output.write_text("mine")
    line = failure(capsys, trained, output)
    assert line == f"error: --output {output} exists; set --overwrite to replace it, or choose another path"
    assert output.read_text() == "mine"
    embed(trained, output, "--overwrite")
    assert len(np.load(output)["id"]) == 24


def test_bad_input_ends_in_one_line(trained, tmp_path, capsys):
    def line_of(**changes):
        return failure(capsys, trained, **({"output": tmp_path / "x.npz"} | changes))

    assert "its suffix must be one of .parquet, .npz" in line_of(output=tmp_path / "x.txt")
    assert "is not a run folder" in line_of(run=tmp_path)
    assert "dataset is 'MUTAGG', which is unknown; did you mean MUTAG?" in line_of(dataset="MUTAGG")
    assert f"{tmp_path / 'no'} is not a folder" in line_of(dataset=f"folder:{tmp_path / 'no'}")
    (tmp_path / "empty").mkdir()
    assert "has no NAME_A.txt" in line_of(dataset=f"folder:{tmp_path / 'empty'}")
    for name in "ab":
        (tmp_path / "empty" / f"{name}_A.txt").write_text("")
    assert "has the files of several datasets: a, b" in line_of(dataset=f"folder:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "b_A.txt").rename(tmp_path / "empty" / "._a_A.txt")  # of macOS: it is hidden
    (tmp_path / "empty" / "a_graph_indicator.txt").write_text("")
    assert "a_graph_indicator.txt is damaged" in line_of(dataset=f"folder:{tmp_path / 'empty'}")
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    assert "the run is not finished; resume it with --resume" in line_of(run=tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings | {"modality": "image"}))
    assert "holds a run of modality image; a run of graph is needed" in line_of(run=tmp_path / "run")
    assert not (tmp_path / "x.npz").exists()
    [line] = failure_of(as_command("graph.embed"), capsys, [str(tmp_path), "motifs", "--output", "x.csv"])
    assert "is not a run folder" in line


@pytest.mark.data("TUDataset/MUTAG/raw/MUTAG_graph_labels.txt")
def test_vectors_of_mutag_without_labels_have_the_svm_accuracy_of_the_labelled_run(
    data_root, mutag_runs, tmp_path
):
    embed(mutag_runs / "data", tmp_path / "x.parquet", dataset="MUTAG", run=mutag_runs / "bare")
    vectors = np.stack(pd.read_parquet(tmp_path / "x.parquet")["embedding"])
    labels = load_dataset("MUTAG", data_root).labels
    expected = result_of(mutag_runs / "labelled")["metrics"]["svm_accuracy"]
    assert svm_accuracy(vectors, labels, seed=2).mean() == pytest.approx(expected, abs=1e-9)


def test_gallery_draws_graphs_with_their_neighbours(trained, tmp_path, capsys):
    page = tmp_path / "page.html"
    embed(trained, tmp_path / "x.npz", "--gallery", str(page))
    assert capsys.readouterr().out.endswith(f"{page}\n")
    vectors = np.load(tmp_path / "x.npz")["embedding"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = 1 + int((unit[1:] @ unit[0]).argmax())
    text = page.read_text()
    first = text[text.index("<section>") : text.index("</section>")]
    assert first.index("graph 0") < first.index(f"graph {nearest}")
    assert first.count("data:image/svg+xml;base64,") == 1 + 8
