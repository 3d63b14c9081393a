"""TUDatasets: downloaded, read from their text files, and checked.

Shapes: V nodes of all graphs · E edges · F node features.
"""

import csv
import functools
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.io.downloads import fetch_archive
from core.io.errors import InputError, reason_of
from core.io.files import check_regular
from graph.features import MAX_FEATURE_ENTRIES, NodeValues
from graph.graphs import Graph
from graph.names import NodeFeatures

TU_URL = "https://www.chrsmrrs.com/graphkerneldatasets"
MAX_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class Numbers:
    """The numbers that a file may have."""

    name: str
    dtype: type[np.generic]
    pattern: re.Pattern[bytes]
    max_columns: int


INTEGERS = Numbers("integer", np.int64, re.compile(rb"\s*[+-]?\d+\s*"), 100)
ATTRIBUTES = Numbers(
    "number", np.float64, re.compile(rb"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"), 10_000
)


def download_tu_dataset(name: str, folder: Path) -> None:
    """Download ``NAME.zip`` to ``folder/raw/NAME_*.txt``, which appear only once they are checked."""
    check = functools.partial(check_raw_files, name)
    fetch_archive(f"{TU_URL}/{name}.zip", folder / "raw", inside=name, check=check)


@dataclass(frozen=True)
class RawGraphs:
    """What the text files hold. Nodes and graphs are numbered from 0; a graph may have no nodes."""

    graph_of_node: np.ndarray  # [V]
    edges: np.ndarray  # [2, E], sorted and without repeats
    graphs: int
    labels: np.ndarray | None  # [graphs]; None without graph_labels


@dataclass(frozen=True)
class TUGraphs:
    """The graphs of a TUDataset, those without nodes left out. They have no features yet."""

    graphs: list[Graph]
    numbers: np.ndarray  # (graphs,), their numbers in the files, from 0
    classes: np.ndarray | None  # (classes,), the labels in the files; ``y`` of a graph is an index
    values: NodeValues


def load_tu_dataset(name: str, raw_folder: Path, node_features: NodeFeatures = "auto") -> TUGraphs:
    """The graphs of ``raw_folder/NAME_*.txt``, and those values of nodes that their features need.

    Equal to PyG's ``TUDataset`` without edge labels, which InfoGraph does not use, and without graphs that
    have no nodes (Fingerprint), which are counted on stderr. PyG's cache, a pickle, is neither read nor
    written. Raises InputError as ``check_raw_files`` does.
    """
    raw = check_raw_files(name, raw_folder)
    numbers, graph_of_node, sizes = np.unique(raw.graph_of_node, return_inverse=True, return_counts=True)
    if len(numbers) < raw.graphs:
        print(
            f"warning: {raw.graphs - len(numbers)} of the {raw.graphs} graphs of {name} have no nodes and "
            "are left out",
            file=sys.stderr,
        )
    classes, classes_of_graphs = None, [None] * len(numbers)
    if raw.labels is not None:
        classes, indices = np.unique(raw.labels[numbers], return_inverse=True)
        classes_of_graphs = torch.from_numpy(indices).split(1)
    values = NodeValues(
        labels=_read_labels(raw_folder / f"{name}_node_labels.txt")
        if node_features in ("auto", "labels", "both")
        else None,
        attributes=_read_attributes(raw_folder / f"{name}_node_attributes.txt")
        if node_features in ("attributes", "both")
        else None,
    )
    first_node = np.cumsum(sizes) - sizes
    edges = raw.edges[:, raw.edges[0] != raw.edges[1]]  # without self-loops
    graph_of_edge = graph_of_node[edges[0]]
    edge_indices = torch.from_numpy(edges - first_node[graph_of_edge]).split(
        np.bincount(graph_of_edge, minlength=len(sizes)).tolist(), dim=1
    )
    graphs = list(map(Graph, edge_indices, sizes.tolist(), classes_of_graphs))
    return TUGraphs(graphs, numbers, classes, values)


def check_raw_files(name: str, raw: Path) -> RawGraphs:
    """What the files hold. Raises InputError, naming file and line, unless they are complete and consistent.

    Only ``_A`` and ``_graph_indicator`` must be there. The values of ``_graph_attributes``, the targets of a
    regression, are not read. The format: github.com/chrsmrrs/tudataset, "File Format".
    """
    edges_path, labels_path = raw / f"{name}_A.txt", raw / f"{name}_graph_labels.txt"
    targets_path = raw / f"{name}_graph_attributes.txt"
    labels = _read_classes(labels_path) if labels_path.exists() else None
    counted: tuple[str, int] | None = None  # the file that has a line for each graph, also without nodes
    if labels is not None:
        counted = labels_path.name, len(labels)
    elif targets_path.exists():
        counted = targets_path.name, _count_lines(targets_path)
    graph_of_node = _read_graph_of_node(raw / f"{name}_graph_indicator.txt", counted)
    edges = _read_edges(edges_path)
    nodes = len(graph_of_node)
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
    graphs = int(graph_of_node[-1]) if counted is None else counted[1]
    return RawGraphs(graph_of_node - 1, np.stack(np.divmod(forward, nodes)), graphs, labels)


def _read_edges(path: Path) -> np.ndarray:
    """Source and target of each edge [E, 2], from 1 on."""
    if not _read(path):
        raise InputError(f"{path} is damaged: it has no edges; at least one graph must have some")
    return _read_numbers(path, columns=2)


