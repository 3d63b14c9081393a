"""A file over https, by requests: resumed if the connection is cut, checked at its end.

``core.io.downloads`` imports this module where something is downloaded: requests is slow to import.
"""

import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from core.io.errors import InputError, reason_of

MAX_DOWNLOAD_BYTES = 8 << 30  # STL-10, our largest, has 2.6 GB
MAX_ATTEMPTS = 5  # of a download that is cut; one that never begins is tried once
TIMEOUT = 30.0  # seconds without a byte from the server
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, target: Path, checksum: str | None = None) -> Path:
    """Download ``url`` to ``target``, which appears only when it is complete and has the ``checksum``.

    ``checksum`` is ``sha256:...`` or ``md5:...``; without one any content is accepted. Raises InputError,
    with the address, if that fails, or if the address or a redirect is neither https nor this machine's.
    """
    require_https(url)
    try:
        pooch.retrieve(url, known_hash=checksum, fname=target.name, path=target.parent, downloader=_transfer)
    except (requests.RequestException, OSError, ValueError) as error:
        raise InputError(f"could not download {url}: {reason_of(error)}") from error
    return target


def require_https(url: str) -> None:
    """Raise InputError unless the address is https or this machine's own."""
    address = urlsplit(url)
    if address.scheme != "https" and address.hostname not in LOOPBACK:
        raise InputError(f"{url} is not downloaded: only https protects it from changes on the way")


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> str | None:
        target = super().get_redirect_target(response)
        if target is not None:
            require_https(urljoin(response.url, target))
        return target


def _transfer(url: str, output: str, _: object = None) -> None:
    """Write the content of ``url`` to a file; the signature is that of pooch's downloaders.

    If the connection is cut, the next attempt resumes there, or starts again if the server does not serve
    ranges or the file has changed since.
    """
    etag = None
    with _Session() as session, open(output, "wb") as file:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            offset = file.tell()
            headers = {"Accept-Encoding": "identity"}
            if offset and etag:
                headers |= {"Range": f"bytes={offset}-", "If-Range": etag}
            try:
                with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                    if not _is_usable(response, offset):
                        etag = None  # the next attempt asks for the whole file
                        raise requests.ConnectionError(f"the server does not serve the bytes from {offset:,}")
                    response.raise_for_status()
                    etag = response.headers.get("ETag")
                    if response.status_code != requests.codes.partial_content:
                        file.seek(0)
                        file.truncate()
                    _write_body(response, file)
                return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if attempt == MAX_ATTEMPTS or file.tell() == 0:
                    raise


def _is_usable(response: requests.Response, offset: int) -> bool:
    """False if the server cannot serve the range from ``offset`` to the end, or serves another one."""
    if response.status_code != requests.codes.partial_content:
        return response.status_code != requests.codes.requested_range_not_satisfiable
    served = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if served is None:
        return False
    first, last, length = map(int, served.groups())
    return first == offset and last + 1 == length


def _write_body(response: requests.Response, file: BinaryIO) -> None:
    expected, received = response.headers.get("Content-Length"), 0
    for chunk in response.iter_content(1 << 16):
        file.write(chunk)
        received += len(chunk)
        if file.tell() > MAX_DOWNLOAD_BYTES:
            raise InputError(f"{response.url} is larger than the {MAX_DOWNLOAD_BYTES:,} bytes allowed")
    if expected is not None and received != int(expected):
        raise requests.ConnectionError(f"the connection was cut after {received:,} of {expected} bytes")
