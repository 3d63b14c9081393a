"""Class folders of images, decoded once and cached.

Shapes: N images · S size.
"""

import os
import stat
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.io.cache import build_once
from core.io.digests import digest_of
from core.io.errors import InputError, reason_of
from core.io.files import check_regular, user_cache

LabelledFile = tuple[Path, int]  # an image and the index of its class
# Pillow's other formats stay closed; PostScript among them is handed to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
CACHE_FORMAT = 3  # a new number invalidates every cache
IMAGES_FILE = "images.npy"
MAX_PIXELS = 1 << 26  # 200 MB decoded; a damaged or forged header easily asks for more


def split_folders(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """Training files, test files and class names of PATH/{train, test or val}/CLASS/*, or of PATH/CLASS/*.

    Without a test folder, every fifth file of each class is a test file. Raises InputError if there are no
    class folders, if one is empty, or if the classes of train and test differ.
    """
    if not path.is_dir():
        raise InputError(
            f"{path} is not a folder; folder:PATH takes PATH/CLASS/*, or PATH/train and PATH/test"
        )
    tests = [path / name for name in ("test", "val") if (path / name).is_dir()]
    if (path / "train").is_dir() and tests:
        train, classes = list_class_folders(path / "train")
        test, test_classes = list_class_folders(tests[0])
        if classes != test_classes:
            name = min(set(classes) ^ set(test_classes))
            raise InputError(f"{path}: only one of train and {tests[0].name} has the class {name}")
        return train, test, classes
    files, classes = list_class_folders(path)
    count: Counter[int] = Counter()
    train, test = [], []
    for file, label in files:
        count[label] += 1
        (test if count[label] % 5 == 0 else train).append((file, label))
    if not test:
        raise InputError(f"{path} has fewer than 5 images in every class; every fifth is a test image")
    return train, test, classes


def tiny_imagenet_files(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """``split_folders`` for Tiny ImageNet's own layout, which lists the validation classes in a text file."""
    train, classes = list_class_folders(path / "train")
    train = [(file, label) for file, label in train if file.suffix == ".JPEG"]
    annotations = path / "val" / "val_annotations.txt"
    try:
        check_regular(annotations)
        lines = [line.split("\t")[:2] for line in annotations.read_text("utf-8").splitlines()]
        images = path / "val" / "images"
        return train, [(images / Path(file).name, classes.index(wnid)) for file, wnid in lines], classes
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations} is damaged or names a class that train lacks ({error})") from error


def list_class_folders(folder: Path) -> tuple[list[LabelledFile], list[str]]:
    """All files below each class folder, sorted, and the names of the classes."""
    try:
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    if not classes:
        raise InputError(f"{folder} contains no class folders")
    files = []
    for label, name in enumerate(classes):
        paths = sorted(
            Path(parent) / file
            for parent, _, names in os.walk(folder / name)
            for file in names
            if not file.startswith(".")
        )
        if not paths:
            raise InputError(f"{folder / name} is a class folder without images")
        files += [(path, label) for path in paths]
    return files, classes


def read_class_folders(files: list[LabelledFile], size: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] uint8, resized at the short side and cropped in the centre, and labels [N].

    The decoded images are cached, by one process for all; the cache is valid until the name, size or time of
    a file changes.
    """
    if not files:
        raise InputError("the dataset's folders contain no images")
    labels = torch.tensor([label for _, label in files])
    versions = [(str(path.absolute()), *_size_and_time(path)) for path, _ in files]
    paths = [path for path, _ in files]
    fingerprint = digest_of([repr((CACHE_FORMAT, size, versions))])
    cache = user_cache() / "images" / fingerprint

    def build(folder: Path) -> None:
        np.save(folder / IMAGES_FILE, _decode_all(paths, size))

    try:
        build_once(cache, build)
        images = np.load(cache / IMAGES_FILE)
    except OSError:  # a cache that cannot be written only costs time
        images = _decode_all(paths, size)
    return torch.from_numpy(images), labels


def _decode_all(paths: list[Path], size: int) -> np.ndarray:
    """uint8 [N, 3, S, S]."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _decode rejects such images
        images = np.stack(list(pool.map(lambda path: _decode(path, size), paths)))
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; class folders contain images")
    return status.st_size, status.st_mtime_ns


def _decode(path: Path, size: int) -> np.ndarray:
    """The image, resized at the short side and cropped in the centre: uint8 [S, S, 3]."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels; {MAX_PIXELS:,} are allowed")
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            # Resizing the box alone keeps a strip of one pixel's width small: its rest is never enlarged.
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box))
    except Exception as error:  # on damaged files Pillow's decoders raise errors of many types
        raise InputError(f"{path} cannot be read as an image ({reason_of(error)})") from error
