"""Graphs by name: the embedded motifs, or a TUDataset that is on the disk or downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from core.io.errors import InputError
from graph.graphs import Graph, one_hot
from graph.motifs import make_motifs
from graph.names import check_name, has_tu_dataset, tu_folder
from graph.tudataset import MAX_FEATURE_ENTRIES, TU_URL, download_tu_dataset, load_tu_dataset

MAX_ONE_HOT_DEGREE = 1000  # from this on, InfoGraph standardises degrees instead of coding them one-hot


@dataclass(frozen=True)
class GraphDataset:
    """Graphs with node features, and a label for each graph or for none."""

    name: str
    graphs: Sequence[Graph]  # or PyG's ``Data``
    labels: np.ndarray | None  # (graphs,) int

    @property
    def num_features(self) -> int:
        return self.graphs[0].x.shape[1]


def load_dataset(name: str, data_root: Path, download: bool = False) -> GraphDataset:
    """Load ``motifs`` or a TUDataset, with InfoGraph's node features: node labels, or degrees without them.

    Raises InputError if the name is unknown, if the data are missing and not to be downloaded, or if a file
    is damaged.
    """
    if name == "motifs":
        graphs = make_motifs()
    else:
        graphs = load_tu_dataset(name, _find_tu_dataset(name, data_root, download))
    if len(graphs) < 2:
        raise InputError(f"`dataset` is {name!r}, which has {len(graphs)} graph; at least 2 are needed")
    if graphs[0].x is None:
        graphs = with_degree_features(graphs, name)
    return GraphDataset(name, graphs, labels_of(graphs))


def labels_of(graphs: Sequence[Graph]) -> np.ndarray | None:
    """The class of each graph; None if they have none."""
    classes = [graph.y for graph in graphs if graph.y is not None]
    return torch.cat(classes).numpy() if classes else None


def _find_tu_dataset(name: str, data_root: Path, download: bool) -> Path:
    """The folder of a TUDataset; it is downloaded if it is missing."""
    check_name(name, data_root, download)
    folder = tu_folder(name, data_root)
    if not has_tu_dataset(name, data_root):
        if not download:
            raise InputError(
                f"`dataset` is {name!r}, but {folder / 'raw'} has no {name}_A.txt; set `download` to "
                f"fetch it from {TU_URL}, or set `data_root` (or $HCL_DATA)"
            )
        download_tu_dataset(name, folder)
    return folder


def with_degree_features(graphs: Sequence[Graph], name: str) -> list[Graph]:
    """The graphs with the degree of each node as its features: one-hot, or standardised from 1,000 on.

    Raises InputError, naming the dataset, if one-hot degrees take too much memory.
    """
    degrees = [graph.edge_index[0].bincount(minlength=graph.num_nodes) for graph in graphs]
    all_degrees = torch.cat(degrees)
    max_degree = int(all_degrees.max())
    if max_degree < MAX_ONE_HOT_DEGREE:
        if len(all_degrees) * (max_degree + 1) > MAX_FEATURE_ENTRIES:
            raise InputError(
                f"`dataset` is {name!r}, whose {len(all_degrees)} nodes have degrees up to {max_degree}; "
                "coded one-hot they take too much memory"
            )
        features = [one_hot(value, max_degree + 1) for value in degrees]
    else:
        mean, std = all_degrees.float().mean(), all_degrees.float().std()
        features = [((value.float() - mean) / std).unsqueeze(1) for value in degrees]
    return [replace(graph, x=x) for graph, x in zip(graphs, features, strict=True)]
