"""The user's cache of decoded images: list it, or remove from it: ``python -m image.cache --trim 20GB``."""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.io.cache import Cached, cached_folders, read_progress, remove_cached
from core.io.errors import InputError
from core.io.files import user_cache
from core.training.cli import command, parse
from shared_eval.outputs import show

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """List the decoded images in the user's cache, or remove them; they are decoded again when needed."""

    trim: str | None = None
    """Remove those that were not used for longest, until the rest has at most this size, such as 20GB."""
    remove: bool = False
    """Remove all."""


def parse_size(text: str) -> float:
    """The bytes that a text such as ``500MB`` means; raises InputError for another text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.upper())
    if not match:
        raise InputError(f"`trim` is {text!r}; it must be a size, such as 500MB or 20GB")
    return float(match[1]) * UNITS[match[2]]


def describe(cached: Cached) -> str:
    """Last use and content."""
    used = time.strftime("%Y-%m-%d", time.localtime(cached.used))
    try:
        found = read_progress(cached.folder)
        images = f"{used}  {found['images']:,} images of {found['size']} pixels from {found['source']}"
        return images if cached.complete else f"{images}, not complete: of {found['total']:,} files"
    except (LookupError, TypeError, ValueError):
        return f"{used}  of another version"


def remove_above(limit: float, parent: Path) -> None:
    """List what is in ``parent``, and remove what was not used for longest until the rest fits the limit."""
    from rich.filesize import decimal  # help and errors do not need it

    entries = cached_folders(parent)
    left = sum(entry.size for entry in entries)
    for entry in entries:
        line = f"{decimal(entry.size):>10}  {describe(entry)}"
        if left > limit and remove_cached(entry.folder):
            left -= entry.size
            line += ", removed"
        show(line)
    show(f"{decimal(left):>10}  in {parent}")


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(CacheConfig, argv, "python -m image.cache")
    if config.remove and config.trim is not None:
        raise InputError("`remove` removes all; leave out `trim`")
    limit = 0 if config.remove else math.inf if config.trim is None else parse_size(config.trim)
    parent = user_cache() / "images"
    try:
        remove_above(limit, parent)
    except OSError as error:
        raise InputError(f"{parent} cannot be listed or removed: {error}") from error


if __name__ == "__main__":
    main()
