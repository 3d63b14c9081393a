"""Files that are whole or not there: atomic writes and downloads."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pooch
import requests

from core.errors import InputError


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


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hard-negatives``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hard-negatives"


def fetch_archive(url: str, target: Path, checksum: str | None = None, inside: str = "") -> None:
    """Fetch an archive, unpack it beside ``target``, and rename: the folder is whole or not there.

    The folder is the one ``inside`` the archive, by default all of it. Paths that lead out are refused.
    Raises InputError, naming the address, if any of it fails.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
            archive = download(url, Path(scratch) / url.rsplit("/", 1)[-1], checksum)
            unpacked = Path(scratch) / "unpacked"
            options = {} if archive.suffix == ".zip" else {"filter": "data"}  # zip refuses them by itself
            shutil.unpack_archive(archive, unpacked, **options)
            (unpacked / inside).rename(target)
    except (OSError, shutil.ReadError) as error:
        raise InputError(f"{url} cannot be stored under {target.parent}: {error}") from error


def download(url: str, target: Path, checksum: str | None = None) -> Path:
    """Fetch ``url`` to ``target``, which exists only once it is whole and its checksum, if known, holds.

    ``checksum`` is ``sha256:...`` or ``md5:...``. Raises InputError that names the address if that fails.
    """
    try:
        pooch.retrieve(
            url,
            known_hash=checksum,
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"could not download {url}: {reason}") from error
    return target
