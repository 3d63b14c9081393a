"""Image files, decoded once into a file of the user's cache that all processes map.

Shapes: N images · S size.
"""

import os
import shutil
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from core.io.cache import build_once, read_progress, save_progress
from core.io.digests import digest_of
from core.io.errors import InputError
from core.io.files import user_cache
from core.training.progress import progress_bar
from image.decoding import decode_ahead, decode_or_reason
from image.folders import LabelledFile
from image.skipped import Skipped

CACHE_FORMAT = 5  # a new number invalidates every cache
IMAGES_FILE = "images.bin"  # uint8 (N, 3, S, S)
CHUNK_BYTES = 16 << 20  # of decoded images in memory; what a killed process loses


def read_splits(
    train: list[LabelledFile],
    test: list[LabelledFile],
    classes: Sequence[str],
    size: int,
    skipped: Skipped,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``read_images`` of both splits, without the unreadable images if ``skipped`` allows it.

    Raises InputError that names all unreadable images, or a class of which none can be read.
    """
    train_part, test_part = (read_images(files, size, skipped) for files in (train, test))
    skipped.check()
    for files, (_, labels) in ((train, train_part), (test, test_part)):
        if lost := {label for _, label in files} - set(labels.tolist()):
            split = "training" if files is train else "test"
            raise InputError(f"none of the {split} images of the class {classes[min(lost)]} can be read")
    return train_part, test_part


def read_unlabelled(paths: Sequence[str], size: int, skipped: Skipped) -> Tensor:
    """``read_images`` of images that have no labels. Raises InputError if none can be read."""
    images, _ = read_images([(path, -1) for path in paths], size, skipped)
    skipped.check()
    if not len(images):
        raise InputError(f"none of the {len(paths):,} images can be read")
    return images


def read_images(files: Sequence[LabelledFile], size: int, skipped: Skipped) -> tuple[Tensor, Tensor]:
    """Images [N, 3, S, S] uint8, resized at the short side and cropped in the centre, and labels [N].

    ``skipped`` gets the images that cannot be read. The others are mapped from the cache, which is valid
    until the name, size or time of a file changes; one process fills it, the others wait.
    """
    if not files:
        raise InputError("the dataset's folders contain no images")
    here = os.getcwd()
    paths, labels, versions = [], [], []
    for path, label in files:
        try:
            status = os.stat(path)
        except OSError as error:
            skipped.unreadable[path] = f"cannot be read: {error}"
            continue
        if not stat.S_ISREG(status.st_mode):
            skipped.unreadable[path] = "is not a regular file; class folders contain images"
            continue
        versions.append((os.path.join(here, path), status.st_size, status.st_mtime_ns))
        paths.append(path)
        labels.append(label)
    cache = user_cache() / "images" / digest_of([repr((CACHE_FORMAT, size, versions))])
    fill = partial(decode_into, paths, size)
    try:
        found = build_once(cache, fill, resume=True)
        if any(not isinstance(decode_or_reason(paths[int(i)], size), str) for i in found["unreadable"]):
            shutil.rmtree(cache)  # what could not be read then can be now, with the same size and time
            found = build_once(cache, fill, resume=True)
        images = map_images(cache / IMAGES_FILE, found["images"], size)
    except OSError:  # a cache that cannot be written only costs time
        found, images = _decode_without_cache(fill, size)
    skipped.unreadable |= {paths[int(i)]: fault for i, fault in found["unreadable"].items()}
    skipped.several_frames += found["several_frames"]
    kept = [label for i, label in enumerate(labels) if str(i) not in found["unreadable"]]
    return images, torch.tensor(kept, dtype=torch.int64)


def _decode_without_cache(fill: Callable[[Path], dict[str, Any]], size: int) -> tuple[dict[str, Any], Tensor]:
    """What ``fill`` returns, and its images, which stay mapped once the file has no name."""
    try:
        with TemporaryDirectory() as folder:
            found = fill(Path(folder))
            return found, map_images(Path(folder) / IMAGES_FILE, found["images"], size)
    except OSError as error:
        raise InputError(
            f"the decoded images cannot be written: {error}; set $XDG_CACHE_HOME to a folder with room"
        ) from error


def map_images(path: Path, count: int, size: int) -> Tensor:
    """The images in a file, which is read where they are used: uint8 [N, 3, S, S]. Raises OSError."""
    numbers = count * 3 * size * size
    try:
        flat = torch.from_file(str(path), shared=False, size=numbers, dtype=torch.uint8)
    except RuntimeError as error:  # torch has no error of its own for a file that is gone
        raise OSError(str(error)) from error
    return flat.view(count, 3, size, size)


def decode_into(paths: Sequence[str], size: int, folder: Path) -> dict[str, Any]:
    """Write the images that can be read to a file in ``folder``; resume where a killed process stopped.

    Returns as JSON the number of ``images``, what is wrong with those that are ``unreadable``, by their index
    in ``paths``, how many have ``several_frames``, and what ``image.cache`` shows. The use of memory does not
    depend on the number of images.
    """
    found = read_progress(folder) or {
        "source": os.path.commonpath(map(os.path.abspath, paths)) if paths else "",
        "size": size,
        "total": len(paths),
        **dict.fromkeys(("done", "images", "several_frames"), 0),
        "unreadable": {},
    }
    image_bytes = 3 * size * size
    chunk_size = max(1, CHUNK_BYTES // image_bytes)
    with (
        open(folder / IMAGES_FILE, "ab") as file,
        closing(decode_ahead(paths[found["done"] :], size, chunk_size)) as chunks,
        progress_bar(any_rank=True) as bar,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, and of sizes that are refused
        file.truncate(found["images"] * image_bytes)
        task = bar.add_task("decode images", completed=found["done"], total=len(paths))
        for chunk in chunks:
            for i, result in enumerate(chunk, found["done"]):
                if isinstance(result, str):
                    found["unreadable"][str(i)] = result
                else:
                    file.write(result[0].transpose(2, 0, 1).tobytes())
                    found["several_frames"] += result[1]
            found["done"] += len(chunk)
            found["images"] = found["done"] - len(found["unreadable"])
            file.flush()
            os.fsync(file.fileno())
            save_progress(folder, found)
            bar.update(task, completed=found["done"])
    return found
