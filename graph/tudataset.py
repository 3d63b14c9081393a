"""TUDatasets: downloaded, read from their text files, and checked.

Shapes: V nodes of all graphs · E edges · F node features.
"""

import csv
import functools
from pathlib import Path

import numpy as np
import torch

from core.io.downloads import fetch_archive
from core.io.errors import InputError, reason_of
from core.io.files import check_regular
from graph.graphs import Graph, one_hot

TU_URL = "https://www.chrsmrrs.com/graphkerneldatasets"
MAX_LABEL_COLUMNS = 100
MAX_LINE_BYTES = 1 << 16
# Entries of all nodes' one-hot labels, 1 GiB in float32. One label far from the others would exceed it.
MAX_FEATURE_ENTRIES = 1 << 28


def download_tu_dataset(name: str, folder: Path) -> None:
    """Download ``NAME.zip`` to ``folder/raw/NAME_*.txt``, which appear only once they are checked."""
    check = functools.partial(check_raw_files, name)
    fetch_archive(f"{TU_URL}/{name}.zip", folder / "raw", inside=name, check=check)


def load_tu_dataset(name: str, folder: Path) -> list[Graph]:
    """The graphs of ``folder/raw/NAME_*.txt``, with node labels as features and the class as ``y``.

    Equal to PyG's ``TUDataset`` without edge labels and node attributes, which InfoGraph does not use. PyG's
    cache, a pickle, is neither read nor written. Raises InputError as ``check_raw_files`` does.
    """
    graph_of_node, labels, edges = check_raw_files(name, folder / "raw")
    features = _node_features(folder / "raw" / f"{name}_node_labels.txt", len(graph_of_node))
    _, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(graph_of_node)
    first_node = np.cumsum(sizes) - sizes
    edges = edges[:, edges[0] != edges[1]]  # without self-loops
    graph_of_edge = graph_of_node[edges[0]]
    ends = np.searchsorted(graph_of_edge, np.arange(len(labels)), side="right")
    edge_index = torch.from_numpy(edges - first_node[graph_of_edge])
    edge_indices = edge_index.tensor_split(torch.from_numpy(ends[:-1]), dim=1)
    return [
        Graph(
            edge_index=edges_of_graph,
            num_nodes=int(size),
            y=torch.tensor([label]),
            x=None if features is None else features[first : first + size],
        )
        for first, size, label, edges_of_graph in zip(first_node, sizes, classes, edge_indices, strict=True)
    ]


def check_raw_files(name: str, raw: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The graph of each node [V], the label of each graph, and the edges [2, E], sorted and without repeats.

    Nodes and graphs are numbered from 0. Raises InputError, naming file and line, unless the files are
    complete and consistent. Their format: github.com/chrsmrrs/tudataset, "File Format".
    """
    indicator_path = raw / f"{name}_graph_indicator.txt"
    edges_path = raw / f"{name}_A.txt"
    graph_of_node = _read_integers(indicator_path, columns=1)[:, 0]
    labels = _read_integers(raw / f"{name}_graph_labels.txt", columns=1)[:, 0]
    edges = _read_integers(edges_path, columns=2)
    nodes, graphs = len(graph_of_node), len(labels)

    is_gap = ~np.isin(np.diff(graph_of_node, prepend=1), (0, 1))
    is_gap[0] = graph_of_node[0] != 1
    if is_gap.any():
        line = int(is_gap.argmax()) + 1
        raise InputError(
            f"{indicator_path}, line {line}: graph {graph_of_node[line - 1]}; graphs must be numbered "
            "from 1, in order, without gaps"
        )
    if graph_of_node[-1] != graphs:
        raise InputError(
            f"{indicator_path} names {graph_of_node[-1]} graphs and {name}_graph_labels.txt has {graphs} "
            "lines; they must agree: is one of them truncated?"
        )
    is_outside = ((edges < 1) | (edges > nodes)).any(axis=1)
    if is_outside.any():
        line = int(is_outside.argmax()) + 1
        edge = ", ".join(map(str, edges[line - 1]))
        raise InputError(
            f"{edges_path}, line {line}: edge {edge}; nodes are 1 to {nodes}, "
            f"the lines of {name}_graph_indicator.txt"
        )
    is_crossing = graph_of_node[edges[:, 0] - 1] != graph_of_node[edges[:, 1] - 1]
    if is_crossing.any():
        raise InputError(f"{edges_path}, line {int(is_crossing.argmax()) + 1}: the edge joins two graphs")
    for kind, count in (("node_labels", nodes), ("node_attributes", nodes), ("edge_labels", len(edges))):
        path = raw / f"{name}_{kind}.txt"
        if path.exists() and (lines := _count_lines(path)) != count:
            raise InputError(f"{path} has {lines} lines; it must have {count}: is it truncated?")
    edges = edges - 1
    forward, backward = (_sorted_unique(edges[:, a] * nodes + edges[:, b]) for a, b in ((0, 1), (1, 0)))
    if not np.array_equal(forward, backward):
        one_way = np.setdiff1d(forward, backward, assume_unique=True)
        source, target = np.array(divmod(int(one_way[0]), nodes)) + 1
        raise InputError(
            f"{edges_path} has edge {source}, {target} but not {target}, {source} ({len(one_way)} such); "
            "TUDatasets are undirected and list both: is it truncated?"
        )
    return graph_of_node - 1, labels, np.stack(np.divmod(forward, nodes))


def _sorted_unique(numbers: np.ndarray) -> np.ndarray:
    """``np.unique`` for integers of at least 0, ten times as fast as NumPy's, which hashes them."""
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) != 0]


def _node_features(path: Path, nodes: int) -> torch.Tensor | None:
    """Node labels, the one-hot codes of their columns side by side: [V, F]; None if there is no file."""
    if not path.exists():
        return None
    labels = _read_integers(path, columns=None)
    lowest, highest = labels.min(axis=0), labels.max(axis=0)
    widths = [high - low + 1 for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)]
    if nodes * sum(widths) > MAX_FEATURE_ENTRIES:
        raise InputError(
            f"{path} has labels from {min(lowest)} to {max(highest)}; coded one-hot they take too much memory"
        )
    codes = torch.from_numpy(labels - lowest)
    coded = [one_hot(column, width) for column, width in zip(codes.T, widths, strict=True)]
    return coded[0] if len(coded) == 1 else torch.cat(coded, dim=1)


def _read_integers(path: Path, columns: int | None) -> np.ndarray:
    """A comma-separated file as int64 [lines, columns]; raises InputError if it is missing or damaged."""
    import pandas as pd  # slow to import, and the embedded graphs do not need it

    expected = f"each line must have {'one or more' if columns is None else columns} integers"
    try:
        check_regular(path)
        with open(path, "rb") as file:
            first = file.readline(MAX_LINE_BYTES)
        count = first.count(b",") + 1
        if first and (count > MAX_LABEL_COLUMNS if columns is None else count != columns):
            raise InputError(f"{path} has {count} columns; {expected}")
        with np.errstate(invalid="ignore"):  # numbers beyond int64 raise an error below
            table = pd.read_csv(
                path,
                header=None,
                skipinitialspace=True,
                dtype=np.int64,
                skip_blank_lines=False,
                quoting=csv.QUOTE_NONE,
                na_filter=False,
            )
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a TUDataset has _A, _graph_indicator and _graph_labels"
        ) from None
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"{path} is damaged: {reason_of(error)}; {expected}") from error
    return table.to_numpy()


def _count_lines(path: Path) -> int:
    """The number of lines that are not blank."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
