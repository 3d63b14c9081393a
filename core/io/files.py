"""Files that are written atomically, and readers that never block on a pipe or a device."""

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, BinaryIO

from core.io.errors import DamagedFileError, InputError, NewerSchemaError

# Folders that systems add beside a user's: macOS in archives, Synology, Windows, file systems.
SYSTEM_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found")


# Permissions that the user withholds from new files. Read once, because reading changes it for a moment.
UMASK = os.umask(0o077)
os.umask(UMASK)


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through a temporary file beside it: readers see the old content or the new.

    ``content`` is text, bytes, or a function that writes to the open file. A link stays, and what it leads to
    is written.
    """
    path = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def append_line(path: Path, line: str) -> None:
    """Append a line to ``path``: all of it, or nothing where the disk is full. Raises OSError."""
    data = f"{line}\n".encode()
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        if file.write(data) < len(data):
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def readable(text: str, encoding: str = "utf-8") -> str:
    """The text, what ``encoding`` lacks escaped: the ``\\udcff`` of an undecodable file name, for one."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str) -> str:
    """The text as a line that can be printed: names of files may contain line ends, and more."""
    return readable(" ".join(text.splitlines()))


def path_in(name: str) -> Path:
    """The path in ``folder:PATH`` or ``lines:PATH``, with ~ expanded; raises InputError if it is empty."""
    kind, _, path = name.partition(":")
    if not path:
        raise InputError(f"{name} has no path; it must be {kind}:PATH")
    return Path(os.path.expanduser(path))


def is_hidden(name: str) -> bool:
    """Whether a name says that no user put it there: ``.ipynb_checkpoints``, ``._a.png``, ``__MACOSX``."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def visible_files(folder: Path) -> tuple[list[str], int]:
    """The path of every file below ``folder``, sorted, and the number of hidden ones; see ``walk``."""
    found = list(walk(folder))
    files = [path for path, hidden in found if not hidden]
    # Name by name: no character of a name comes before the zero byte.
    return sorted(files, key=lambda path: path.replace(os.sep, "\0")), len(found) - len(files)


def walk(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, bool]]:
    """Yield every file and hidden folder below ``folder``, in any order, and whether it is hidden.

    A link to a folder is followed unless it leads to a folder that was visited before, or to one that
    contains ``folder``: each folder is read once, and cycles end. Paths are text: there may be a million.
    A folder that cannot be read is skipped if ``on_error`` takes the error; by default OSError is raised.
    """
    # A link to a parent would bring in all that lies beside ``folder``.
    starts = (folder.absolute(), folder.resolve())
    visited = {_identity(parent) for start in starts for parent in start.parents}
    folders, links = [str(folder)], list[str]()
    while folders or links:
        # Links last, by name: those to folders below add nothing.
        current = folders.pop() if folders else heappop(links)
        try:
            identity = _identity(current)
            if identity in visited:
                continue
            visited.add(identity)
            found = os.scandir(current)
        except OSError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        with found as entries:  # knows files from folders without a stat of each
            for entry in entries:
                if is_hidden(entry.name):
                    yield entry.path, True
                elif os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                    heappush(links, entry.path) if entry.is_symlink() else folders.append(entry.path)
                else:
                    yield entry.path, False


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hard-negatives``; ``$XDG_CACHE_HOME`` is ``~/.cache`` by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hard-negatives"


def check_regular(path: str | Path) -> None:
    """Raise OSError unless ``path`` is a regular file: a pipe or a device could block the reader."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def check_schema(schema: Any, supported: int) -> None:
    """Raise DamagedFileError unless a file's ``schema`` is the supported one; NewerSchemaError if newer."""
    if schema != supported:
        kind = NewerSchemaError if isinstance(schema, int) and schema > supported else DamagedFileError
        raise kind(f"its schema is {schema}, this code reads {supported}")


def read_json(path: Path) -> Any:
    """The value in a JSON file; raises OSError or ValueError if it cannot be read or parsed."""
    check_regular(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
