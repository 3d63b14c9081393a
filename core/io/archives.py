"""Archives, unpacked only if every member stays inside the target folder and all of them fit the disk."""

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from core.io.errors import InputError, reason_of

MAX_UNPACKED_BYTES = 16 << 30  # STL-10, our largest, unpacks to 3 GB
MAX_MEMBERS = 500_000  # Tiny ImageNet has 120,000
MAX_READ_BYTES = 1 << 20  # at once; tarfile reads less, unless a forged header makes it ask for more


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .zip, .tar or .tar.gz file, as its name says, into the new folder ``target``.

    All members are checked before the first is written. Raises InputError if a name is absolute or contains
    ``..``, if a member is neither a file nor a folder (no dataset needs links), if there are too many members
    or too many bytes for the disk, or if the archive is damaged; OSError if it cannot be read or written.
    """
    max_bytes = min(MAX_UNPACKED_BYTES, shutil.disk_usage(archive.parent).free)
    try:
        if archive.suffix == ".zip":
            _unpack_zip(archive, target, max_bytes)
        else:
            _unpack_tar(archive, target, max_bytes)
    except (InputError, gzip.BadGzipFile) as error:
        raise InputError(f"{archive.name} is not unpacked: {error}") from error
    except OSError:
        raise
    except Exception as error:  # on damaged bytes the libraries raise errors of many types
        raise InputError(f"{archive.name} is damaged: {reason_of(error)}") from error


def _unpack_zip(archive: Path, target: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(archive) as file:
        _check_members(((m.filename, m.file_size, _is_plain(m)) for m in file.infolist()), max_bytes)
        file.extractall(target)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    """Whether it is a file or a folder; a mode of 0 comes from systems that have no modes."""
    return stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)


def _unpack_tar(archive: Path, target: Path, max_bytes: int) -> None:
    open_archive = gzip.open if archive.suffix == ".gz" else open
    with open_archive(archive, "rb") as raw, tarfile.open(fileobj=_BoundedReader(raw), mode="r:") as file:
        _check_members(((m.name, m.size, m.isreg() or m.isdir()) for m in file), max_bytes)
        file.extractall(target, filter="data")


def _check_members(members: Iterable[tuple[str, int, bool]], max_bytes: int) -> None:
    """Raise InputError unless all members (name, bytes, whether a file or a folder) can be unpacked."""
    total = 0
    for count, (name, size, is_plain) in enumerate(members, start=1):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"its member {name!r} leads out of the target folder")
        if not is_plain:
            raise InputError(f"its member {name!r} is neither a file nor a folder")
        if count > MAX_MEMBERS:
            raise InputError(f"it has more than {MAX_MEMBERS:,} members")
        total += size
        if total > max_bytes:
            raise InputError(
                f"it unpacks to more than {max_bytes:,} bytes, the limit or the room on the disk"
            )


class _BoundedReader(io.BufferedReader):
    """Refuses to read more than ``MAX_READ_BYTES`` at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ_BYTES:
            raise InputError(f"a header asks for {size} bytes at once, as only forged ones do")
        return super().read(size)
