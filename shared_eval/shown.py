"""The few items whose embeddings a run saves before and after training, for the report.

Shapes: n items · D dim · E edges · V nodes.
"""

import base64
import json
from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from core.io.files import readable
from shared_eval.figures import COLOURS, Sample
from shared_eval.gallery import Item, picture_of

MAX_DRAWN_NODES = 200  # of a graph; larger ones are a count
SIZE = 64  # of a drawing


def shown_items(sample: Sample) -> list[Item]:
    """The items of a sample; none if it has none, or if they cannot be read."""
    try:
        if "shown_images" in sample:
            return [Item("", picture_of(image)) for image in sample["shown_images"]]
        if "shown_texts" in sample:
            return [Item(readable(str(text))) for text in json.loads(sample["shown_texts"].tobytes())]
        if "shown_edges" in sample:
            return _graphs(sample["shown_edges"], sample["shown_nodes"])
    except (ValueError, LookupError, TypeError, RecursionError):  # a file that was made to break this
        pass
    return []


def embeddings_of(samples: Mapping[str, Sample], items: int) -> dict[str, np.ndarray]:
    """The items' embeddings [n, D] by name: before training, and after it with each objective."""
    found: dict[str, np.ndarray] = {}
    for label, sample in samples.items():
        before, after = (sample.get(f"shown_{name}") for name in ("before", "after"))
        if (
            before is not None
            and after is not None
            and before.shape == after.shape == (items, after.shape[-1])
        ):
            found.setdefault("before training", before.astype(float))
            found[label] = after.astype(float)
    return found


def _graphs(edges: np.ndarray, graph_of_node: np.ndarray) -> list[Item]:
    """Drawings of graphs: [2, E] edges between all their nodes, [V] the graph of each node."""
    items = []
    for graph in np.unique(graph_of_node):
        nodes = np.flatnonzero(graph_of_node == graph)
        own = edges[:, np.isin(edges[0], nodes)]
        local = np.searchsorted(nodes, own)
        items.append(graph_item(f"{len(nodes)} nodes", local, len(nodes)))
    return items


def graph_item(caption: str, edges: np.ndarray, nodes: int) -> Item:
    """A graph with so many nodes and [2, E] edges, drawn unless it is large."""
    return Item(caption, draw_graph(edges, nodes) if nodes <= MAX_DRAWN_NODES else "")


def draw_graph(edges: np.ndarray, nodes: int) -> str:
    """A graph as an SVG in a data URI: [2, E] edges between so many nodes."""
    points = layout(edges, nodes)
    lines = "".join(
        f'<path d="M{points[a, 0]:.1f} {points[a, 1]:.1f}L{points[b, 0]:.1f} {points[b, 1]:.1f}"/>'
        for a, b in edges.T
        if a < b
    )
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>' for x, y in points)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}">'
        f'<g stroke="#888888">{lines}</g><g fill="{COLOURS[0]}">{circles}</g></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def layout(edges: np.ndarray, nodes: int) -> np.ndarray:
    """Positions whose distances are near those along the edges: classical scaling, [nodes, 2]."""
    graph = csr_array((np.ones(edges.shape[1]), tuple(edges)), shape=(nodes, nodes))
    distances = shortest_path(graph, directed=False, unweighted=True)
    finite = distances[np.isfinite(distances)].max(initial=0)
    distances[np.isinf(distances)] = finite + 2  # between parts that are not connected
    squared = distances**2
    centred = -(squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()) / 2
    values, vectors = np.linalg.eigh(centred)
    points = (vectors[:, -2:] * np.sqrt(values[-2:].clip(min=0))).reshape(nodes, -1)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))  # a graph of one node
    spread = np.abs(points).max(initial=1e-9)
    return SIZE / 2 + points * (SIZE / 2 - 4) / max(spread, 1e-9)