def _read_classes(path: Path) -> np.ndarray:
    """The class of each graph [G]."""
    try:
        return _read_numbers(path, columns=1)[:, 0]
    except InputError as error:
        attributes = path.name.replace("labels", "attributes")
        raise InputError(f"{error}; targets that are not classes belong in {attributes}") from error


def _read_graph_of_node(path: Path, counted: tuple[str, int] | None) -> np.ndarray:
    """The graph of each node [V], from 1 on.

    ``counted`` is the name of a file with a line for each graph, if there is one, and its lines.
    """
    numbers = _read_numbers(path, columns=1)[:, 0]
    steps = np.diff(numbers, append=numbers[-1])
    is_wrong = (numbers < 1) | (steps < 0)
    if is_wrong.any():
        line = int(is_wrong.argmax()) + 1
        then = f", but line {line + 1} has graph {numbers[line]}" if steps[line - 1] < 0 else ""
        raise InputError(
            f"{path}, line {line}: graph {numbers[line - 1]}; graphs must be numbered from 1, in order{then}"
        )
    if counted is None:
        return numbers
    name, graphs = counted
    has_gaps = numbers[0] > 1 or (steps > 1).any()
    if not has_gaps and numbers[-1] != graphs:
        raise InputError(
            f"{path} names {numbers[-1]} graphs and {name} has {graphs} lines; they must agree: is "
            "one of them truncated?"
        )
    if numbers[-1] > graphs:
        line = int((numbers > graphs).argmax()) + 1
        raise InputError(
            f"{path}, line {line}: graph {numbers[line - 1]}; graphs are 1 to {graphs}, the lines of {name}"
        )
    return numbers


def _sorted_unique(numbers: np.ndarray) -> np.ndarray:
    """``np.unique`` for integers of at least 0, ten times as fast as NumPy's, which hashes them."""
    numbers = np.sort(numbers)
    return numbers[np.diff(numbers, prepend=-1) != 0]


def _read_labels(path: Path) -> torch.Tensor | None:
    """Node labels [V, C]; None if there is no file."""
    if not path.exists():
        return None
    labels = _read_numbers(path, columns=None)
    lowest, highest = labels.min(axis=0), labels.max(axis=0)
    widths = [high - low + 1 for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)]
    if len(labels) * sum(widths) > MAX_FEATURE_ENTRIES:
        raise InputError(
            f"{path} has labels from {min(lowest)} to {max(highest)}; coded one-hot they take too much memory"
        )
    return torch.tensor(labels)  # a copy: NumPy's array is read-only


def _read_attributes(path: Path) -> torch.Tensor | None:
    """Node attributes [V, A], finite, in float32; None if there is no file."""
    if not path.exists():
        return None
    with np.errstate(over="ignore"):  # numbers beyond float32 raise an error below
        attributes = _read_numbers(path, None, ATTRIBUTES).astype(np.float32)
    is_wrong = ~np.isfinite(attributes).all(axis=1)
    if is_wrong.any():
        line = int(is_wrong.argmax()) + 1
        raise InputError(f"{path}, line {line}: an attribute is not a finite number in float32")
    return torch.from_numpy(attributes)


def _read_numbers(path: Path, columns: int | None, kind: Numbers = INTEGERS) -> np.ndarray:
    """A comma-separated file as [lines, columns]; raises InputError if it is missing or damaged.

    Blank lines at its end are ignored.
    """
    import pandas as pd  # slow to import, and the built-in graphs do not need it

    content = _read(path)
    count = content[:MAX_LINE_BYTES].split(b"\n", 1)[0].count(b",") + 1
    expected = f"each line must have {columns or count} {kind.name}{'s' if (columns or count) > 1 else ''}"
    if columns is None:
        expected += ", as line 1 has"
    if content and (count > kind.max_columns if columns is None else count != columns):
        raise InputError(f"{path} has {count} columns; {expected}")
    try:
        with np.errstate(invalid="ignore"):  # numbers beyond int64 raise an error below
            table = pd.read_csv(
                io.BytesIO(content),
                header=None,
                skipinitialspace=True,
                dtype=kind.dtype,
                skip_blank_lines=False,
                quoting=csv.QUOTE_NONE,
                na_filter=False,
            )
    except (ValueError, OverflowError, OSError) as error:
        reason = _first_bad_line(content, columns or count, kind.pattern) or reason_of(error)
        raise InputError(f"{path} is damaged: {reason}; {expected}") from error
    return table.to_numpy()


def _first_bad_line(content: bytes, columns: int, pattern: re.Pattern[bytes]) -> str:
    """What a message says of the first line that does not have so many numbers; empty if all have."""
    for number, line in enumerate(content.splitlines(), 1):
        fields = line.split(b",")
        if len(fields) != columns or not all(map(pattern.fullmatch, fields)):
            return f"line {number} is {line[:50].decode(errors='replace')!r}"
    return ""


def _count_lines(path: Path) -> int:
    """The number of lines that are not blank."""
    return sum(1 for line in _read(path).split(b"\n") if line.strip())


def _read(path: Path) -> bytes:
    """A file without the blanks at its end; raises InputError if it is missing or cannot be read."""
    try:
        check_regular(path)
        return path.read_bytes().rstrip()
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a TUDataset has _A and _graph_indicator, and may have _graph_labels"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from error
