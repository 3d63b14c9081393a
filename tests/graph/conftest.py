"""A small dataset in the text format of the TUDatasets."""

from pathlib import Path

import pytest

from graph.train import main as train_main


def write_tu_dataset(data_root: Path, name: str = "TINY", graphs: int = 24, node_labels: bool = True) -> Path:
    """Write cycles (class -1) and stars (class 1) of 4 to 6 nodes; return the raw folder.

    Of ten graphs two have the other class, so that no encoder's score is 1.
    """
    raw = data_root / "TUDataset" / name / "raw"
    raw.mkdir(parents=True)
    edges, indicator, labels, node_label_lines = [], [], [], []
    for graph in range(graphs):
        first, size = len(indicator) + 1, 4 + graph % 3
        nodes = range(first, first + size)
        if graph % 2:
            pairs = [(first, node) for node in nodes[1:]]
        else:
            pairs = [(node, first + (node - first + 1) % size) for node in nodes]
        edges += [edge for a, b in pairs for edge in ((a, b), (b, a))]
        indicator += [graph + 1] * size
        is_swapped = graph % 10 in (3, 4)
        labels.append(1 if (graph % 2 == 1) != is_swapped else -1)
        node_label_lines += [(node - first) % 3 for node in nodes]
    files = {
        "A": [f"{a}, {b}" for a, b in edges],
        "graph_indicator": indicator,
        "graph_labels": labels,
        "edge_labels": [0] * len(edges),
    }
    if node_labels:
        files["node_labels"] = node_label_lines
    for kind, lines in files.items():
        (raw / f"{name}_{kind}.txt").write_text("".join(f"{line}\n" for line in lines))
    return raw


def remove_labels(data_root: Path, name: str = "TINY") -> None:
    """Remove a dataset's graph_labels."""
    (data_root / "TUDataset" / name / "raw" / f"{name}_graph_labels.txt").unlink()


def copy_without_labels(data_root: Path, target: Path, name: str) -> None:
    """Copy a dataset's files, but not its graph_labels, to another data root.

    Nothing is deleted: a folder of real data may be a link.
    """
    raw = target / "TUDataset" / name / "raw"
    raw.mkdir(parents=True)
    for path in (data_root / "TUDataset" / name / "raw").glob(f"{name}_*.txt"):
        if path.name != f"{name}_graph_labels.txt":
            (raw / path.name).write_bytes(path.read_bytes())


def write_attributes(data_root: Path, name: str = "TINY", nodes: int = 120) -> None:
    """Add two attributes of each node: its number and a fraction."""
    path = data_root / "TUDataset" / name / "raw" / f"{name}_node_attributes.txt"
    path.write_text("".join(f"{node}, {node / 7 - 3!r}\n" for node in range(nodes)))


@pytest.fixture(scope="session")
def mutag_runs(data_root, tmp_path_factory) -> Path:
    """A folder with a run on MUTAG, ``labelled``, one without its labels, ``bare``, and ``data`` of that."""
    folder = tmp_path_factory.mktemp("mutag")
    copy_without_labels(data_root, folder / "data", "MUTAG")
    flags = ["--dataset", "MUTAG", "--epochs", "5", "--seed", "2", "--device", "cpu"]
    for name, root in (("labelled", data_root), ("bare", folder / "data")):
        train_main([*flags, "--data-root", str(root), "--output-dir", str(folder / name)])
    return folder


@pytest.fixture
def tiny_root(tmp_path) -> Path:
    """A data root with the dataset TINY."""
    root = tmp_path / "data"
    write_tu_dataset(root)
    return root
