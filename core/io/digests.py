"""Digests: one hash, SHA-256, for files, text and tensors."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from core.io.files import check_regular


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes; raises OSError where it is no regular file."""
    check_regular(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(parts: Iterable[Tensor | str]) -> str:
    """Sixteen digits for a fingerprint of data, which differ where any of the parts does."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]
