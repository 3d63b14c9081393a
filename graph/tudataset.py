"""TUDatasets: found, downloaded, and read from their text files, each checked against the others."""

import csv
import functools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data
from torch_geometric.utils import one_hot

from core.io.downloads import fetch_archive
from core.io.errors import InputError
from core.io.files import check_regular

TU_URL = "https://www.chrsmrrs.com/graphkerneldatasets"
MAX_LABEL_COLUMNS = 100
MAX_LINE_BYTES = 1 << 16  # bytes
# Numbers of all nodes' one-hot labels, 1 GiB; a label that is far from the others would make them many more.
MAX_FEATURE_ENTRIES = 1 << 28


def download_tu_dataset(name: str, folder: Path) -> None:
    """Fetch ``NAME.zip`` and lay it out as ``folder/raw/NAME_*.txt``, whole or not at all."""
    check = functools.partial(check_raw_files, name)
    fetch_archive(f"{TU_URL}/{name}.zip", folder / "raw", inside=name, check=check)


def load_tu_dataset(name: str, folder: Path) -> list[Data]:
    """The graphs of ``folder/raw/NAME_*.txt``; node labels are their features, classes their ``y``.

    Those that PyG's ``TUDataset`` gives, without edge labels and node attributes, which InfoGraph does not
    use. Nothing is cached: PyG's own cache is a pickle. Raises InputError as ``check_raw_files`` does.
    """
    graph_of_node, labels, edges = check_raw_files(name, folder / "raw")
    features = _node_labels(folder / "raw" / f"{name}_node_labels.txt", len(graph_of_node))
    _, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(graph_of_node)
    first_node = np.cumsum(sizes) - sizes
    edges = edges[:, edges[0] != edges[1]]
    graph_of_edge = graph_of_node[edges[0]]
    ends = np.searchsorted(graph_of_edge, np.arange(len(labels)), side="right")
    edges = torch.from_numpy(edges - first_node[graph_of_edge])
    return [
        Data(
            x=None if features is None else features[first : first + size],
            edge_index=edges_of_graph,
            y=torch.tensor([label]),
            num_nodes=int(size),
        )
        for first, size, label, edges_of_graph in zip(
            first_node, sizes, classes, edges.tensor_split(torch.from_numpy(ends[:-1]), dim=1), strict=True
        )
    ]


def check_raw_files(name: str, raw: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each node's graph, each graph's label, and the edges [2, E], sorted and each once; nodes from 0.

    Raises InputError, naming file and line, unless the text files are whole and agree with each other. The
    format: github.com/chrsmrrs/tudataset, "File Format".
    """
    indicator_path = raw / f"{name}_graph_indicator.txt"
    edges_path = raw / f"{name}_A.txt"
    graph_of_node = _read_integers(indicator_path, columns=1)[:, 0]
    labels = _read_integers(raw / f"{name}_graph_labels.txt", columns=1)[:, 0]
    edges = _read_integers(edges_path, columns=2)
    nodes, graphs = len(graph_of_node), len(labels)

    jumps = ~np.isin(np.diff(graph_of_node, prepend=1), (0, 1))
    jumps[0] = graph_of_node[0] != 1
    if jumps.any():
        line = int(jumps.argmax()) + 1
        raise InputError(
            f"{indicator_path}, line {line}: graph {graph_of_node[line - 1]}; graphs must be numbered "
            "from 1, in order, without gaps"
        )
    if graph_of_node[-1] != graphs:
        raise InputError(
            f"{indicator_path} names {graph_of_node[-1]} graphs and {name}_graph_labels.txt has {graphs} "
            "lines; they must agree: is one of them cut short?"
        )
    outside = ((edges < 1) | (edges > nodes)).any(axis=1)
    if outside.any():
        line = int(outside.argmax()) + 1
        edge = ", ".join(map(str, edges[line - 1]))
        raise InputError(
            f"{edges_path}, line {line}: edge {edge}; nodes are 1 to {nodes}, "
            f"the lines of {name}_graph_indicator.txt"
        )
    crossing = graph_of_node[edges[:, 0] - 1] != graph_of_node[edges[:, 1] - 1]
    if crossing.any():
        raise InputError(f"{edges_path}, line {int(crossing.argmax()) + 1}: the edge joins two graphs")
    for kind, count in (("node_labels", nodes), ("node_attributes", nodes), ("edge_labels", len(edges))):
        path = raw / f"{name}_{kind}.txt"
        if path.exists() and (lines := _count_lines(path)) != count:
            raise InputError(f"{path} has {lines} lines; {count} are needed: is it cut short?")
    edges = edges - 1
    forward, backward = (_sorted_once(edges[:, a] * nodes + edges[:, b]) for a, b in ((0, 1), (1, 0)))
    if not np.array_equal(forward, backward):
        one_way = np.setdiff1d(forward, backward, assume_unique=True)
        source, target = np.array(divmod(int(one_way[0]), nodes)) + 1
        raise InputError(
            f"{edges_path} has edge {source}, {target} but not {target}, {source} ({len(one_way)} such); "
            "TUDatasets are undirected and list both: is it cut short?"
        )
    return graph_of_node - 1, labels, np.stack(np.divmod(forward, nodes))


def _sorted_once(numbers: np.ndarray) -> np.ndarray:
    """The different numbers, from 0 up; ten times as fast as NumPy's ``unique``, which goes by hashes."""
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) != 0]


def _node_labels(path: Path, nodes: int) -> torch.Tensor | None:
    """The labels of nodes one-hot, their columns side by side: [nodes, F]; None where there is no file."""
    if not path.exists():
        return None
    table = _read_integers(path, columns=None)
    lowest, highest = table.min(axis=0), table.max(axis=0)
    widths = [top - low + 1 for low, top in zip(lowest.tolist(), highest.tolist(), strict=True)]
    if nodes * sum(widths) > MAX_FEATURE_ENTRIES:
        raise InputError(
            f"{path} has labels from {min(lowest)} to {max(highest)}; coded one-hot they take too much memory"
        )
    codes = torch.from_numpy(table - lowest)
    coded = [one_hot(column, width) for column, width in zip(codes.T, widths, strict=True)]
    return coded[0] if len(coded) == 1 else torch.cat(coded, dim=1)


def _read_integers(path: Path, columns: int | None) -> np.ndarray:
    """[lines, columns] int64 of a comma-separated file; InputError names what is wrong with it."""
    expected = f"each line must hold {'some' if columns is None else columns} integers"
    try:
        check_regular(path)
        with open(path, "rb") as file:
            first = file.readline(MAX_LINE_BYTES)
        found = first.count(b",") + 1
        if first and (found > MAX_LABEL_COLUMNS if columns is None else found != columns):
            raise InputError(f"{path} has {found} columns; {expected}")
        with np.errstate(invalid="ignore"):  # a number too large to be an integer is an error anyway
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
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged: {reason}; {expected}") from error
    return table.to_numpy()


def _count_lines(path: Path) -> int:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
