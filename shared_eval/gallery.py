"""A page of nearest neighbours: a few items, and what lies nearest to them in each embedding.

Shapes: N items · n items of a batch · D dim.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from core.io.files import readable
from shared_eval.embeddings import Rows
from shared_eval.outputs import write_output

if TYPE_CHECKING:
    import jinja2

MAX_ITEMS = 1000  # of which neighbours are found
QUERIES = 10
NEIGHBOURS = 8
THUMBNAIL = 64  # pixels


class Item(NamedTuple):
    """What the page shows of an item; ``picture`` is a data URI, empty for text."""

    caption: str
    picture: str = ""


class Neighbour(NamedTuple):
    """An item, and its cosine to the query."""

    item: Item
    cosine: float


def write_gallery(
    output: Path, title: str, items: Sequence[Item], embeddings: Mapping[str, np.ndarray]
) -> Path:
    """Write a page, which needs neither a server nor a network, and return its path.

    Args:
        output: The file.
        title: Its heading.
        items: N of them. Queries are taken evenly.
        embeddings: [N, D] by name, such as an objective's.
    """
    page = template("gallery").render(title=title, rows=rows_of(items, embeddings), count=len(items))
    write_output(output, page)
    return output


def template(name: str) -> "jinja2.Template":
    """A page of this folder by name."""
    import jinja2  # embeddings without a page do not need it

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(f"{name}.html.jinja")


def rows_of(
    items: Sequence[Item], embeddings: Mapping[str, np.ndarray], queries: int = QUERIES
) -> list[tuple[Item, dict[str, list[Neighbour]]]]:
    """Some items, taken evenly, each with its neighbours by the name of an embedding [N, D]."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(queries, len(items))).astype(int))
    found = {name: nearest(vectors, chosen) for name, vectors in embeddings.items()}
    return [
        (
            items[query],
            {
                name: [Neighbour(items[i], cosine) for i, cosine in zip(*neighbours[row], strict=True)]
                for name, neighbours in found.items()
            },
        )
        for row, query in enumerate(chosen)
    ]


def nearest(vectors: np.ndarray, queries: Sequence[int] | np.ndarray) -> list[tuple[list[int], list[float]]]:
    """For each query, the other items that are nearest by cosine, and their cosines: [N, D]."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    cosines = unit[queries] @ unit.T
    cosines[np.arange(len(queries)), queries] = -np.inf  # itself
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(vectors) - 1)]
    return [(chosen.tolist(), row[chosen].tolist()) for chosen, row in zip(order, cosines, strict=True)]


def picture_of(image: np.ndarray) -> str:
    """A thumbnail as a data URI: uint8 [3, H, W]."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Collector:
    """Keeps an even selection of the rows that are embedded, at most MAX_ITEMS, for a gallery."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.vectors: list[np.ndarray] = []
        self.seen, self.every = 0, 1

    def rows(self, batches: Iterable[Rows]) -> Iterator[Rows]:
        """The batches as they are, on their way to a file."""
        for batch in batches:
            for i in range(-self.seen % self.every, len(batch.ids), self.every):
                self.items.append(batch.item(i) if batch.item else Item(readable(str(batch.ids[i]))))
                self.vectors.append(np.asarray(batch.embeddings[i]).copy())
            self.seen += len(batch.ids)
            while len(self.items) > MAX_ITEMS:
                self.items, self.vectors, self.every = self.items[::2], self.vectors[::2], 2 * self.every
            yield batch

    def write(self, output: Path, title: str) -> Path:
        """Write the page of what was kept."""
        return write_gallery(output, title, self.items, {"": np.stack(self.vectors)})
