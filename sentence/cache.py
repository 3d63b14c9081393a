"""Folders of the user's cache: made once, checked at every use, made anew where they are damaged."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from core.io.digests import file_checksum
from core.io.errors import DamagedFileError
from core.io.files import write_atomically
from core.training.records import SCHEMA, read_record, record_text

FACTS = "facts.json"  # the last file: what its maker says, and size and checksum of every other file
MAKING = ".making-"  # begins the name of a folder that is not whole yet


def build_once(folder: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The facts that ``make`` returned when it filled ``folder``: now, or before, by whatever process.

    ``make`` gets an empty folder, which takes the name ``folder`` once it is whole. Of several processes one
    makes it and the others wait. What is damaged is made anew, and stderr told. Raises OSError where the
    cache cannot be written.
    """
    with suppress(OSError, DamagedFileError):
        return read_manifest(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    with locked(folder):
        try:
            return read_manifest(folder)  # another process has made it meanwhile
        except (OSError, DamagedFileError) as error:
            if folder.exists():
                print(f"warning: {folder} is damaged and made anew: {error}", file=sys.stderr)
        scratch = folder.with_name(MAKING + folder.name)
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed while this process waited
        scratch.mkdir()
        try:
            facts = make(scratch)
            write_manifest(scratch, facts)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return facts


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``facts``, and size and checksum of every file in ``folder`` once it is safe on the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"size": path.stat().st_size, "sha256": file_checksum(path)}
    write_atomically(folder / FACTS, record_text({"schema": SCHEMA, **facts, "files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What ``write_manifest`` was given; raises OSError or DamagedFileError where a file has changed since.

    Every file is read for that: seconds for gigabytes, which training reads again in every epoch.
    """
    facts = read_record(folder / FACTS)
    if "files" not in facts:
        raise DamagedFileError(f"{FACTS} names no files")
    for name, expected in facts["files"].items():
        path = folder / name
        if path.stat().st_size != expected["size"] or file_checksum(path) != expected["sha256"]:
            raise DamagedFileError(f"{name} has not the size and checksum that {FACTS} gives it")
    return facts


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes have left half made; what is being made now is locked."""
    for scratch in parent.glob(f"{MAKING}*"):
        folder = parent / scratch.name.removeprefix(MAKING)
        with suppress(BlockingIOError), locked(folder, fcntl.LOCK_NB):
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(folder: Path, options: int = 0) -> Iterator[None]:
    """Hold the lock of ``folder``; with LOCK_NB raise BlockingIOError where another process has it."""
    with open(folder.with_name(f"{folder.name}.lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | options)
        yield
