"""TUDatasets: found, downloaded, checked line by line, and read through PyG's own class."""

import contextlib
import hashlib
import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.datasets import TUDataset

from core.errors import InputError
from core.files import download, user_cache

TU_URL = "https://www.chrsmrrs.com/graphkerneldatasets"


def download_tu_dataset(name: str, folder: Path) -> None:
    """Fetch ``NAME.zip`` and lay it out as ``folder/raw/NAME_*.txt``, whole or not at all."""
    url = f"{TU_URL}/{name}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            archive_path = download(url, Path(scratch) / f"{name}.zip")
            raw = Path(scratch) / "raw"
            raw.mkdir()
            with zipfile.ZipFile(archive_path) as archive:
                for member in archive.namelist():
                    # Only the data set's own text files, by their last name: no path of the archive is used.
                    file_name = member.rsplit("/", 1)[-1]
                    if file_name.startswith(f"{name}_") and file_name.endswith(".txt"):
                        with archive.open(member) as source, open(raw / file_name, "wb") as target:
                            shutil.copyfileobj(source, target)
            check_raw_files(name, raw)
            raw.rename(folder / "raw")
    except zipfile.BadZipFile as error:
        raise InputError(f"what {url} sent is no zip archive ({error})") from error
    except OSError as error:
        raise InputError(f"{url} cannot be stored under {folder}: {error.strerror}") from error


def load_tu_dataset(name: str, folder: Path) -> list[Data]:
    """The graphs of ``folder/raw/NAME_*.txt``; node labels are their features, classes their ``y``.

    PyG's processed file is kept beside ``raw``, or in the user's cache where that cannot be written,
    under a name that changes with the raw files.
    """
    raw = folder / "raw"
    fingerprint = raw_fingerprint(name, raw)
    for parent in (folder, user_cache() / "TUDataset" / name):
        processed = parent / f"processed-{fingerprint}"
        if not processed.exists():
            check_raw_files(name, raw)
            try:
                _process(name, raw, processed)
            except OSError:
                continue
        return _graphs(_LocalTUDataset(name, raw, processed))
    raise InputError(
        f"neither {folder} nor {user_cache()} can be written; $XDG_CACHE_HOME names another cache"
    )


def raw_fingerprint(name: str, raw: Path) -> str:
    """Short hash of the raw files' names, sizes and times: another copy is processed anew."""
    stats = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(raw.glob(f"{name}_*.txt"))
    ]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


class _LocalTUDataset(TUDataset):
    """PyG's TUDataset with its two folders where we say."""

    def __init__(self, name: str, raw: Path, processed: Path) -> None:
        self._folders = str(raw.absolute()), str(processed.absolute())
        with contextlib.redirect_stderr(io.StringIO()):  # it announces "Processing..."
            super().__init__(root=str(processed.parent), name=name)
        # PyG's slices end with the last graph that has an edge; later graphs have none.
        for key in self.slices.keys() & {"edge_index", "edge_attr"}:
            ends = self.slices[key]
            self.slices[key] = F.pad(ends, (0, len(self.slices["y"]) - len(ends)), value=int(ends[-1]))

    @property
    def raw_dir(self) -> str:
        return self._folders[0]

    @property
    def processed_dir(self) -> str:
        return self._folders[1]

    def download(self) -> None:
        raise InputError(f"{self.raw_dir} lost its files while they were read")


def _process(name: str, raw: Path, processed: Path) -> None:
    """Make PyG's processed folder beside its final place and rename it: several runs may do so at once."""
    processed.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=processed.parent, prefix=".processing-") as scratch:
        made = Path(scratch) / "processed"
        _LocalTUDataset(name, raw, made)
        with contextlib.suppress(OSError):  # another run was first: its folder holds the same
            made.rename(processed)
    if not processed.exists():
        raise OSError(f"{processed} could not be made")


def _graphs(dataset: TUDataset) -> list[Data]:
    graphs = list(dataset)
    for graph in graphs:
        graph.edge_attr = None  # InfoGraph's GIN has no use for edges' labels
    return graphs


def check_raw_files(name: str, raw: Path) -> None:
    """Raise InputError, naming file and line, unless the text files are whole and agree with each other.

    The format: github.com/chrsmrrs/tudataset, "File Format".
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
    forward = np.unique(edges[:, 0] * (nodes + 1) + edges[:, 1])
    backward = np.unique(edges[:, 1] * (nodes + 1) + edges[:, 0])
    one_way = np.setdiff1d(forward, backward)
    if len(one_way):
        source, target = divmod(int(one_way[0]), nodes + 1)
        raise InputError(
            f"{edges_path} has edge {source}, {target} but not {target}, {source} ({len(one_way)} such); "
            "TUDatasets are undirected and list both: is it cut short?"
        )
    for kind, count in (("node_labels", nodes), ("node_attributes", nodes), ("edge_labels", len(edges))):
        path = raw / f"{name}_{kind}.txt"
        if path.exists() and (lines := _count_lines(path)) != count:
            raise InputError(f"{path} has {lines} lines; {count} are needed: is it cut short?")


def _read_integers(path: Path, columns: int) -> np.ndarray:
    """[lines, columns] int64 of a comma-separated file; InputError names what is wrong with it."""
    try:
        table = pd.read_csv(path, header=None, skipinitialspace=True, dtype=np.int64, skip_blank_lines=False)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a TUDataset has _A, _graph_indicator and _graph_labels"
        ) from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged: {reason}; each line must hold {columns} integers") from error
    if table.shape[1] != columns:
        raise InputError(f"{path} has {table.shape[1]} columns; each line must hold {columns} integers")
    return table.to_numpy()


def _count_lines(path: Path) -> int:
    return sum(1 for line in path.read_bytes().splitlines() if line.strip())
