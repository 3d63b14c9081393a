"""Training from Python on graphs of one's own: ``graph.train_on(list_of_data, ...)``.

Shapes: V nodes of a graph · E edges · F node features.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.io.digests import name_of
from core.io.errors import InputError
from core.io.files import readable
from core.training.from_python import python_config, refuse_dataset
from core.training.launch import launch
from graph.config import GraphConfig, defaults_for
from graph.data import GraphDataset, with_features
from graph.features import NodeValues
from graph.graphs import Graph, simple_edges
from graph.loading import GraphEncoder, load_encoder
from graph.names import GIVEN, NodeFeatures
from graph.scoring import check_classes
from graph.task import GraphTask


def train_on(
    data: Sequence[Any], *, output_dir: str | os.PathLike[str] | None = None, **settings: Any
) -> GraphEncoder:
    """Train InfoGraph as ``python -m graph.train`` does, and return the encoder as ``load_encoder`` does.

    Graphs that all have a class, an integer ``y``, are scored by the SVM; others, also those with regression
    targets, without labels.

    Args:
        data: PyG's ``Data`` objects, a dataset of them, or others with ``edge_index`` [2, E], an undirected
            edge in both directions, and perhaps ``x`` [V, F], ``y`` and ``num_nodes``. Self-loops and repeats
            are dropped. Features are taken as they are; graphs without any get their nodes' degrees, as do
            all with ``node_features="degree"``.
        output_dir: The run's folder; by default a temporary one, which is removed.
        settings: Those of the command, by name: ``objective="hard"``, ``epochs=100``, ``batch_size=64``, ...

    Raises:
        InputError: Graphs or settings are not valid, or ``output_dir`` holds something else.
        TrainingError: Training diverged or collapsed, or the folder cannot be written.
    """
    refuse_dataset(settings, "data")
    for name in ("seeds", "betas"):
        if settings.get(name) is not None:
            raise InputError(f"`{name}` is not a setting of train_on, which trains one encoder on `data`")
    with python_config(GraphConfig, defaults_for, output_dir, settings) as config:
        dataset = dataset_of(data, config.node_features)
        named = replace(config, dataset=dataset.name)
        launch(partial(GraphTask, dataset=dataset), named, shows_folder=output_dir is not None)
        return load_encoder(config.folder())


def dataset_of(data: Sequence[Any], node_features: NodeFeatures = "auto") -> GraphDataset:
    """The dataset of PyG's ``Data`` objects, named by its content; raises InputError if one is not valid."""
    # PyG's datasets answer for any name of their graphs' values.
    if hasattr(data, "edge_index") and not isinstance(data, torch.utils.data.Dataset):
        raise InputError("`data` is a single graph; it must be a list of at least 2")
    if isinstance(data, str) or not isinstance(data, Iterable | torch.utils.data.Dataset):
        raise InputError(f"`data` is of type {type(data).__name__}; it must be a list of PyG's Data")
    items = list(data)
    if len(items) < 2:
        raise InputError(f"`data` has {len(items)} graph{'s' * (not items)}; at least 2 are needed")
    graphs = [_graph_of(item, i) for i, item in enumerate(items)]
    _check_alike([graph.x for graph in graphs])
    labels = [graph.y for graph in graphs if graph.y is not None]
    if len(labels) == len(graphs):
        classes = torch.cat(labels).unique(return_inverse=True)[1]
        check_classes(classes.numpy(), "`data` with y", "remove y")
        graphs = [replace(graph, y=label) for graph, label in zip(graphs, classes.split(1), strict=True)]
    else:
        graphs = [replace(graph, y=None) for graph in graphs]
    parts = [part for graph in graphs for part in (graph.edge_index, graph.x, graph.y) if part is not None]
    name = name_of(GIVEN, [str([graph.num_nodes for graph in graphs]), *parts])
    features = [graph.x for graph in graphs if graph.x is not None]
    values = NodeValues(attributes=torch.cat(features) if features else None)
    if node_features == "auto" and features:
        node_features = "attributes"
    return with_features(name, graphs, values, node_features)


