"""Graphs by name: the embedded motifs, or a TUDataset found locally or downloaded."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import degree, one_hot

from core.io.errors import InputError
from graph.motifs import make_motifs
from graph.tudataset import MAX_FEATURE_ENTRIES, TU_URL, download_tu_dataset, load_tu_dataset

PAPER_DATASETS = (
    "MUTAG",
    "PTC_MR",
    "ENZYMES",
    "PROTEINS",
    "DD",
    "REDDIT-BINARY",
    "IMDB-BINARY",
    "IMDB-MULTI",
)
# Above this, InfoGraph standardises the degree instead of coding it one-hot.
MAX_ONE_HOT_DEGREE = 1000


@dataclass(frozen=True)
class GraphDataset:
    """Graphs with node features, and their classes."""

    name: str
    graphs: list[Data]
    labels: np.ndarray  # (graphs,) int

    @property
    def num_features(self) -> int:
        return self.graphs[0].num_features


def load_dataset(name: str, data_root: Path, download: bool = False) -> GraphDataset:
    """Load ``motifs`` or a TUDataset, with node features as InfoGraph has them.

    Those are the node labels one-hot, or the degree where there are none. Raises InputError where the
    name is unknown, the data are missing and not to be downloaded, or their files are damaged.
    """
    if name == "motifs":
        graphs = make_motifs()
    else:
        folder = data_root / "TUDataset" / name
        if not re.fullmatch(r"[\w.+-]+", name) or not (folder / "raw" / f"{name}_A.txt").exists():
            _download_or_explain(name, folder, download)
        graphs = load_tu_dataset(name, folder)
    if len(graphs) < 2:
        raise InputError(f"--dataset {name} has {len(graphs)} graph; at least 2 are needed")
    if graphs[0].x is None or graphs[0].num_features == 0:
        add_degree_features(graphs, name)
    return GraphDataset(name, graphs, torch.cat([graph.y for graph in graphs]).numpy())


def add_degree_features(graphs: list[Data], name: str) -> None:
    """Give each node its degree: one-hot, or standardised over all nodes where some are over 1,000.

    Raises InputError where the one-hot degrees of the dataset ``name`` would fill the memory.
    """
    degrees = [degree(graph.edge_index[0], graph.num_nodes, dtype=torch.long) for graph in graphs]
    together = torch.cat(degrees)
    largest = int(together.max())
    if largest < MAX_ONE_HOT_DEGREE:
        if len(together) * (largest + 1) > MAX_FEATURE_ENTRIES:
            raise InputError(
                f"--dataset {name} has degrees from 0 to {largest} at {len(together)} nodes; coded one-hot "
                "they take too much memory"
            )
        features = [one_hot(value, num_classes=largest + 1) for value in degrees]
    else:
        mean, deviation = together.float().mean(), together.float().std()
        features = [((value.float() - mean) / deviation).unsqueeze(1) for value in degrees]
    for graph, x in zip(graphs, features, strict=True):
        graph.x = x


def _download_or_explain(name: str, folder: Path, download: bool) -> None:
    known = ("motifs", *PAPER_DATASETS)
    if not re.fullmatch(r"[\w.+-]+", name) or (name not in known and not download):
        close = difflib.get_close_matches(name.upper(), [k.upper() for k in known], n=2)
        matches = [k for k in known if k.upper() in close]
        hint = f" (did you mean {' or '.join(matches)}?);" if matches else ";"
        raise InputError(
            f"--dataset {name} is unknown{hint} known: {', '.join(known)}, and any other TUDataset that "
            f"lies under {folder.parent} or is fetched with --download"
        )
    if not download:
        raise InputError(
            f"--dataset {name}: no {name}_A.txt under {folder / 'raw'}; add --download to fetch it from "
            f"{TU_URL}, or set --data-root (or $HCL_DATA) to the folder that holds TUDataset"
        )
    download_tu_dataset(name, folder)
