"""Folders in the user's cache: built once, verified where a file has changed, rebuilt if they are damaged."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from core.io.digests import checksum, file_checksum
from core.io.errors import DamagedFileError, reason_of
from core.io.files import read_json, write_atomically

PROGRESS = "progress.json"  # of a build that can be resumed
MANIFEST = "manifest.json"  # written last: the builder's value, and size and checksum of every other file
BUILDING = ".building-"  # prefix of a folder that is not complete


def build_once(folder: Path, build: Callable[[Path], Any], *, resume: bool = False) -> Any:
    """Build ``folder`` unless a process has done so already; returns what ``build`` returned then.

    ``build`` fills an empty folder, which is renamed to ``folder`` once it is complete, and returns a JSON
    value. Only one process builds, others wait for it. With ``resume``, ``build`` gets the folder as a
    process left it that was stopped or killed while it built. A damaged folder is rebuilt, with a warning.
    Raises OSError if the cache cannot be written.
    """
    with suppress(OSError, DamagedFileError):
        return read_manifest(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not resume:
        remove_abandoned(folder.parent)
    with locked(folder):
        try:
            return read_manifest(folder)  # another process has built it since
        except (OSError, DamagedFileError) as error:
            if folder.exists():
                print(f"warning: {folder} is damaged and will be rebuilt: {error}", file=sys.stderr)
        scratch = folder.with_name(BUILDING + folder.name)
        if not resume:  # of a process killed while this one waited for the lock
            shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        try:
            value = build(scratch)
            write_manifest(scratch, value)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        except BaseException as error:
            if not resume or isinstance(error, Exception):
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        return value


def write_manifest(folder: Path, value: Any) -> None:
    """Flush every file in ``folder`` to the disk; write their sizes, times and checksums, and ``value``."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[path.name] = {"stamp": _stamp(path), "sha256": file_checksum(path)}
    _write(folder, {"value": value, "files": files})


def read_manifest(folder: Path) -> Any:
    """The value given to ``write_manifest``; raises OSError or DamagedFileError if a file has changed since.

    A file is read only if its size or times have changed: that takes seconds for gigabytes.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        expected = manifest.pop("sha256")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{MANIFEST} is not a manifest ({reason_of(error)})") from error
    if _checksum(manifest) != expected:
        raise DamagedFileError(f"{MANIFEST} does not match its checksum")
    files = manifest["files"]
    touched = {name for name, entry in files.items() if _stamp(folder / name) != entry.get("stamp")}
    for name in touched:
        if file_checksum(folder / name) != files[name]["sha256"]:
            raise DamagedFileError(f"{name} does not have the checksum in {MANIFEST}")
        files[name]["stamp"] = _stamp(folder / name)
    with suppress(OSError):  # a cache that others have written may be read-only
        if touched:  # by a copy of the folder, for one
            _write(folder, manifest)
        os.utime(folder / MANIFEST)  # when it was last used
    return manifest["value"]


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest | {"sha256": _checksum(manifest)}, indent=2)
    write_atomically(folder / MANIFEST, text + "\n")


def _checksum(manifest: dict[str, Any]) -> str:
    return checksum([json.dumps(manifest, sort_keys=True)])


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written: its size, and the times of its content and its attributes."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def save_progress(folder: Path, value: Any) -> None:
    """Note how far the build of ``folder`` is, as JSON; the note stays there when it is complete."""
    write_atomically(folder / PROGRESS, json.dumps(value))


def read_progress(folder: Path) -> Any | None:
    """The newest value given to ``save_progress``; None if there is none."""
    with suppress(OSError, ValueError):
        return read_json(folder / PROGRESS)
    return None


class Cached(NamedTuple):
    """A folder of a cache."""

    folder: Path
    complete: bool
    size: int  # bytes
    used: float  # when it was last read or written, in seconds since 1970


def cached_folders(parent: Path) -> list[Cached]:
    """The folders in ``parent``, complete or not, those that were not used for longest first."""
    found = []
    for folder in filter(Path.is_dir, parent.glob("*")):
        stats = [path.stat() for path in folder.iterdir()]
        used = max((status.st_mtime for status in stats), default=0.0)
        size = sum(status.st_size for status in stats)
        found.append(Cached(folder, not folder.name.startswith(BUILDING), size, used))
    return sorted(found, key=lambda cached: cached.used)


def remove_cached(folder: Path) -> bool:
    """Remove a folder of a cache; False if a process builds it. One that maps its files keeps them."""
    with suppress(BlockingIOError), locked(_target(folder), fcntl.LOCK_NB):
        shutil.rmtree(folder)
        return True
    return False


def _target(scratch: Path) -> Path:
    """The folder that is built in ``scratch``."""
    return scratch.with_name(scratch.name.removeprefix(BUILDING))


def remove_abandoned(parent: Path) -> None:
    """Remove the incomplete folders of killed processes; those of living ones are locked."""
    for scratch in parent.glob(f"{BUILDING}*"):
        with suppress(OSError):
            remove_cached(scratch)


@contextmanager
def locked(folder: Path, options: int = 0, *, remove: bool = False) -> Iterator[None]:
    """Hold the lock of ``folder``; with LOCK_NB, raise BlockingIOError if another process holds it.

    ``remove`` removes the lock's file at the end.
    """
    path = folder.with_name(f"{folder.name}.lock")
    with ExitStack() as opened:
        is_held = False
        while not is_held:
            lock = opened.enter_context(open(path, "ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | options)
            with suppress(FileNotFoundError):  # its holder may have removed it
                is_held = os.path.samestat(os.fstat(lock.fileno()), path.stat())
        try:
            yield
        finally:
            if remove:
                path.unlink(missing_ok=True)
