"""The published image datasets, in their publishers' layouts: located, checked, or downloaded.

Pickles are opened by torchvision's classes alone, once the publisher's checksums match. torchvision is
imported where they are read: that takes longer than the import of torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.io.cache import build_once, save_progress
from core.io.digests import digest_of
from core.io.downloads import fetch_archive
from core.io.errors import InputError, is_out_of_memory
from core.io.files import user_cache
from image.decoded import CACHE_FORMAT, map_images, read_splits
from image.folders import tiny_imagenet_files
from image.skipped import Skipped

Split = tuple[Tensor, Tensor]  # images uint8 [N, 3, S, S], labels int64 [N], -1 if unlabelled
Splits = tuple[Split, Split, list[str]]  # training, test, names of the classes


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from, and how it is read."""

    folder: str  # below the data root
    read: Callable[[Path, Skipped], Splits]  # takes the data root
    image_size: int
    url: str
    md5: str  # of the archive at the URL
    has_image_files: bool = False  # which are decoded into the cache one by one


def exists(name: str, data_root: Path) -> bool:
    """Whether the dataset's folder exists below ``data_root``, complete or not."""
    return (data_root / SOURCES[name].folder).exists()


def load(name: str, data_root: Path, download: bool, skipped: Skipped) -> Splits:
    """Read the dataset from its publisher's layout; download it first if it is missing.

    ``skipped`` says whether image files that cannot be read are an error.

    Raises InputError if it is missing and not to be downloaded, if a download fails, or if a file is damaged.
    """
    source = SOURCES[name]
    folder = data_root / source.folder
    if not folder.exists():
        if not download:
            raise InputError(
                f"`dataset` is {name!r}, but {folder} does not exist, nor do class folders in "
                f"{data_root / name}; set `download` to fetch it from {source.url}, or set `data_root` "
                "(or $HCL_DATA)"
            )
        fetch_archive(source.url, folder, f"md5:{source.md5}", inside=source.folder)

    def read() -> Splits:
        return source.read(data_root, skipped)

    try:
        return read() if source.has_image_files else _through_cache(folder, read)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{folder} is damaged: the publisher's checksums do not match; delete it and set `download`"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be read: {error}; delete it and set `download`") from error


def _through_cache(folder: Path, read: Callable[[], Splits]) -> Splits:
    """What ``read`` returns; the images are mapped from the cache, into which one process writes them.

    The cache is valid until the name, size or time of a file in ``folder`` changes.
    """
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    key = digest_of([repr((CACHE_FORMAT, str(folder.absolute()), files))])
    cache = user_cache() / "images" / key

    def build(scratch: Path) -> dict[str, Any]:
        train, test, classes = read()
        for name, (images, _) in (("train", train), ("test", test)):
            with open(scratch / f"{name}.bin", "wb") as file:
                for chunk in images.split(1024):
                    file.write(chunk.contiguous().numpy().data)
        size, count = train[0].shape[2], len(train[0]) + len(test[0])
        save_progress(scratch, {"images": count, "total": count, "size": size, "source": str(folder)})
        labels = {"train": train[1].tolist(), "test": test[1].tolist()}
        return {"size": size, "labels": labels, "classes": classes}

    try:
        found = build_once(cache, build, resume=True)
        train, test = (
            (map_images(cache / f"{name}.bin", len(labels), found["size"]), torch.tensor(labels))
            for name, labels in found["labels"].items()
        )
    except OSError:  # a cache that cannot be written only costs memory
        return read()
    return train, test, found["classes"]


def _read_cifar(name: str, data_root: Path, skipped: Skipped) -> Splits:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    train, test = (kind(str(data_root), train=is_train) for is_train in (True, False))

    def part(split: CIFAR10) -> Split:
        return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets)

    return part(train), part(test), train.classes


def _read_stl10(data_root: Path, skipped: Skipped) -> Splits:
    from torchvision.datasets import STL10

    train, test = (STL10(str(data_root), split=name) for name in ("train+unlabeled", "test"))
    classes = getattr(train, "classes", [])  # from class_names.txt, the only file without a checksum
    if len(classes) <= train.labels.max():
        raise ValueError(f"{STL10.class_names_file} names {len(classes)} classes")

    def part(split: STL10) -> Split:
        return torch.from_numpy(split.data), torch.from_numpy(split.labels).long()

    return part(train), part(test), classes


def _read_tiny_imagenet(data_root: Path, skipped: Skipped) -> Splits:
    train, test, classes = tiny_imagenet_files(data_root / "tiny-imagenet-200")
    return *read_splits(train, test, classes, 64, skipped), classes


# The publishers of STL-10 and Tiny ImageNet give http addresses; their servers answer https too.
SOURCES = {
    "cifar10": Source(
        "cifar-10-batches-py",
        partial(_read_cifar, "cifar10"),
        32,
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
    "cifar100": Source(
        "cifar-100-python",
        partial(_read_cifar, "cifar100"),
        32,
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    "stl10": Source(
        "stl10_binary",
        _read_stl10,
        96,
        "https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "91f7769df0f17e558f3565bffb0c7dfb",
    ),
    "tinyimagenet": Source(
        "tiny-imagenet-200",
        _read_tiny_imagenet,
        64,
        "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "90528d7ca1a48142e341f4ef8d21d0de",
        has_image_files=True,
    ),
}
