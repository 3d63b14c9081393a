"""The encoder of a finished run, to be used anywhere: ``graph.load_encoder(run)``.

Shapes: V nodes of all graphs · E edges · G graphs · F node features · H hidden · L layers.
"""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from core.io.errors import InputError, reason_of
from core.training.records import HEADS, read_result
from core.training.run_folder import load_encoder_state
from core.training.settings import load_config
from graph.config import GraphConfig
from graph.encoder import Head
from graph.features import Coding, NodeValues
from graph.graphs import simple_edges

NO_NODES = "the graph has no nodes; at least 1 is needed"


class GraphEncoder(nn.Module):
    """A run's GIN in plain PyTorch, called as PyG's modules are: ``encoder(x, edge_index, batch)``.

    It equals ``graph.encoder.GIN``, which computes equal nodes once and several runs together.

    Args:
        num_features: F.
        hidden: H.
        layers: L.
        coding: How the features were made.
    """

    def __init__(self, num_features: int, hidden: int, layers: int, coding: Coding | None = None) -> None:
        super().__init__()
        sizes = [num_features] + [hidden] * (layers - 1)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for size in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in sizes)
        self.num_features, self.dim, self.coding = num_features, hidden * layers, coding

    def forward(self, x: Any, edge_index: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        """The representations of graphs [G, L·H]. Self-loops and repeated edges count as if not there.

        Args:
            x: Node features [V, F]; or, instead of all three, PyG's ``Data`` or ``Batch``, or what else has
                ``edge_index`` and perhaps ``x``, ``batch`` and ``num_nodes``. If the encoder was trained on
                degrees, these are computed, whatever ``x`` is; beside ``edge_index`` only if it is None.
            edge_index: Source and target of each edge [2, E]; an undirected edge is there in both directions.
            batch: The graph of each node [V]; None for a single graph.

        Raises:
            ValueError: A shape is another one, there are no nodes, or ``x`` is None and the encoder was
                trained on other features than degrees.
        """
        num_graphs = None
        if edge_index is None:
            data = x
            edge_index = _edges_of(data)
            num_graphs, batch = getattr(data, "num_graphs", None), getattr(data, "batch", None)
            x = getattr(data, "x", None)
            if x is None or (self.coding is not None and self.coding.is_degree):
                x = self._degrees(edge_index, getattr(data, "num_nodes", None))
        elif x is None:
            x = self._degrees(edge_index, None if batch is None else len(batch))
        nodes = self.nodes(x, edge_index)
        if batch is None:
            return nodes.sum(dim=0, keepdim=True)
        rows = int(batch.max()) + 1 if num_graphs is None else num_graphs
        return nodes.new_zeros(rows, self.dim).index_add_(0, batch, nodes)

    def nodes(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The representations of nodes [V, L·H] from their features [V, F] and the edges [2, E]."""
        if x.ndim != 2 or x.shape[1] != self.num_features:
            raise ValueError(f"`x` has shape {list(x.shape)}; the encoder takes [nodes, {self.num_features}]")
        if not len(x):
            raise ValueError(NO_NODES)
        _check_edges(edge_index)
        source, target = simple_edges(edge_index)
        x = x.to(next(self.parameters()).dtype)
        outputs = []
        for mlp, norm in zip(self.mlps, self.norms, strict=True):
            x = norm(mlp(x.index_add(0, target, x[source])).relu())
            outputs.append(x)
        return torch.cat(outputs, dim=1)

    def _degrees(self, edge_index: Tensor, num_nodes: int | None) -> Tensor:
        """The features of nodes that are coded by their degrees [V, F]."""
        if self.coding is None or not self.coding.is_degree:
            raise ValueError(f"`x` is None; the encoder was trained on {self.num_features} features a node")
        _check_edges(edge_index)
        if num_nodes is None:
            num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
        if not num_nodes:
            raise ValueError(NO_NODES)
        degrees = simple_edges(edge_index)[0].bincount(minlength=num_nodes)
        try:
            return self.coding.features(NodeValues(), degrees, "the graph")
        except InputError as error:
            raise ValueError(str(error)) from None


def _edges_of(data: Any) -> Tensor:
    """The edges [2, E] of PyG's ``Data``, or of what is like it; raises ValueError for other things."""
    edge_index = getattr(data, "edge_index", None)
    if edge_index is None:
        raise ValueError(
            f"the encoder got a {type(data).__name__} without edge_index; it takes one graph, or PyG's "
            "Batch, which Batch.from_data_list makes of a list of them"
        )
    return edge_index


def _check_edges(edge_index: Tensor) -> None:
    """Raise ValueError unless the edges are a tensor [2, E]."""
    if not isinstance(edge_index, Tensor):
        raise ValueError(f"`edge_index` is a {type(edge_index).__name__}; it must be a tensor [2, edges]")
    if edge_index.ndim != 2 or len(edge_index) != 2:
        raise ValueError(f"`edge_index` has shape {list(edge_index.shape)}; it must be [2, edges]")


def load_encoder(run: str | os.PathLike[str]) -> GraphEncoder:
    """The trained encoder of a run's folder, on the CPU and in eval mode.

    Raises:
        InputError: There is no finished run of graphs, or its files are damaged.
    """
    folder = Path(run)
    config = load_config(folder, GraphConfig)
    path = folder / "result.json"
    if not path.exists():
        raise InputError(f"{path} is missing: the run is not finished; resume it with `resume`")
    coding = recorded_coding(folder)
    num_features = _num_features(folder / "encoder.safetensors")
    with torch.device("meta"):  # the settings may ask for more memory than the weights need
        encoder = GraphEncoder(num_features, config.hidden, config.layers, coding)
    load_encoder_state(encoder, folder, _with_counts)
    return encoder.eval()


def recorded_coding(run: Path) -> Coding | None:
    """How a run's node features were made; None if it has no record, or an older one, which does not say."""
    path = run / "result.json"
    try:
        values = read_result(path).get("node_features")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return Coding.from_dict(values) if isinstance(values, dict) else None


def load_global_head(run: Path, dim: int) -> Head:
    """The head of a finished run that projects representations of graphs: [1, G, dim] -> [1, G, dim].

    Raises InputError if the run's folder does not have it, as those of older runs with labels.
    """
    if not (run / HEADS).exists():
        raise InputError(
            f"`projections` need {run / HEADS}, which older runs with labels do not have; leave them out, or "
            "train again"
        )
    with torch.device("meta"):
        heads = nn.ModuleDict({"local": Head(dim), "global": Head(dim)})
    load_state(heads, run, HEADS)
    return heads["global"]


def load_state(module: nn.Module, run: Path, name: str = "encoder.safetensors") -> None:
    """Load a file of a finished run into a module for several runs, as that of one run."""

    def as_single_run(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.unsqueeze(0) for key, value in state.items()}

    load_encoder_state(module, run, as_single_run, name)


def _num_features(path: Path) -> int:
    """F of the encoder in a file; raises InputError if it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_slice("mlps.0.0.weight").get_shape()[1]
    except (OSError, SafetensorError, LookupError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from error


def _with_counts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the counts of batches that PyTorch's batch norm keeps; a fixed momentum ignores them."""
    means = [name for name in state if name.endswith("running_mean")]
    counts = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    return state | counts
