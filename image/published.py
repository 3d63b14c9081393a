"""The published image datasets in torchvision's layouts: found, checked, or downloaded.

Pickles are opened only by torchvision's classes, after the publisher's checksums held.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from core.io.downloads import fetch_archive
from core.io.errors import InputError
from image.folders import read_class_folders, tiny_imagenet_files

# Images [N, 3, S, S] uint8 and labels [N] int64, -1 where there is none: of training, of testing; classes.
Parts = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], list[str]]

SIZES = {"cifar10": 32, "cifar100": 32, "stl10": 96, "tinyimagenet": 64}
# The publishers of STL-10 and of Tiny ImageNet give http addresses; their hosts answer https too.
STL10_URL = STL10.url.replace("http://", "https://")
TINY_IMAGENET_URL = "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def is_there(name: str, data_root: Path) -> bool:
    """Whether the dataset lies under ``data_root`` in its publisher's layout, whole or not."""
    return (data_root / LOADERS[name][0]).exists()


def load(name: str, data_root: Path, may_download: bool) -> Parts:
    """Read the dataset from its publisher's layout, fetching it first where it is missing and asked for.

    Raises InputError where it is missing, its checksums do not hold, or it cannot be fetched.
    """
    folder, loader, address = LOADERS[name]
    where = data_root / folder
    if not is_there(name, data_root):
        if not may_download:
            raise InputError(
                f"--dataset {name}: neither {where} nor class folders under {data_root / name}; add "
                f"--download to fetch it from {address}, or set --data-root (or $HCL_DATA) to where it is"
            )
        _fetch(name, data_root, address)
    try:
        return loader(data_root)
    except RuntimeError as error:
        raise InputError(
            f"{where} is damaged: the publisher's checksums do not hold; delete it and add --download"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{where} cannot be read: {error}; delete it and add --download") from error


def _fetch(name: str, data_root: Path, address: str) -> None:
    folder = LOADERS[name][0]
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100, "stl10": STL10}.get(name)
    checksum = kind.tgz_md5 if kind else TINY_IMAGENET_MD5
    fetch_archive(address, data_root / folder, f"md5:{checksum}", inside=folder)


def _cifar(kind: type[CIFAR10]) -> Callable[[Path], Parts]:
    def load_parts(data_root: Path) -> Parts:
        train, test = (kind(str(data_root), train=part) for part in (True, False))
        channels_first = [np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)) for part in (train, test)]
        labels = [np.array(part.targets, dtype=np.int64) for part in (train, test)]
        return (channels_first[0], labels[0]), (channels_first[1], labels[1]), train.classes

    return load_parts


def _stl10(data_root: Path) -> Parts:
    train, test = (STL10(str(data_root), split=part) for part in ("train+unlabeled", "test"))
    train_part, test_part = ((part.data, part.labels.astype(np.int64)) for part in (train, test))
    classes = getattr(train, "classes", [])  # their names are the one file that has no checksum
    if len(classes) <= train.labels.max():
        raise ValueError(f"{STL10.class_names_file} names {len(classes)} classes")
    return train_part, test_part, classes


def _tiny_imagenet(data_root: Path) -> Parts:
    train, test, classes = tiny_imagenet_files(data_root / "tiny-imagenet-200")
    parts = [read_class_folders(files, SIZES["tinyimagenet"]) for files in (train, test)]
    train_part, test_part = ((images.numpy(), labels.numpy()) for images, labels in parts)
    return train_part, test_part, classes


# Folder under the data root, reader, official address.
LOADERS: dict[str, tuple[str, Callable[[Path], Parts], str]] = {
    "cifar10": (CIFAR10.base_folder, _cifar(CIFAR10), CIFAR10.url),
    "cifar100": (CIFAR100.base_folder, _cifar(CIFAR100), CIFAR100.url),
    "stl10": (STL10.base_folder, _stl10, STL10_URL),
    "tinyimagenet": ("tiny-imagenet-200", _tiny_imagenet, TINY_IMAGENET_URL),
}