def _graph_of(item: Any, number: int) -> Graph:
    """One graph, checked; ``y`` is set if it is a class."""
    what = f"graph {number} of `data`"
    edge_index, x = getattr(item, "edge_index", None), getattr(item, "x", None)
    if not isinstance(edge_index, Tensor):
        has = "no edge_index" if edge_index is None else f"edge_index of type {type(edge_index).__name__}"
        raise InputError(f"{what} has {has}; a tensor [2, edges] is needed, also without edges")
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.is_floating_point():
        shape = f"{list(edge_index.shape)} and type {edge_index.dtype}"
        raise InputError(f"{what} has edge_index of shape {shape}; it must be integers [2, edges]")
    edge_index = edge_index.detach().cpu().long()
    highest = int(edge_index.max()) if edge_index.numel() else -1
    if x is not None:
        if not isinstance(x, Tensor) or x.ndim != 2 or not x.shape[1] or x.is_complex():
            tensor = isinstance(x, Tensor)
            has = f"shape {list(x.shape)} and type {x.dtype}" if tensor else f"type {type(x).__name__}"
            raise InputError(f"{what} has x of {has}; it must be a tensor [nodes, features] of real numbers")
        x = x.detach().cpu().float()
        if not x.isfinite().all():
            raise InputError(f"{what} has x that is not finite")
    given = getattr(item, "num_nodes", None)
    if x is not None:
        if given is not None and given != len(x):
            raise InputError(f"{what} has x of {len(x)} rows and num_nodes {given}; they must agree")
        given = len(x)
    num_nodes = highest + 1 if given is None else int(given)
    if num_nodes < 1:
        raise InputError(f"{what} has no nodes")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= highest < num_nodes:
        raise InputError(
            f"{what} has edges between nodes {int(edge_index.min())} to {highest}; its nodes are 0 to "
            f"{num_nodes - 1}"
        )
    _check_undirected(edge_index, num_nodes, what)
    return Graph(simple_edges(edge_index), num_nodes, _class_of(getattr(item, "y", None), what), x)


def _check_undirected(edge_index: Tensor, num_nodes: int, what: str) -> None:
    """Raise InputError unless each edge is there in both directions."""
    source, target = edge_index
    forward, backward = source * num_nodes + target, target * num_nodes + source
    one_way = forward[~torch.isin(forward, backward)].unique()
    if len(one_way):
        first, last = divmod(int(one_way[0]), num_nodes)
        raise InputError(
            f"{what} has edge {first}, {last} but not {last}, {first} ({len(one_way)} such); graphs are "
            "undirected and list both"
        )


def _class_of(y: Any, what: str) -> Tensor | None:
    """The class [1] of a graph; None for a regression target, several numbers or nothing."""
    if isinstance(y, str) or (isinstance(y, np.ndarray) and y.dtype.kind not in "biuf"):
        raise InputError(f"{what} has y {readable(str(y))[:50]!r}; a class must be an integer")
    if isinstance(y, bool | int | np.integer | np.ndarray):
        y = torch.as_tensor(y)
    if not isinstance(y, Tensor) or y.numel() != 1 or y.is_floating_point() or y.is_complex():
        return None
    return y.detach().cpu().long().reshape(1)


def _check_alike(features: Sequence[Tensor | None]) -> None:
    """Raise InputError unless all graphs have features of one width, or none has any."""
    widths = [None if x is None else x.shape[1] for x in features]
    for number, width in enumerate(widths):
        if width != widths[0]:
            said = ["no x" if value is None else f"{value} features a node" for value in (widths[0], width)]
            raise InputError(f"graph 0 of `data` has {said[0]} and graph {number} {said[1]}; they must agree")
