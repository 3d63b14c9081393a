"""Graphs by name: the built-in motifs, or a TUDataset that is on the disk or downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from core.io.errors import InputError
from graph.features import Coding, NodeValues, fit_coding
from graph.graphs import Graph
from graph.motifs import make_motifs
from graph.names import NodeFeatures, check_name, tu_files
from graph.tudataset import TU_URL, download_tu_dataset, load_tu_dataset


@dataclass(frozen=True)
class GraphDataset:
    """Graphs with node features, and a label for each graph or for none."""

    name: str
    graphs: Sequence[Graph]  # or PyG's ``Data``
    labels: np.ndarray | None  # (graphs,) int
    coding: Coding = field(default_factory=Coding)  # how the features were made
    numbers: np.ndarray | None = None  # (graphs,), of graphs in the files, from 0, where some are left out
    classes: np.ndarray | None = None  # (classes,), the labels in the files

    @property
    def num_features(self) -> int:
        return self.graphs[0].x.shape[1]


def load_dataset(
    name: str,
    data_root: Path,
    download: bool = False,
    node_features: NodeFeatures = "auto",
    coding: Coding | None = None,
) -> GraphDataset:
    """Load ``motifs`` or a TUDataset, with features of its nodes: by default InfoGraph's.

    Args:
        name: Of the dataset; or ``folder:PATH``, a folder with a TUDataset's files.
        data_root: The folder with the datasets.
        download: Download the dataset if it is missing.
        node_features: What features are made of, if there is no coding.
        coding: How they are made, if an encoder was trained with it; by default it is fitted to the graphs.

    Raises:
        InputError: The name is unknown, the data are missing and not to be downloaded, a file is damaged, or
            nodes have no such features.
    """
    if coding is not None:
        node_features = coding.kind
    if name == "motifs":
        return with_features(name, make_motifs(), NodeValues(), node_features, coding)
    files = load_tu_dataset(*_find_tu_dataset(name, data_root, download), node_features)
    if len(files.graphs) < 2 and coding is None:
        raise InputError(f"`dataset` is {name!r}, which has {len(files.graphs)} graph; at least 2 are needed")
    dataset = with_features(name, files.graphs, files.values, node_features, coding)
    return replace(dataset, numbers=files.numbers, classes=files.classes)


def with_features(
    name: str,
    graphs: Sequence[Graph],
    values: NodeValues,
    node_features: NodeFeatures = "auto",
    coding: Coding | None = None,
) -> GraphDataset:
    """The dataset of graphs with these values of all their nodes; see ``load_dataset``."""
    degrees = torch.cat([graph.edge_index[0].bincount(minlength=graph.num_nodes) for graph in graphs])
    coding = coding or fit_coding(node_features, values, degrees, name)
    features = coding.features(values, degrees, name).split([graph.num_nodes for graph in graphs])
    with_x = [replace(graph, x=x) for graph, x in zip(graphs, features, strict=True)]
    return GraphDataset(name, with_x, labels_of(graphs), coding)


def labels_of(graphs: Sequence[Graph]) -> np.ndarray | None:
    """The class of each graph; None if they have none."""
    classes = [graph.y for graph in graphs if graph.y is not None]
    return torch.cat(classes).numpy() if classes else None


def _find_tu_dataset(name: str, data_root: Path, download: bool) -> tuple[str, Path]:
    """What the names of a TUDataset's files begin with, and their folder; it is downloaded if missing."""
    check_name("`dataset`", name, data_root)
    folder, prefix = tu_files(name, data_root)
    if not (folder / f"{prefix}_A.txt").exists():
        if not download:
            raise InputError(
                f"`dataset` is {name!r}, but {folder} has no {name}_A.txt; set `download` to "
                f"fetch it from {TU_URL}, or set `data_root` (or $HCL_DATA)"
            )
        download_tu_dataset(name, folder.parent)
    return prefix, folder
