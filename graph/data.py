"""Graphs by name: the embedded motifs, or a TUDataset found locally or downloaded.

Shapes: V nodes of a batch · G graphs of a batch · F node features.
"""

import difflib
import re
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import degree, one_hot

from core.errors import InputError
from graph.motifs import make_motifs
from graph.tudataset import TU_URL, download_tu_dataset, load_tu_dataset

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
LARGEST_ONE_HOT_DEGREE = 1000


@dataclass(frozen=True)
class GraphDataset:
    """Graphs with node features, and their classes."""

    name: str
    graphs: list[Data]
    labels: np.ndarray  # (graphs,) int

    @property
    def num_features(self) -> int:
        return self.graphs[0].num_features


@dataclass(frozen=True)
class GraphBatch:
    """Some graphs as one: block-diagonal, on a device."""

    features: Tensor  # (V, F)
    adjacency: Tensor  # (V, V) sparse CSR, symmetric
    graph: Tensor  # (V,) int, ascending: each node's graph
    positions: Tensor  # (G,) int, where each graph stands in the dataset

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device) -> "GraphBatch":
        return GraphBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


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
        add_degree_features(graphs)
    return GraphDataset(name, graphs, torch.cat([graph.y for graph in graphs]).numpy())


def add_degree_features(graphs: list[Data]) -> None:
    """Give each node its degree: one-hot, or standardised over all nodes where some are over 1,000."""
    degrees = [degree(graph.edge_index[0], graph.num_nodes, dtype=torch.long) for graph in graphs]
    together = torch.cat(degrees)
    if together.max() < LARGEST_ONE_HOT_DEGREE:
        features = [one_hot(value, num_classes=int(together.max()) + 1) for value in degrees]
    else:
        mean, deviation = together.float().mean(), together.float().std()
        features = [((value.float() - mean) / deviation).unsqueeze(1) for value in degrees]
    for graph, x in zip(graphs, features, strict=True):
        graph.x = x


def make_batches(dataset: GraphDataset, batch_size: int, seed: int, device: torch.device) -> list[GraphBatch]:
    """Shuffle once by ``seed``, collate, and move to ``device``: the batches of every epoch.

    A single graph left over joins the batch before it: alone it would have no negatives.
    """
    order = torch.randperm(len(dataset.graphs), generator=torch.Generator().manual_seed(seed))
    chunks = list(order.split(batch_size))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return [collate(dataset, positions).to(device) for positions in chunks]


def collate(dataset: GraphDataset, positions: Tensor) -> GraphBatch:
    """The graphs at ``positions`` of the dataset, as one batch."""
    joined = Batch.from_data_list([dataset.graphs[i] for i in positions.tolist()])
    nodes = joined.num_nodes
    edges = torch.sparse_coo_tensor(
        joined.edge_index, torch.ones(joined.num_edges), (nodes, nodes), check_invariants=False
    )
    with warnings.catch_warnings():  # torch announces that sparse CSR is in beta, once a process
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        adjacency = edges.coalesce().to_sparse_csr()
    return GraphBatch(joined.x, adjacency, joined.batch, positions)


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
