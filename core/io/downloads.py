"""Downloads over https: a file or folder appears under its name only once it is complete and checked."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from core.io.archives import unpack
from core.io.errors import InputError


def fetch_archive(
    url: str,
    target: Path,
    checksum: str | None = None,
    inside: str = "",
    check: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Download an archive, unpack it beside ``target``, check it, and rename it to ``target``.

    Args:
        checksum: ``sha256:...`` or ``md5:...`` of the archive.
        inside: The folder in the archive that becomes ``target``; by default all of it.
        check: Called with that folder; raises InputError to reject it.

    Raises InputError, with the address, if any of it fails. Nothing is left behind then.
    """
    from core.io.transfer import download

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
            archive = download(url, Path(scratch) / url.rsplit("/", 1)[-1], checksum)
            unpacked = Path(scratch) / "unpacked"
            try:
                unpack(archive, unpacked)
                check(unpacked / inside)
            except InputError as error:
                raise InputError(f"{url} cannot be used: {error}") from error
            try:
                (unpacked / inside).rename(target)
            except OSError:
                if not target.exists():  # otherwise another process has downloaded it since
                    raise
    except OSError as error:
        raise InputError(f"{url} cannot be stored under {target.parent}: {error}") from error
