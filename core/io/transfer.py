"""A file over https, by requests: resumed if the connection is cut, checked at its end.

``core.io.downloads`` imports this module where something is downloaded: requests is slow to import.
"""

import logging
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from core.io.downloads import announce
from core.io.errors import InputError, reason_of
from core.training.progress import progress_bar

MAX_DOWNLOAD_BYTES = 8 << 30  # STL-10, our largest, has 2.6 GB
MAX_ATTEMPTS = 5  # of a download that is cut; one that never begins is tried once
TIMEOUT = 30.0  # seconds without a byte from the server
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, target: Path, checksum: str | None = None, shown: Path | None = None) -> Path:
    """Download ``url`` to ``target``, which appears only when it is complete and has the ``checksum``.

    ``checksum`` is ``sha256:...`` or ``md5:...``; without one any content is accepted. ``shown`` is what
    people are told instead of ``target``. Raises InputError, with the address, if that fails, or if the
    address or a redirect is neither https nor this machine's.
    """
    require_https(url)
    transfer = partial(_transfer, shown=shown or target)
    pooch.get_logger().setLevel(logging.WARNING)  # it says less than ``announce`` does, on several lines
    try:
        pooch.retrieve(url, known_hash=checksum, fname=target.name, path=target.parent, downloader=transfer)
    except (requests.RequestException, OSError, ValueError) as error:
        raise InputError(f"could not download {url}: {_reason_of(error)}") from error
    return target


def _reason_of(error: Exception) -> str:
    """``reason_of``, but of a missing network in words that are not urllib3's."""
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", None)
    if isinstance(cause, MaxRetryError) and isinstance(reason, NewConnectionError | ConnectTimeoutError):
        return (
            f"{cause.pool.host} cannot be reached; connect to the network, or set `data_root` (or $HCL_DATA) "
            "to a folder that has the files"
        )
    return reason_of(error)


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


def _transfer(url: str, output: str, _: object = None, *, shown: Path) -> None:
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
                    if attempt == 1:
                        announce(url, shown, _length(response))
                    _write_body(response, file)
                return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if attempt == MAX_ATTEMPTS or file.tell() == 0:
                    raise


def _length(response: requests.Response) -> int | None:
    """The bytes of the body, if the server says."""
    length = response.headers.get("Content-Length")
    return None if length is None else int(length)


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
    offset, expected = file.tell(), _length(response)
    with progress_bar(of_bytes=True, any_rank=True) as bar:
        task = bar.add_task("download", completed=offset, total=expected and offset + expected)
        for chunk in response.iter_content(1 << 16):
            file.write(chunk)
            bar.update(task, completed=file.tell())
            if file.tell() > MAX_DOWNLOAD_BYTES:
                raise InputError(f"{response.url} is larger than the {MAX_DOWNLOAD_BYTES:,} bytes allowed")
    received = file.tell() - offset
    if expected is not None and received != expected:
        raise requests.ConnectionError(f"the connection was cut after {received:,} of {expected} bytes")
