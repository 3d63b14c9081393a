"""Graph datasets: reading, features, downloads, and messages about damaged files."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.utils import degree

from core.io.errors import InputError
from graph import names, tudataset
from graph.data import load_dataset
from graph.evaluate import main as evaluate_main
from graph.motifs import make_motifs
from graph.names import PAPER_DATASETS
from graph.train import main as train_main
from tests.graph.conftest import remove_labels, write_tu_dataset
from tests.runs import failure_of

CLASSES = [*[0, 1, 0, 0, 1, 1, 0, 1, 0, 1] * 2, 0, 1, 0, 0]  # of TINY's graphs


def test_load_dataset_reads_graphs_labels_and_node_labels(tiny_root):
    dataset = load_dataset("TINY", tiny_root)
    assert len(dataset.graphs) == 24
    assert dataset.labels.tolist() == CLASSES
    assert [graph.num_nodes for graph in dataset.graphs[:3]] == [4, 5, 6]
    torch.testing.assert_close(dataset.graphs[1].x.argmax(1), torch.tensor([0, 1, 2, 0, 1]))
    assert degree(dataset.graphs[1].edge_index[0]).tolist() == [4, 1, 1, 1, 1]


def test_features_without_node_labels_are_one_hot_degrees(tmp_path):
    write_tu_dataset(tmp_path, node_labels=False)
    dataset = load_dataset("TINY", tmp_path)
    for graph in dataset.graphs:
        torch.testing.assert_close(graph.x.argmax(1).float(), degree(graph.edge_index[0]))
        assert graph.x.sum(1).eq(1).all()
    assert dataset.num_features == 6  # degrees 0 to 5


def test_degrees_from_a_thousand_on_are_standardised(tmp_path):
    raw = write_tu_dataset(tmp_path, node_labels=False)
    nodes = len((raw / "TINY_graph_indicator.txt").read_text().split())
    with open(raw / "TINY_A.txt", "a") as edges, open(raw / "TINY_graph_indicator.txt", "a") as indicator:
        hub = nodes + 1
        indicator.write("25\n" * 1003)
        edges.writelines(f"{hub}, {hub + i}\n{hub + i}, {hub}\n" for i in range(1, 1003))
    with open(raw / "TINY_graph_labels.txt", "a") as labels:
        labels.write("1\n")
    (raw / "TINY_edge_labels.txt").unlink()
    dataset = load_dataset("TINY", tmp_path)
    features = torch.cat([graph.x for graph in dataset.graphs])
    assert features.shape[1] == 1
    assert features.mean().item() == pytest.approx(0, abs=1e-5)
    assert features.std().item() == pytest.approx(1, abs=1e-5)


def test_one_hot_degrees_beyond_the_memory_limit_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "graph.features.MAX_FEATURE_ENTRIES", 24 * 5 * 6 - 1
    )  # 24 graphs of 5 nodes, degrees 0 to 5
    write_tu_dataset(tmp_path, node_labels=False)
    with pytest.raises(
        InputError, match=r"`dataset` is 'TINY', whose 120 nodes have degrees up to 5; .* too much memory"
    ):
        load_dataset("TINY", tmp_path)


def test_last_graph_without_edges_is_kept(tmp_path):
    raw = write_tu_dataset(tmp_path)
    for kind, line in (("graph_indicator", "25"), ("graph_labels", "1"), ("node_labels", "2")):
        with open(raw / f"TINY_{kind}.txt", "a") as file:
            file.write(f"{line}\n")
    dataset = load_dataset("TINY", tmp_path)
    assert len(dataset.graphs) == 25
    assert dataset.graphs[24].num_nodes == 1
    assert dataset.graphs[24].edge_index.shape == (2, 0)


def test_self_loops_and_repeated_edges_are_left_out(tiny_root):
    expected = load_dataset("TINY", tiny_root, node_features="degree")
    raw = tiny_root / "TUDataset" / "TINY" / "raw"
    for kind, lines in (("A", "1, 1\n1, 2\n2, 1\n120, 120\n"), ("edge_labels", "0\n" * 4)):
        with open(raw / f"TINY_{kind}.txt", "a") as file:
            file.write(lines)
    dataset = load_dataset("TINY", tiny_root, node_features="degree")
    for graph, own in zip(dataset.graphs, expected.graphs, strict=True):
        assert torch.equal(graph.edge_index, own.edge_index)
        assert torch.equal(graph.x, own.x)


def test_motifs_are_deterministic_and_restore_the_random_states():
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    graphs, again = make_motifs(), make_motifs()
    assert (torch.rand(1), np.random.rand()) == expected
    for one, two in zip(graphs, again, strict=True):
        torch.testing.assert_close(one.edge_index, two.edge_index)
    labels = torch.cat([graph.y for graph in graphs])
    assert torch.bincount(labels).tolist() == [30] * 5
    sizes = torch.tensor([float(graph.num_nodes) for graph in graphs])
    per_class = torch.stack([sizes[labels == label].mean() for label in range(5)])
    assert per_class.std() < sizes.std() / 3  # the size alone does not determine the class


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("graph_labels", lambda lines: lines[:-2], "names 24 graphs and TINY_graph_labels.txt has 22"),
        ("graph_indicator", lambda lines: lines[:-6], "names 23 graphs"),
        (
            "node_labels",
            lambda lines: lines[:-1],
            "TINY_node_labels.txt has 119 lines; it must have 120",
        ),
        ("edge_labels", lambda lines: lines[:9], "TINY_edge_labels.txt has 9 lines"),
        ("A", lambda lines: lines[:-1], "is it truncated?"),
        ("A", lambda lines: [*lines[:-1], "12"], "TINY_A.txt is damaged"),
        ("A", lambda lines: ["1, 200", *lines[1:]], "TINY_A.txt, line 1: edge 1, 200; nodes are 1 to 120"),
        ("A", lambda lines: ["1, 0", *lines[1:]], "line 1: edge 1, 0"),
        ("A", lambda lines: [*lines, "1, 120", "120, 1"], "joins two graphs"),
        (
            "A",
            lambda lines: ["1, two", *lines[1:]],
            "TINY_A.txt is damaged: line 1 is '1, two'; each line must have 2 integers",
        ),
        ("A", lambda lines: [], "TINY_A.txt is damaged"),
        (
            "graph_labels",
            lambda lines: [*lines[:5], "0.5", *lines[6:]],
            "TINY_graph_labels.txt is damaged: line 6 is '0.5'; each line must have 1 integer",
        ),
        ("graph_indicator", lambda lines: ["2", *lines[1:]], "line 1: graph 2; graphs must be numbered"),
        (
            "graph_indicator",
            lambda lines: ["0", *lines[1:]],
            "line 1: graph 0; graphs must be numbered from 1",
        ),
        ("graph_indicator", lambda lines: [*lines[:-1], "1"], "in order, but line 120 has graph 1"),
        (
            "graph_indicator",
            lambda lines: [*lines[:-1], "30"],
            "line 120: graph 30; graphs are 1 to 24, the lines of TINY_graph_labels.txt",
        ),
        (
            "node_labels",  # the times and labels of tumblr_ct1
            lambda lines: [
                f"{line}, 1" if number != 7 else "0, 1, 8, 2" for number, line in enumerate(lines)
            ],
            "line 8 is '0, 1, 8, 2'; each line must have 2 integers, as line 1 has",
        ),
        (
            "node_labels",
            lambda lines: [*lines[:60], "1, 2", *lines[61:]],
            "line 61 is '1, 2'; each line must have 1 integer, as line 1 has",
        ),
        ("node_labels", lambda lines: [*lines[:60], "", *lines[60:]], "line 61 is ''"),
        ("graph_indicator", None, "TINY_graph_indicator.txt is missing"),
    ],
    ids=[
        "fewer graph labels",
        "fewer graphs",
        "fewer node labels",
        "fewer edge labels",
        "fewer edges",
        "edge of one node",
        "node too large",
        "node zero",
        "edge between graphs",
        "word instead of a node",
        "no edges",
        "fraction instead of a label",
        "first graph after the second",
        "graph zero",
        "last graph before others",
        "more graphs than labels",
        "longer line",
        "shorter line",
        "blank line",
        "file missing",
    ],
)
def test_damaged_file_is_an_error_that_names_it(tiny_root, kind, change, message):
    path = tiny_root / "TUDataset" / "TINY" / "raw" / f"TINY_{kind}.txt"
    if change is None:
        path.unlink()
    else:
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(InputError) as error:
        load_dataset("TINY", tiny_root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_blank_last_lines_are_ignored(tiny_root):
    expected = load_dataset("TINY", tiny_root)
    for path in (tiny_root / "TUDataset" / "TINY" / "raw").iterdir():
        path.write_text(path.read_text().replace("\n", "\r\n") + "\n  \r\n\n")
    dataset = load_dataset("TINY", tiny_root)
    assert dataset.labels.tolist() == expected.labels.tolist()
    for graph, own in zip(dataset.graphs, expected.graphs, strict=True):
        assert torch.equal(graph.edge_index, own.edge_index)
        assert torch.equal(graph.x, own.x)


@pytest.mark.parametrize("empty", [[1, 2, 3], [5, 6, 24], [1, 26, 27]], ids=["first", "between", "last"])
def test_graphs_without_nodes_are_left_out_and_counted(tiny_root, capsys, empty):
    """Fingerprint has such graphs: numbers that the indicator leaves out, but not the labels."""
    expected = load_dataset("TINY", tiny_root)
    raw = tiny_root / "TUDataset" / "TINY" / "raw"
    numbers = [number for number in range(1, 28) if number not in empty]  # those of the 24 graphs
    indicator = [numbers[int(line) - 1] for line in (raw / "TINY_graph_indicator.txt").read_text().split()]
    (raw / "TINY_graph_indicator.txt").write_text("".join(f"{number}\n" for number in indicator))
    labels = [7 if number in empty else expected.labels[numbers.index(number)] for number in range(1, 28)]
    (raw / "TINY_graph_labels.txt").write_text("".join(f"{label}\n" for label in labels))
    dataset = load_dataset("TINY", tiny_root)
    assert capsys.readouterr().err == "warning: 3 of the 27 graphs of TINY have no nodes and are left out\n"
    assert dataset.labels.tolist() == expected.labels.tolist()
    for graph, own in zip(dataset.graphs, expected.graphs, strict=True):
        assert torch.equal(graph.edge_index, own.edge_index)
        assert torch.equal(graph.x, own.x)


def test_graphs_without_labels_are_the_same_graphs(tiny_root):
    expected = load_dataset("TINY", tiny_root)
    remove_labels(tiny_root)
    dataset = load_dataset("TINY", tiny_root)
    assert dataset.labels is None
    assert len(dataset.graphs) == 24
    for graph, own in zip(dataset.graphs, expected.graphs, strict=True):
        assert graph.y is None
        assert torch.equal(graph.edge_index, own.edge_index)
        assert torch.equal(graph.x, own.x)


def test_regression_targets_without_classes_are_kept_aside(tiny_root, capsys):
    """As in QM9 and ZINC. They have a line for each graph, also for one without nodes."""
    raw = tiny_root / "TUDataset" / "TINY" / "raw"
    remove_labels(tiny_root)
    targets = raw / "TINY_graph_attributes.txt"
    targets.write_text("0.5, -1e3, nan\n" * 24)
    dataset = load_dataset("TINY", tiny_root)
    assert dataset.labels is None
    assert (len(dataset.graphs), dataset.num_features) == (24, 3)
    assert capsys.readouterr().err == ""
    indicator = raw / "TINY_graph_indicator.txt"
    indicator.write_text(indicator.read_text().replace("24\n", "25\n"))
    targets.write_text("0.5\n" * 26)
    assert len(load_dataset("TINY", tiny_root).graphs) == 24
    assert "2 of the 26 graphs of TINY have no nodes" in capsys.readouterr().err
    targets.write_text("0.5\n" * 23)
    with pytest.raises(
        InputError, match=r"graph 25; graphs are 1 to 23, the lines of TINY_graph_attributes.txt"
    ):
        load_dataset("TINY", tiny_root)


def test_graphs_without_nodes_are_left_out_also_without_labels(tiny_root, capsys):
    remove_labels(tiny_root)
    indicator = tiny_root / "TUDataset" / "TINY" / "raw" / "TINY_graph_indicator.txt"
    lines = [line if int(line) < 7 else str(int(line) + 2) for line in indicator.read_text().split()]
    indicator.write_text("\n".join(lines))
    assert len(load_dataset("TINY", tiny_root).graphs) == 24
    assert capsys.readouterr().err == "warning: 2 of the 26 graphs of TINY have no nodes and are left out\n"


def test_changed_files_are_read_again(tiny_root):
    load_dataset("TINY", tiny_root)
    path = tiny_root / "TUDataset" / "TINY" / "raw" / "TINY_graph_labels.txt"
    path.write_text("3\n" * 12 + "4\n" * 12)
    assert load_dataset("TINY", tiny_root).labels.tolist() == [0] * 12 + [1] * 12


def test_unknown_or_missing_dataset_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"`dataset` is 'MUTAGG', which is unknown; did you mean MUTAG\?"):
        load_dataset("MUTAGG", tmp_path)
    with pytest.raises(InputError, match=r"which is unknown. Known: motifs, MUTAG.* other TUDatasets, any"):
        load_dataset("mine", tmp_path)
    for name in ("PTC_MR", "COLLAB", "Tox21_AR-LBD_testing"):
        with pytest.raises(InputError, match=f"has no {name}_A.txt; set `download` to fetch it from https"):
            load_dataset(name, tmp_path)
    for name in ("../MUTAG", "..", ".", ""):
        with pytest.raises(InputError, match="unknown"):
            load_dataset(name, tmp_path, download=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def server(served, monkeypatch):
    """The served folder, as the publisher of TUDatasets, one of which is TINY."""
    folder, address = served
    monkeypatch.setattr(tudataset, "TU_URL", address)
    monkeypatch.setattr(names, "OTHER_DATASETS", ("TINY",))
    return folder


def zip_of(raw: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in raw.iterdir():
            archive.write(path, f"TINY/{path.name}")
    return buffer.getvalue()


def test_download_creates_the_raw_folder(server, tiny_root, tmp_path):
    raw = tiny_root / "TUDataset" / "TINY" / "raw"
    (server / "TINY.zip").write_bytes(zip_of(raw))
    fresh = tmp_path / "fresh"
    dataset = load_dataset("TINY", fresh, download=True)
    assert len(dataset.graphs) == 24
    folder = fresh / "TUDataset" / "TINY"
    assert {path.name for path in (folder / "raw").iterdir()} == {path.name for path in raw.iterdir()}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_training_downloads_a_missing_dataset_and_says_so(server, tiny_root, tmp_path, capsys):
    (server / "TINY.zip").write_bytes(zip_of(tiny_root / "TUDataset" / "TINY" / "raw"))
    flags = ["--dataset", "TINY", "--data-root", str(tmp_path / "fresh"), "--epochs", "1", "--device", "cpu"]
    train_main([*flags, "--output-dir", str(tmp_path / "run")])
    raw = tmp_path / "fresh" / "TUDataset" / "TINY" / "raw"
    size = (server / "TINY.zip").stat().st_size / 1000
    said = f"downloading {tudataset.TU_URL}/TINY.zip to {raw} ({size:.1f} kB)\n"
    assert capsys.readouterr().err == said
    train_main([*flags, "--output-dir", str(tmp_path / "again")])
    evaluate_main([str(tmp_path / "run"), "--data-root", str(tmp_path / "fresh"), "--device", "cpu"])
    assert not capsys.readouterr().err  # it is there


@pytest.mark.parametrize("flags", [[], ["--no-download"]])
def test_missing_dataset_without_a_network_ends_in_one_line(flags, tmp_path, monkeypatch, capsys):
    """Nothing listens at the address of the publisher."""
    monkeypatch.setattr(tudataset, "TU_URL", "http://127.0.0.1:9")
    root = ["--dataset", "MUTAG", "--data-root", str(tmp_path / "data")]
    [line] = failure_of(train_main, capsys, [*root, "--output-dir", str(tmp_path / "run"), *flags])
    if flags:
        assert line.startswith("error: --dataset is 'MUTAG', but")
        assert "has no MUTAG_A.txt; set --download to fetch it from" in line
    else:
        assert line.startswith("error: could not download http://127.0.0.1:9/MUTAG.zip: 127.0.0.1 cannot be")
    assert not list(tmp_path.rglob("*.txt"))


@pytest.mark.parametrize("content", [None, b"<html>not found</html>", "truncated", "damaged"])
def test_failed_download_leaves_nothing(server, tiny_root, tmp_path, content):
    raw = tiny_root / "TUDataset" / "TINY" / "raw"
    if content == "damaged":
        (raw / "TINY_graph_labels.txt").write_text("1\n")
    if isinstance(content, str):
        content = zip_of(raw)[: -100 if content == "truncated" else None]
    if content is not None:
        (server / "TINY.zip").write_bytes(content)
    fresh = tmp_path / "fresh"
    with pytest.raises(InputError, match=r"TINY") as error:
        load_dataset("TINY", fresh, download=True)
    assert "\n" not in str(error.value)
    assert not [path for path in fresh.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("name", "graphs", "classes", "features"),
    [
        pytest.param(*row, marks=pytest.mark.data(f"TUDataset/{row[0]}/raw/{row[0]}_graph_labels.txt"))
        for row in [
            ("MUTAG", 188, [63, 125], 7),
            ("PTC_MR", 344, [192, 152], 18),
            ("ENZYMES", 600, [100] * 6, 3),
            ("PROTEINS", 1113, [663, 450], 3),
            ("IMDB-BINARY", 1000, [500, 500], 136),
            ("IMDB-MULTI", 1500, [500] * 3, 89),
        ]
    ],
)
def test_paper_s_datasets_have_the_published_sizes(data_root, name, graphs, classes, features):
    assert name in PAPER_DATASETS
    dataset = load_dataset(name, data_root)
    assert len(dataset.graphs) == graphs
    assert np.bincount(dataset.labels).tolist() == classes
    assert dataset.num_features == features
