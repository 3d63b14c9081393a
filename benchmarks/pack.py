"""Carry an image dataset to a machine without a network: ``python -m benchmarks.pack --dataset cifar10``.

Images are stored without loss, many side by side in a WebP file: CIFAR-10 takes 97 MiB instead of 135 as PNG
files. The parts, ZIP files below a given size, can be carried one at a time. ``--unpack`` makes class folders
of them, which training reads.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import default_data_root
from core.training.threads import available_cores
from image.data import Images, load_dataset

COLUMNS = 25  # of a mosaic
MAX_IMAGES = 1000  # of a mosaic
INDEX = "index.json"  # in each part: the dataset, the number of parts, images of each mosaic


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Pack an image dataset into parts of a limited size, or unpack them."""

    dataset: str = "cifar10"
    data_root: Path = field(default_factory=default_data_root)
    """Where the dataset is, or with --unpack where it goes."""
    folder: Path = Path("runs/gpu/carry")
    """Folder of the parts."""
    part_mib: float = 52.0
    """Size of a part at most."""
    unpack: bool = False
    """Unpack the parts that are in the folder; the dataset is there once each part has been unpacked."""


@dataclass(frozen=True)
class Mosaic:
    """Images of one class side by side, as a WebP file."""

    name: str  # SPLIT/CLASS/NUMBER, the number of its first image
    images: int
    content: bytes


def mosaics(split: str, images: Images, classes: Sequence[str]) -> Iterator[Mosaic]:
    """The images of a split, in their order, class by class; unlabelled ones are left out."""
    for label, name in enumerate(classes):
        of_class = images.images[images.labels == label]
        for first in range(0, len(of_class), MAX_IMAGES):
            chunk = of_class[first : first + MAX_IMAGES]
            file = io.BytesIO()
            Image.fromarray(side_by_side(chunk)).save(file, "WEBP", lossless=True, quality=90, method=4)
            yield Mosaic(f"{split}/{name}/{first:06}", len(chunk), file.getvalue())


def side_by_side(images: Tensor) -> np.ndarray:
    """[n, 3, S, S] -> [rows S, COLUMNS S, 3]; the last row is filled with zeros."""
    images = torch.cat([images, images.new_zeros(-len(images) % COLUMNS, *images.shape[1:])])
    grid = images.unflatten(0, (-1, COLUMNS)).permute(0, 3, 1, 4, 2)  # rows, S, COLUMNS, S, 3
    return grid.flatten(2, 3).flatten(0, 1).contiguous().numpy()


def one_by_one(mosaic: np.ndarray, count: int) -> np.ndarray:
    """The inverse: [rows S, COLUMNS S, 3] -> [count, S, S, 3]."""
    size = mosaic.shape[1] // COLUMNS
    grid = mosaic.reshape(-1, size, COLUMNS, size, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, size, size, 3)[:count]


def pack(config: PackConfig) -> list[Path]:
    """Write the parts; earlier ones of the dataset are removed."""
    dataset = load_dataset(config.dataset, config.data_root)
    parts: list[list[Mosaic]] = [[]]
    limit = config.part_mib * 2**20
    for split, images in (("train", dataset.train), ("test", dataset.test)):
        for mosaic in mosaics(split, images, dataset.classes):
            if parts[-1] and sum(len(each.content) for each in [*parts[-1], mosaic]) > limit:
                parts.append([])
            parts[-1].append(mosaic)
    config.folder.mkdir(parents=True, exist_ok=True)
    for path in config.folder.glob(f"{config.dataset}-*-of-*.zip"):
        path.unlink()
    return [write_part(config, number, parts) for number in range(1, len(parts) + 1)]


def write_part(config: PackConfig, number: int, parts: list[list[Mosaic]]) -> Path:
    path = config.folder / f"{config.dataset}-{number}-of-{len(parts)}.zip"
    own = parts[number - 1]
    index = {"dataset": config.dataset, "part": number, "parts": len(parts)}
    with zipfile.ZipFile(path, "w") as file:  # WebP is compressed already
        file.writestr(INDEX, json.dumps(index | {"images": {mosaic.name: mosaic.images for mosaic in own}}))
        for mosaic in own:
            file.writestr(f"{mosaic.name}.webp", mosaic.content)
    return path


def unpack(config: PackConfig) -> None:
    """Unpack the parts in the folder into class folders; raises InputError if there is none."""
    paths = sorted(config.folder.glob(f"{config.dataset}-*-of-*.zip"))
    target = config.data_root / config.dataset
    scratch = config.data_root / f".{config.dataset}-parts"
    if target.exists():
        print(f"{target} is there")
        return
    if not paths:
        raise InputError(f"{config.folder} has no part of {config.dataset}, as {config.dataset}-1-of-2.zip")
    for path in paths:
        with zipfile.ZipFile(path) as file:
            index = json.loads(file.read(INDEX))
            marker = scratch / f"part-{index['part']}"
            if not marker.exists():
                write_images(file, index["images"], scratch / "images")
                marker.touch()
        unpacked = len(list(scratch.glob("part-*")))
        print(f"{config.dataset}: {unpacked} of {index['parts']} parts are unpacked", flush=True)
        if unpacked == index["parts"]:
            (scratch / "images").rename(target)
            shutil.rmtree(scratch)
            return


def write_images(file: zipfile.ZipFile, counts: dict[str, int], folder: Path) -> None:
    """Write the images of a part's mosaics as PNG files: FOLDER/SPLIT/CLASS/NUMBER.png."""

    def write(image: np.ndarray, path: Path) -> None:
        Image.fromarray(image).save(path, compress_level=1)

    with ThreadPoolExecutor(available_cores()) as pool:
        for name, count in counts.items():
            split, label, first = name.split("/")
            class_folder = folder / split / label
            class_folder.mkdir(parents=True, exist_ok=True)
            images = one_by_one(np.asarray(Image.open(io.BytesIO(file.read(f"{name}.webp")))), count)
            paths = [class_folder / f"{int(first) + i:06}.png" for i in range(count)]
            list(pool.map(write, images, paths))


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(PackConfig, argv, "python -m benchmarks.pack", default=PackConfig())
    if config.unpack:
        unpack(config)
        return
    for path in pack(config):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
