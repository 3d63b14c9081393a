"""Archives: what is unpacked, and what is rejected before anything is written."""

import gzip
import io
import tarfile
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.io import archives
from core.io.archives import unpack
from core.io.errors import InputError

COMPRESSORS = {"tar": bytes, "tar.gz": gzip.compress}


def tar_of(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members: dict[str, bytes], kinds: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = kinds << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return buffer.getvalue()


def special(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, link
    return info


MEMBERS = {"a/one.txt": b"1", "a/b/two.txt": b"22", "three.txt": b""}


@pytest.mark.parametrize("kind", ["zip", *COMPRESSORS])
def test_unpack_writes_every_member(tmp_path, kind):
    archive = tmp_path / f"set.{kind}"
    archive.write_bytes(zip_of(MEMBERS) if kind == "zip" else COMPRESSORS[kind](tar_of(MEMBERS)))
    unpack(archive, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files} == MEMBERS


def error_message(tmp_path, name: str, content: bytes) -> str:
    """The message of the InputError that ``unpack`` raises; it must have written nothing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        unpack(folder / name, folder / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / name]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "a/.."])
def test_member_outside_the_target_is_rejected(tmp_path, kind, name):
    members = {"good.txt": b"good", name: b"bad"}
    content = zip_of(members) if kind == "zip" else tar_of(members)
    assert f"its member {name!r} leads out" in error_message(tmp_path, f"set.{kind}", content)


@pytest.mark.parametrize(
    "member",
    [
        special(tarfile.SYMTYPE, "/etc/passwd"),
        special(tarfile.SYMTYPE, "good.txt"),
        special(tarfile.LNKTYPE, "/etc/passwd"),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.FIFOTYPE),
    ],
    ids=["symlink outside", "symlink inside", "hard link", "character device", "block device", "pipe"],
)
def test_link_or_device_in_a_tar_is_rejected(tmp_path, member):
    content = tar_of({"good.txt": b"good", "odd": member, "odd/passwd": b"bad"})
    assert "its member 'odd' is neither a file nor a folder" in error_message(tmp_path, "set.tar", content)


def test_link_in_a_zip_is_rejected(tmp_path):
    content = zip_of({"odd": b"/etc/passwd"}, kinds=0o120777)
    assert "its member 'odd' is neither" in error_message(tmp_path, "set.zip", content)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archive_bomb_is_rejected(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 20)
    members = {f"{i}.bin": bytes(1 << 18) for i in range(5)}
    content = zip_of(members) if kind == "zip" else gzip.compress(tar_of(members))
    assert len(content) < 1 << 14
    assert "unpacks to more than 1,048,576 bytes" in error_message(tmp_path, f"set.{kind}", content)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members_or_a_full_disk_is_rejected(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    members = {str(i): b"" for i in range(4)}
    content = zip_of(members) if kind == "zip" else tar_of(members)
    assert "has more than 3 members" in error_message(tmp_path, f"set.{kind}", content)
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda path: archives.shutil._ntuple_diskusage(9, 8, 1)
    )
    content = zip_of(MEMBERS) if kind == "zip" else tar_of(MEMBERS)
    (tmp_path / f"set.{kind}").write_bytes(content)
    with pytest.raises(InputError, match="unpacks to more than 1 bytes, the limit or the room on the disk"):
        unpack(tmp_path / f"set.{kind}", tmp_path / "out")


def test_forged_header_size_allocates_nothing(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    content = gzip.compress(header.tobuf() + bytes(1 << 20))
    assert "asks for 4294967296 bytes at once" in error_message(tmp_path, "set.tar.gz", content)


@pytest.mark.parametrize("kind", ["zip", *COMPRESSORS])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_archive_is_an_error_of_one_line(tmp_path, kind, damage):
    member = {"a": bytes(range(256)) * 40}
    intact = zip_of(member) if kind == "zip" else COMPRESSORS[kind](tar_of(member))
    content = {"cut": intact[: len(intact) // 2], "empty": b"", "other": b"<html>no</html>" * 100}[damage]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"set.{kind}").write_bytes(content)
    with pytest.raises((InputError, OSError)) as error:
        unpack(folder / f"set.{kind}", folder / "out")
    assert "\n" not in str(error.value)


@given(
    position=st.integers(0, 5000), value=st.integers(0, 255), kind=st.sampled_from(["zip", "tar.gz", "tar"])
)
def test_any_wrong_byte_is_an_error_or_harmless(tmp_path_factory, position, value, kind):
    """Nothing is written outside the target, whose folder holds the archive and nothing else."""
    content = bytearray(zip_of(MEMBERS) if kind == "zip" else COMPRESSORS[kind](tar_of(MEMBERS)))
    content[position % len(content)] = value
    parent = tmp_path_factory.mktemp("bytes")
    archive = parent / f"set.{kind}"
    archive.write_bytes(content)
    with suppress(InputError, OSError):
        unpack(archive, parent / "in")
    assert set(parent.iterdir()) <= {archive, parent / "in"}
