"""Folders in the user's cache that are built once, verified at every use, and rebuilt if they are damaged."""

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

MANIFEST = "manifest.json"  # written last: the builder's values, and size and checksum of every other file
BUILDING = ".building-"  # prefix of a folder that is not complete


def build_once(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Build ``folder`` unless a process has done so already; returns the values that ``build`` returned then.

    ``build`` fills an empty folder, which is renamed to ``folder`` once it is complete. Only one process
    builds, others wait for it. A damaged folder is built again with a warning. Raises OSError if the cache
    cannot be written.
    """
    with suppress(OSError, DamagedFileError):
        return read_manifest(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent)
    with locked(folder):
        try:
            return read_manifest(folder)  # another process has built it meanwhile
        except (OSError, DamagedFileError) as error:
            if folder.exists():
                print(f"warning: {folder} is damaged and will be rebuilt: {error}", file=sys.stderr)
        scratch = folder.with_name(BUILDING + folder.name)
        shutil.rmtree(scratch, ignore_errors=True)  # of a process killed while this one waited for the lock
        scratch.mkdir()
        try:
            values = build(scratch)
            write_manifest(scratch, values)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return values


def write_manifest(folder: Path, values: dict[str, Any]) -> None:
    """Flush every file in ``folder`` to the disk; write their sizes and checksums, and ``values``."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"size": path.stat().st_size, "sha256": file_checksum(path)}
    write_atomically(folder / MANIFEST, record_text({"schema": SCHEMA, **values, "files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The values given to ``write_manifest``; raises OSError or DamagedFileError if a file has changed since.

    It reads every file: seconds for gigabytes, which training reads in every epoch anyway.
    """
    manifest = read_record(folder / MANIFEST)
    if "files" not in manifest:
        raise DamagedFileError(f"{MANIFEST} lists no files")
    for name, expected in manifest["files"].items():
        path = folder / name
        if path.stat().st_size != expected["size"] or file_checksum(path) != expected["sha256"]:
            raise DamagedFileError(f"{name} does not have the size and checksum in {MANIFEST}")
    return manifest


def remove_abandoned(parent: Path) -> None:
    """Remove the incomplete folders of killed processes; those of living ones are locked."""
    for scratch in parent.glob(f"{BUILDING}*"):
        folder = parent / scratch.name.removeprefix(BUILDING)
        with suppress(BlockingIOError), locked(folder, fcntl.LOCK_NB):
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(folder: Path, options: int = 0) -> Iterator[None]:
    """Hold the lock of ``folder``; with LOCK_NB, raise BlockingIOError if another process holds it."""
    with open(folder.with_name(f"{folder.name}.lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | options)
        yield
