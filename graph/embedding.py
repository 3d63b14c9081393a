"""The work of ``graph.embed``: graphs are encoded and written a batch at a time."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from core.io.errors import InputError
from core.training.runtime import choose_device, threads_for
from graph.config import GraphConfig
from graph.data import GraphDataset, load_dataset
from graph.embed import EmbedConfig
from graph.encoder import Head
from graph.graphs import Graph
from graph.loading import GraphEncoder, load_encoder, load_global_head
from shared_eval.embeddings import Rows

if TYPE_CHECKING:
    from shared_eval.gallery import Item

BATCH_NODES = 1 << 16  # the graphs of a batch begin within so many nodes


def embed(config: EmbedConfig, trained: GraphConfig) -> int:
    """Write a row for each graph of ``config.dataset``; return their number.

    Raises InputError if the run is not finished, if the graphs cannot be read or have other node features
    than those that the encoder takes, or if the file cannot be written; then there is no file.
    """
    device = choose_device(config.device)
    encoder = load_encoder(config.run)
    head = load_global_head(config.run, encoder.dim).to(device) if config.projections else None
    dataset = load_dataset(
        config.dataset, config.data_root, config.download, trained.node_features, encoder.coding
    )
    if dataset.num_features != encoder.num_features:
        raise InputError(
            f"{dataset.name} has {dataset.num_features} features a node; the encoder in {config.run} takes "
            f"{encoder.num_features}"
        )
    with threads_for(math.inf), torch.no_grad():
        rows = embed_batches(encoder.to(device), head, dataset, device)
        title = f"{config.dataset}, embedded by {config.run}"
        return config.write(rows, title, len(dataset.graphs))


def embed_batches(
    encoder: GraphEncoder, head: Head | None, dataset: GraphDataset, device: torch.device
) -> Iterator[Rows]:
    """The rows of a dataset's graphs in its order: their numbers from 0, their labels, their vectors.

    These are representations, or with a head their projections.
    """
    sizes = np.array([graph.num_nodes for graph in dataset.graphs])
    numbers = np.arange(len(sizes)) if dataset.numbers is None else dataset.numbers
    labels = dataset.labels
    if labels is not None and dataset.classes is not None:
        labels = dataset.classes[labels]
    batch_of_graph = (sizes.cumsum() - sizes) // BATCH_NODES
    for batch in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(batch_of_graph)) + 1):
        graphs, counts = [dataset.graphs[i] for i in batch], torch.from_numpy(sizes[batch])
        firsts = (counts.cumsum(0) - counts).tolist()
        edges = [graph.edge_index + first for graph, first in zip(graphs, firsts, strict=True)]
        embeddings = encoder(
            torch.cat([graph.x for graph in graphs]).to(device),
            torch.cat(edges, dim=1).to(device),
            torch.arange(len(counts)).repeat_interleave(counts).to(device),
        )
        if head is not None:
            embeddings = head(embeddings.unsqueeze(0)).squeeze(0)
        ids = numbers[batch].tolist()
        own_labels = None if labels is None else labels[batch].tolist()
        yield Rows(ids, embeddings.cpu(), own_labels, partial(shown, ids, graphs))


def shown(ids: Sequence[int], graphs: Sequence[Graph], i: int) -> "Item":
    """Graph i of some graphs as a gallery draws it."""
    from shared_eval.shown import graph_item  # imports SciPy and matplotlib

    return graph_item(f"graph {ids[i]}", graphs[i].edge_index.numpy(), graphs[i].num_nodes)
