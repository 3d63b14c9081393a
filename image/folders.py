"""Class folders of images, decoded once and cached.

Shapes: N images · S size.
"""

import os
import shutil
import stat
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from core.io.cache import build_once
from core.io.digests import digest_of
from core.io.errors import InputError, reason_of
from core.io.files import check_regular, is_hidden, user_cache, visible_files
from image.decoding import EXTENSIONS, FORMATS, decode
from image.skipped import Skipped, counts_of

LabelledFile = tuple[Path, int]  # an image and the index of its class
CACHE_FORMAT = 4  # a new number invalidates every cache
IMAGES_FILE = "images.npy"
# The usual names of the splits, in any case. If there are both test and val, val is not used.
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}


def split_folders(
    path: Path, skipped: Skipped | None = None
) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """Training files, test files and class names of PATH/{train, test or val}/CLASS/*, or of PATH/CLASS/*.

    Without split folders, every fifth file of each class is a test file. Raises InputError if there are no
    class folders, if one has no images, if the classes of train and test differ, or if a split is missing.
    """
    skipped = skipped or Skipped()
    check_folder(path)
    folders = subfolders(path, skipped)
    if splits := find_splits(path, folders):
        skipped.unused += [folder.name for folder in folders if folder not in splits]
        (train, classes), (test, test_classes) = (list_class_folders(split, skipped) for split in splits)
        if classes != test_classes:
            name = min(set(classes) ^ set(test_classes))
            raise InputError(
                f"{path}: only one of {splits[0].name} and {splits[1].name} has the class {name}"
            )
        return train, test, classes
    files, classes = list_images(path, folders, skipped)
    count: Counter[int] = Counter()
    train, test = [], []
    for file, label in files:
        count[label] += 1
        (test if count[label] % 5 == 0 else train).append((file, label))
    if not test:
        raise InputError(
            f"{path} has fewer than 5 images in every class; every fifth is a test image: add some, or set "
            "`labels` none"
        )
    return train, test, classes


def check_folder(path: Path) -> None:
    """Raise InputError unless ``path`` is a folder."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; folder:PATH takes any folder with images")


def splits_of(folder: Path) -> list[str]:
    """The split that a folder's name means, if any: ``["train"]`` for Training."""
    return [split for split, names in SPLITS.items() if folder.name.lower() in names]


def find_splits(path: Path, folders: list[Path]) -> tuple[Path, Path] | None:
    """The folders of training and of test images among ``folders`` of ``path``; None if there are none.

    Raises InputError if one of the two is missing, or if there are several.
    """
    found = {split: [folder for folder in folders if split in splits_of(folder)] for split in SPLITS}
    if not any(found.values()):
        return None
    tested = "test" if found["test"] or not found["val"] else "val"
    for split in ("train", tested):
        if len(found[split]) > 1:
            names = " and ".join(folder.name for folder in found[split])
            raise InputError(f"{path} has {names}, which both mean {split}; keep one of them")
    if found["train"] and found[tested]:
        return found["train"][0], found[tested][0]
    name = (found["train"] or found[tested])[0].name
    missing = "no test or val folder" if found["train"] else "no train folder"
    raise InputError(
        f"{path} has a folder {name}, but {missing}; add it, or, if {name} is a class, rename it, or set "
        "`labels` none"
    )


def tiny_imagenet_files(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """``split_folders`` for Tiny ImageNet's own layout, which lists the validation classes in a text file."""
    train, classes = list_class_folders(path / "train")
    annotations = path / "val" / "val_annotations.txt"
    try:
        check_regular(annotations)
        lines = [line.split("\t")[:2] for line in annotations.read_text("utf-8").splitlines()]
        images = path / "val" / "images"
        return train, [(images / Path(file).name, classes.index(wnid)) for file, wnid in lines], classes
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations} is damaged or names a class that train lacks ({error})") from error


def list_class_folders(folder: Path, skipped: Skipped | None = None) -> tuple[list[LabelledFile], list[str]]:
    """All images below each class folder, sorted, and the names of the classes; ``skipped`` counts the rest.

    A file is an image if its extension says so, in any case. Links to folders are followed.
    """
    skipped = skipped or Skipped()
    return list_images(folder, subfolders(folder, skipped), skipped)


def list_images(folder: Path, classes: list[Path], skipped: Skipped) -> tuple[list[LabelledFile], list[str]]:
    if not classes:
        raise InputError(f"{folder} contains no class folders")
    files = []
    for label, class_folder in enumerate(classes):
        try:
            paths, hidden = visible_files(class_folder)
        except OSError as error:
            raise InputError(f"{class_folder} cannot be read: {error}") from error
        images = [path for path in paths if extension(path) in EXTENSIONS]
        others = Counter(extension(path) for path in paths) - Counter(map(extension, images))
        if not images:
            contents = f": its files are {counts_of(others)}" if others else ""
            raise InputError(f"{class_folder} is a class folder without images{contents}")
        skipped.extensions += others
        skipped.hidden += hidden
        files += [(path, label) for path in images]
    return files, [class_folder.name for class_folder in classes]


