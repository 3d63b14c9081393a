"""The work of ``image.embed``: images are read, encoded and written a chunk at a time.

Shapes: n images of a chunk · S size · D dim.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.io.files import one_line, path_in, readable
from core.training.runtime import choose_device, choose_precision, threads_for
from image.config import ImageConfig
from image.data import load_dataset
from image.decoding import decode_ahead
from image.embed import EmbedConfig
from image.encoder import SimCLR
from image.folders import Tree, read_tree
from image.loading import evaluation_size, load_model
from image.scoring import CHUNK, represent
from image.skipped import Skipped
from image.views import Normalise
from shared_eval.embeddings import Rows
from shared_eval.gallery import Item, picture_of

Encode = Callable[[Tensor], np.ndarray]  # uint8 [n, 3, S, S] -> float32 [n, D]


class Projector(nn.Module):
    """The projection of an image alone, of unit length: [B, 3, H, W] -> [B, P]."""

    def __init__(self, model: SimCLR) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[1]


def embed(config: EmbedConfig, trained: ImageConfig) -> int:
    """Write a row for each image of ``config.source``; return their number.

    Raises InputError if images cannot be read, unless they are to be skipped, or if the file cannot be
    written; then there is no file.
    """
    device = choose_device(config.device)
    precision = choose_precision(trained.precision, device)
    model = load_model(config.run, trained).to(device)
    network = Projector(model) if config.projections else model.encoder
    normalise = Normalise().to(device)
    size = evaluation_size(trained)

    title = f"{config.source}, embedded by {config.run}"

    def encode(images: Tensor) -> np.ndarray:
        return represent(network, normalise(images.to(device)), precision).cpu().numpy()

    with threads_for(math.inf), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, and of sizes that are refused
        if not config.source.startswith("folder:"):
            rows, total = embed_dataset(config, size, encode)
            return config.write(rows, title, total)
        root = path_in(config.source)
        skipped = Skipped(config.skip_unreadable)
        tree = read_tree(root, config.labels, skipped)
        rows = embed_tree(root, tree, size, encode, skipped)
        count = config.write(rows, title, len(tree.files))
    if description := skipped.describe():
        print(one_line(f"{config.source}: {description}"), file=sys.stderr)
    return count


def embed_tree(root: Path, tree: Tree, size: int, encode: Encode, skipped: Skipped) -> Iterator[Rows]:
    """The rows of image files: their paths below ``root``, their classes if there are any, their vectors.

    Once an image cannot be read, the others are read alone, so that the error at the end names all.
    """
    start = 0
    for results in decode_ahead(tree.files, size, CHUNK):
        chosen = []
        for i, result in enumerate(results, start):
            if isinstance(result, str):
                skipped.unreadable[tree.files[i]] = result
            else:
                chosen.append(i)
                skipped.several_frames += result[1]
        images = [result[0] for result in results if not isinstance(result, str)]
        start += len(results)
        if images and (skipped.skip_unreadable or not skipped.unreadable):
            names = [Path(tree.files[i]).relative_to(root).as_posix() for i in chosen]
            labels = None if tree.labels is None else [tree.labels[i] for i in chosen]
            yield rows_of(names, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), labels, encode)
    skipped.check()


def rows_of(names: list[str], images: Tensor, labels: Sequence[str | None] | None, encode: Encode) -> Rows:
    """The rows of some images, and how a gallery shows them: uint8 [n, 3, S, S]."""
    return Rows(names, encode(images), labels, partial(shown, names, images))


def shown(names: Sequence[str], images: Tensor, i: int) -> Item:
    """Image i of some images, with its name."""
    return Item(readable(names[i]), picture_of(images[i].numpy(force=True)))


def embed_dataset(config: EmbedConfig, size: int, encode: Encode) -> tuple[Iterator[Rows], int]:
    """The rows of a dataset's images, and their number: ``train/0`` and so on, then ``test/0``."""
    where, skip = (config.data_root, config.download), config.skip_unreadable
    dataset = load_dataset(config.source, *where, size, skip, argument="source")
    parts = {"train": dataset.train, "test": dataset.test}

    def rows() -> Iterator[Rows]:
        for split, part in parts.items():
            for indices in torch.arange(len(part)).split(CHUNK):
                labels = part.labels[indices].tolist()
                names = [dataset.classes[label] if label >= 0 else None for label in labels]
                ids = [f"{split}/{i}" for i in indices.tolist()]
                yield rows_of(ids, part.images[indices], None if config.labels == "none" else names, encode)

    return rows(), sum(map(len, parts.values()))
