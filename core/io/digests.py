"""SHA-256 checksums of text, bytes, tensors and files."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from core.io.files import check_regular

if TYPE_CHECKING:  # slow to import, and many digests are of text alone
    from torch import Tensor

CHUNK_BYTES = 1 << 20


def checksum(parts: "Iterable[str | bytes | memoryview | Tensor]") -> str:
    """SHA-256 of the parts one after the other, as 64 hexadecimal digits; of a tensor, its numbers alone."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")  # names of files may not be UTF-8
        elif not isinstance(part, bytes | memoryview):
            part = part.cpu().contiguous().numpy().data
        digest.update(part)
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes; raises OSError unless it is a regular file."""
    check_regular(path)
    with open(path, "rb") as file:
        return checksum(iter(lambda: file.read(CHUNK_BYTES), b""))


def digest_of(parts: "Iterable[str | bytes | memoryview | Tensor]") -> str:
    """The first 16 digits of ``checksum(parts)``: a fingerprint of data, and a name for its cache."""
    return checksum(parts)[:16]


def name_of(kind: str, parts: "Iterable[str | bytes | memoryview | Tensor]") -> str:
    """The name of a dataset that ``train_on`` is given, by its content, such as ``tensor-0123abcd``."""
    return f"{kind}-{digest_of(parts)[:8]}"


def is_name_of(kind: str, name: str) -> bool:
    """Whether ``name_of`` this kind may have made the name."""
    return re.fullmatch(f"{kind}-[0-9a-f]{{8}}", name) is not None
