"""Archives, unpacked only where nothing in them leads out and all of it fits."""

import gzip
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from core.io.errors import InputError

MAX_UNPACKED_BYTES = 16 << 30  # bytes; STL-10, the largest of ours, unpacks to 3 GB
MAX_MEMBERS = 500_000  # Tiny ImageNet has 120,000
MAX_READ_BYTES = 1 << 20  # bytes a tar's reader may be asked for at once


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip, .tar or .tar.gz file into the new folder ``target``; which it is, its name says.

    Nothing is written before every member has been looked at. Raises InputError where one has an absolute
    name or one with ``..``, is neither file nor folder (links among them: no data set needs any), where they
    are too many or too large for the disk, or where the archive is damaged.
    """
    room = min(MAX_UNPACKED_BYTES, shutil.disk_usage(archive.parent).free)
    try:
        (_unpack_zip if archive.suffix == ".zip" else _unpack_tar)(archive, target, room)
    except (InputError, OSError) as error:
        if isinstance(error, (gzip.BadGzipFile, InputError)):
            raise InputError(f"{archive.name} is not unpacked: {error}") from error
        raise
    except Exception as error:  # the libraries raise errors of many kinds for bytes that are no archive
        raise InputError(f"{archive.name} is damaged: {_reason(error)}") from error


def _unpack_zip(archive: Path, target: Path, room: int) -> None:
    with zipfile.ZipFile(archive) as file:
        limits = _Limits(room)
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            limits.admit(member.filename, member.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        file.extractall(target)


def _unpack_tar(archive: Path, target: Path, room: int) -> None:
    open_archive = gzip.open if archive.suffix == ".gz" else open
    with open_archive(archive, "rb") as raw, tarfile.open(fileobj=_Reader(raw), mode="r:") as file:
        limits = _Limits(room)
        for member in file:
            limits.admit(member.name, member.size, member.isreg() or member.isdir())
        file.extractall(target, filter="data")


class _Limits:
    """What members there have been, and whether one more is let in."""

    def __init__(self, room: int) -> None:
        self.room, self.members, self.size = room, 0, 0

    def admit(self, name: str, size: int, is_plain: bool) -> None:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"its member {name!r} leads out of the folder it is unpacked to")
        if not is_plain:
            raise InputError(f"its member {name!r} is neither a file nor a folder")
        self.members, self.size = self.members + 1, self.size + size
        if self.members > MAX_MEMBERS:
            raise InputError(f"it has more than {MAX_MEMBERS:,} members")
        if self.size > self.room:
            raise InputError(f"it unpacks to more than {self.room:,} bytes, which is what there is room for")


class _Reader:
    """A tar file that is read in small pieces: only a forged header asks for a large one."""

    def __init__(self, file: Any) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_READ_BYTES:
            raise InputError(f"a header of {size:,} bytes is not of an honest archive")
        return self.file.read(size)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
