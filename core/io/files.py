"""Files that are written atomically, and readers that never block on a pipe or a device."""

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
    """Write ``path`` through a temporary file beside it: readers see the old content or the new.

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
    """The text, what ``encoding`` lacks escaped: the ``\\udcff`` of an undecodable file name, for one."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hard-negatives``; ``$XDG_CACHE_HOME`` is ``~/.cache`` by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hard-negatives"


def check_regular(path: Path) -> None:
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
