"""Downloads over https: a file or folder appears under its name only once it is complete and checked."""

import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from core.io.archives import unpack
from core.io.cache import locked
from core.io.errors import InputError
from core.io.files import readable


def announce(url: str, target: Path, size: int | None = None) -> None:
    """Say on stderr, on one line, from where and to where something is downloaded, and how many bytes."""
    from rich.filesize import decimal  # only downloads need it

    how_much = "" if size is None else f" ({decimal(size)})"
    print(readable(f"downloading {url} to {target}{how_much}"), file=sys.stderr)


def fetch_archive(
    url: str,
    target: Path,
    checksum: str | None = None,
    inside: str = "",
    check: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Download an archive, unpack it beside ``target``, check it, and rename it to ``target``.

    Of several processes of a host one does this, and the others wait for it. A lock may hold on one host
    alone, so each host has a scratch folder of its own.

    Args:
        checksum: ``sha256:...`` or ``md5:...`` of the archive.
        inside: The folder in the archive that becomes ``target``; by default all of it.
        check: Called with that folder; raises InputError to reject it.

    Raises InputError, with the address, if any of it fails. Nothing is left behind then.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^\w.-]", "-", socket.gethostname())
        scratch = target.with_name(f".download-{target.name}-{host}")
        with locked(scratch, remove=True):
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            if not target.exists():
                scratch.mkdir()
                try:
                    _fetch(url, target, scratch, checksum, inside, check)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{url} cannot be stored under {target.parent}: {error}") from error


def _fetch(
    url: str,
    target: Path,
    scratch: Path,
    checksum: str | None,
    inside: str,
    check: Callable[[Path], object],
) -> None:
    from core.io.transfer import download

    archive = download(url, scratch / url.rsplit("/", 1)[-1], checksum, shown=target)
    unpacked = scratch / "unpacked"
    try:
        unpack(archive, unpacked)
        check(unpacked / inside)
    except InputError as error:
        raise InputError(f"{url} cannot be used: {error}") from error
    try:
        (unpacked / inside).rename(target)
    except OSError:
        if not target.exists():  # otherwise another host has downloaded it since
            raise