def extension(path: Path) -> str:
    return path.suffix.lower()


def subfolders(folder: Path, skipped: Skipped) -> list[Path]:
    """The folders in ``folder`` by name; ``skipped`` counts its hidden entries and its files."""
    folders = []
    try:
        for entry in sorted(folder.iterdir()):
            if is_hidden(entry):
                skipped.hidden += 1
            elif entry.is_dir():
                folders.append(entry)
            elif extension(entry) in EXTENSIONS:
                skipped.outside += 1
            else:
                skipped.extensions[extension(entry)] += 1
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    return folders


def read_splits(
    train: list[LabelledFile],
    test: list[LabelledFile],
    classes: Sequence[str],
    size: int,
    skipped: Skipped,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``read_class_folders`` of both splits, without the unreadable images if ``skipped`` allows it.

    Raises InputError that names all unreadable images, or a class of which none can be read.
    """
    train_part, test_part = (_read(files, size, skipped) for files in (train, test))
    skipped.check()
    for files, (_, labels) in ((train, train_part), (test, test_part)):
        if lost := {label for _, label in files} - set(labels.tolist()):
            split = "training" if files is train else "test"
            raise InputError(f"none of the {split} images of the class {classes[min(lost)]} can be read")
    return train_part, test_part


def read_unlabelled(paths: Sequence[Path], size: int, skipped: Skipped) -> tuple[Tensor, Tensor]:
    """``read_splits`` of images that have no labels: -1 for each. Raises InputError if none can be read."""
    images, labels = _read([(path, -1) for path in paths], size, skipped)
    skipped.check()
    if not len(images):
        raise InputError(f"none of the {len(paths):,} images can be read")
    return images, labels


def read_class_folders(files: list[LabelledFile], size: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] uint8, resized at the short side and cropped in the centre, and labels [N].

    The decoded images are cached, by one process for all; the cache is valid until the name, size or time of
    a file changes. Raises InputError that names all files that cannot be read.
    """
    skipped = Skipped()
    part = _read(files, size, skipped)
    skipped.check()
    return part


def _read(files: list[LabelledFile], size: int, skipped: Skipped) -> tuple[Tensor, Tensor]:
    """``read_class_folders`` of the files that can be read; ``skipped`` gets the others."""
    if not files:
        raise InputError("the dataset's folders contain no images")
    paths, labels, versions = [], [], []
    for path, label in files:
        try:
            status = path.stat()
        except OSError as error:
            skipped.unreadable[str(path)] = f"cannot be read: {error}"
            continue
        if not stat.S_ISREG(status.st_mode):
            skipped.unreadable[str(path)] = "is not a regular file; class folders contain images"
            continue
        versions.append((str(path.absolute()), status.st_size, status.st_mtime_ns))
        paths.append(path)
        labels.append(label)
    cache = user_cache() / "images" / digest_of([repr((CACHE_FORMAT, size, versions))])

    def build(folder: Path) -> dict[str, Any]:
        images, found = _decode_all(paths, size)
        np.save(folder / IMAGES_FILE, images)
        return found

    try:
        found = build_once(cache, build)
        repaired, _ = _decode_all([paths[int(i)] for i in found["unreadable"]], size)
        if len(repaired):
            shutil.rmtree(cache)  # what could not be read then can be now, with the same size and time
            found = build_once(cache, build)
        images = np.load(cache / IMAGES_FILE)
    except OSError:  # a cache that cannot be written only costs time
        images, found = _decode_all(paths, size)
    for i, reason in found["unreadable"].items():
        skipped.unreadable[str(paths[int(i)])] = f"cannot be read as an image ({reason})"
    skipped.several_frames += found["several_frames"]
    kept = [label for i, label in enumerate(labels) if str(i) not in found["unreadable"]]
    return torch.from_numpy(images), torch.tensor(kept, dtype=torch.int64)


def _decode_all(paths: list[Path], size: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The images that can be read, uint8 [N, 3, S, S], and what was found, as JSON holds it.

    ``unreadable`` has reasons by the index in ``paths``; ``several_frames`` counts such images.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, and of sizes that are refused
        results = list(pool.map(lambda path: decode_or_reason(path, size), paths))
    decoded = [result for result in results if not isinstance(result, str)]
    images = np.empty((len(decoded), 3, size, size), np.uint8)
    for i, (image, _) in enumerate(decoded):
        images[i] = image.transpose(2, 0, 1)
    return images, {
        "unreadable": {str(i): result for i, result in enumerate(results) if isinstance(result, str)},
        "several_frames": sum(has_more_frames for _, has_more_frames in decoded),
    }


def decode_or_reason(path: Path, size: int) -> tuple[np.ndarray, bool] | str:
    """What ``decode`` returns, or why the image cannot be read."""
    try:
        return decode(path, size)
    except UnidentifiedImageError:
        return f"it is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    except Exception as error:  # on damaged files Pillow's decoders raise errors of many types
        return reason_of(error)
