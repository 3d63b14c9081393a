"""Downloads: over https, whole and checked or not there."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from core.io.archives import unpack
from core.io.errors import InputError

MAX_DOWNLOAD_BYTES = 8 << 30  # bytes; STL-10, the largest of ours, has 2.6 GB
ATTEMPTS = 5  # once anything has come
TIMEOUT = 30.0  # seconds in which a server has to say something
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def fetch_archive(
    url: str,
    target: Path,
    checksum: str | None = None,
    inside: str = "",
    check: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Fetch an archive, unpack it beside ``target``, and rename: the folder is whole or not there.

    The folder is the one ``inside`` the archive, by default all of it; ``check`` may refuse what it holds.
    Raises InputError, naming the address, if any of it fails.
    """
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
                if not target.exists():  # else another run has fetched the same meanwhile
                    raise
    except OSError as error:
        raise InputError(f"{url} cannot be stored under {target.parent}: {error}") from error


def download(url: str, target: Path, checksum: str | None = None) -> Path:
    """Fetch ``url`` to ``target``, which exists only once it is whole and its checksum, if known, holds.

    ``checksum`` is ``sha256:...`` or ``md5:...``. Only https is spoken, after a redirect too, except with
    this very machine. Raises InputError that names the address if that fails.
    """
    require_https(url)
    try:
        pooch.retrieve(url, known_hash=checksum, fname=target.name, path=target.parent, downloader=_transfer)
    except (requests.RequestException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"could not download {url}: {reason}") from error
    return target


def require_https(url: str) -> None:
    """Raise InputError where an address is neither https nor this machine's own."""
    address = urlsplit(url)
    if address.scheme != "https" and address.hostname not in LOOPBACK:
        raise InputError(f"{url} is not fetched: only https keeps others from changing it on its way")


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> str | None:
        target = super().get_redirect_target(response)
        if target is not None:
            require_https(urljoin(response.url, target))
        return target


def _transfer(url: str, output: str, _: object = None) -> None:
    """Write what ``url`` has to a file, as pooch asks of a downloader.

    Where the connection is cut, the next attempt goes on from there, or begins anew where the server gives
    no parts or has another file by now.
    """
    version = None
    with _Session() as session, open(output, "wb") as file:
        for attempt in range(1, ATTEMPTS + 1):
            held = file.tell()
            headers = {"Accept-Encoding": "identity"}
            if held and version:
                headers |= {"Range": f"bytes={held}-", "If-Range": version}
            try:
                with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                    if _is_another_part(response, held):
                        version = None  # the next attempt asks for the whole
                        raise requests.ConnectionError(f"the server has no part that begins at {held:,}")
                    response.raise_for_status()
                    version = response.headers.get("ETag")
                    if response.status_code != requests.codes.partial_content:
                        file.seek(0)
                        file.truncate()
                    _write_body(response, file)
                return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if attempt == ATTEMPTS or file.tell() == 0:
                    raise


def _is_another_part(response: requests.Response, held: int) -> bool:
    """Whether a server answers with a part that is not all that follows the bytes ``held``, or with none."""
    if response.status_code != requests.codes.partial_content:
        return response.status_code == requests.codes.requested_range_not_satisfiable
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    return part is None or int(part[1]) != held or int(part[2]) + 1 != int(part[3])


def _write_body(response: requests.Response, file) -> None:
    promised, received = response.headers.get("Content-Length"), 0
    for chunk in response.iter_content(1 << 16):
        file.write(chunk)
        received += len(chunk)
        if file.tell() > MAX_DOWNLOAD_BYTES:
            raise InputError(f"{response.url} is larger than {MAX_DOWNLOAD_BYTES:,} bytes and is not fetched")
    if promised is not None and received != int(promised):
        raise requests.ConnectionError(f"the connection was cut after {received:,} of {promised} bytes")
