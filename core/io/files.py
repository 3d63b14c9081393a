"""Files that are whole or not there, and readers that no file can hold up."""

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from core.io.errors import DamagedFileError, NewerSchemaError


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through a temporary sibling, so that it is never seen half-written.

    ``content`` is text, bytes, or a function that writes to the open file.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def readable(text: str, encoding: str = "utf-8") -> str:
    """The text, escaped where ``encoding`` cannot hold it, as the ``\\udcff`` of a name that is no text."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hard-negatives``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hard-negatives"


def check_regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file: reading a pipe or a device could wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def check_schema(found: Any, known: int) -> None:
    """Raise DamagedFileError unless a file's schema is the ``known`` one; NewerSchemaError if it is newer."""
    if found != known:
        kind = NewerSchemaError if isinstance(found, int) and found > known else DamagedFileError
        raise kind(f"its schema is {found}, this code reads {known}")


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises OSError or ValueError where there is none."""
    check_regular(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
