"""Class folders of images, decoded once and cached.

Shapes: N images · S size.
"""

import contextlib
import hashlib
import os
import stat
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from core.io.errors import InputError
from core.io.files import check_regular, user_cache, write_atomically

# A file and its class's number.
LabelledFile = tuple[Path, int]
# What is opened: among Pillow's other formats is PostScript, which it hands to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
CACHE_FORMAT = 2  # another number makes every cache anew
MAX_PIXELS = 1 << 26  # pixels: 200 MB once decoded; a damaged or forged header easily says more


def split_folders(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """Training files, test files and class names of PATH/{train, test or val}/CLASS/*, or of PATH/CLASS/*.

    Without a test folder, every fifth file of each class is for testing. Raises InputError where there are
    no class folders, one is empty, or training and test name different classes.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no folder; folder:PATH takes PATH/CLASS/*, or PATH/train and PATH/test")
    tests = [path / name for name in ("test", "val") if (path / name).is_dir()]
    if (path / "train").is_dir() and tests:
        train, classes = _files_of(path / "train")
        test, test_classes = _files_of(tests[0])
        if classes != test_classes:
            differ = sorted(set(classes) ^ set(test_classes))
            raise InputError(f"{path}: {differ[0]} is a class of train or {tests[0].name} alone, not of both")
        return train, test, classes
    files, classes = _files_of(path)
    place = [0] * len(classes)
    train, test = [], []
    for file, label in files:
        place[label] += 1
        (test if place[label] % 5 == 0 else train).append((file, label))
    if not test:
        raise InputError(f"{path} has fewer than 5 images in every class; no fifth is left for testing")
    return train, test, classes


def tiny_imagenet_files(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """As ``split_folders``, for Tiny ImageNet's own layout, whose validation classes stand in a text file."""
    train, classes = _files_of(path / "train")
    train = [(file, label) for file, label in train if file.suffix == ".JPEG"]
    annotations = path / "val" / "val_annotations.txt"
    try:
        check_regular(annotations)
        lines = [line.split("\t")[:2] for line in annotations.read_text("utf-8").splitlines()]
        images = path / "val" / "images"
        test = [(images / Path(file).name, classes.index(wnid)) for file, wnid in lines]
        return train, test, classes
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations} is damaged or names a class that train has not ({error})") from error


def _files_of(folder: Path) -> tuple[list[LabelledFile], list[str]]:
    try:
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    if not classes:
        raise InputError(f"{folder} holds no class folders")
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

    The decoded images are kept in the user's cache, under a name that changes with the files.
    """
    if not files:
        raise InputError("there are no images where the layout has them")
    labels = torch.tensor([label for _, label in files])
    facts = [(str(path.absolute()), *_size_and_time(path)) for path, _ in files]
    fingerprint = hashlib.sha256(repr((CACHE_FORMAT, size, facts)).encode()).hexdigest()[:16]
    cache = user_cache() / "images" / f"{fingerprint}.safetensors"
    images = _read_cache(cache)
    if images is None:
        images = _decode_all([path for path, _ in files], size)
        _write_cache(cache, images)
    return images, labels


def _read_cache(path: Path) -> Tensor | None:
    """The images [N, 3, S, S] of a cache; None where it is missing, or damaged, which stderr is told."""
    try:
        check_regular(path)
        held = safetensors.torch.load_file(path)
        if held["checksum"].tolist() == _checksum(held["images"]):
            return held["images"]
    except FileNotFoundError:
        return None
    except (OSError, KeyError, safetensors.SafetensorError):
        pass  # as damaged as one whose checksum does not hold
    print(f"warning: {path} is damaged and made anew", file=sys.stderr)
    return None


def _write_cache(path: Path, images: Tensor) -> None:
    held = {"images": images, "checksum": torch.tensor(_checksum(images), dtype=torch.uint8)}
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(held))


def _checksum(images: Tensor) -> list[int]:
    """SHA-256 of images and of their shape, as 32 bytes."""
    digest = hashlib.sha256(repr((images.dtype, tuple(images.shape))).encode())
    digest.update(images.numpy())
    return list(digest.digest())


def _decode_all(paths: list[Path], size: int) -> Tensor:
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _decode refuses such images
        images = np.stack(list(pool.map(lambda path: _decode(path, size), paths)))
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is no regular file; class folders hold images")
    return found.st_size, found.st_mtime_ns


def _decode(path: Path, size: int) -> np.ndarray:
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"it has {width} x {height} pixels; {MAX_PIXELS:,} are allowed")
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            # With a box, what is cut off is never resized: a strip of one pixel's width stays small.
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box))
    except Exception as error:  # Pillow's many decoders raise errors of many kinds for damaged files
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no image that can be read ({reason})") from error
