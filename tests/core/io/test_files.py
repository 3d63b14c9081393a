"""Files, atomic writes, checksums and the messages of errors."""

import hashlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from core.io.digests import checksum, digest_of, file_checksum
from core.io.errors import DamagedFileError, NewerSchemaError, did_you_mean, reason_of, unknown_name
from core.io.files import (
    UMASK,
    append_line,
    check_schema,
    is_hidden,
    read_json,
    visible_files,
    write_atomically,
)


def test_checksum_is_the_sha256_of_all_parts_joined(tmp_path):
    numbers = torch.arange(6).view(2, 3).T  # not contiguous
    joined = "ä".encode() + b"\0b" + np.ascontiguousarray(numbers.numpy()).tobytes()
    expected = hashlib.sha256(joined).hexdigest()
    assert checksum(["ä", b"\0", memoryview(b"b"), numbers]) == expected
    assert digest_of(iter(["ä", b"\0b", numbers])) == expected[:16]
    (tmp_path / "file").write_bytes(joined)
    assert file_checksum(tmp_path / "file") == expected


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Otherwise a power cut can leave the name with nothing in it."""
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append("fsync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda old, new: events.append("replace") or replace(old, new))
    write_atomically(tmp_path / "file", "content")
    assert events == ["fsync", "replace"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~UMASK


@pytest.mark.parametrize("read", [file_checksum, read_json])
def test_pipe_is_an_error_instead_of_a_wait(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        read(tmp_path / "pipe")


def test_deeply_nested_json_is_a_value_error(tmp_path):
    (tmp_path / "nested.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"nested.json is nested too deeply"):
        read_json(tmp_path / "nested.json")


def test_other_schemas_are_damaged_or_newer():
    check_schema(2, supported=2)
    for schema, error in ((1, DamagedFileError), ("2", DamagedFileError), (3, NewerSchemaError)):
        with pytest.raises(DamagedFileError, match=f"its schema is {schema}, this code reads 2") as caught:
            check_schema(schema, supported=2)
        assert caught.type is error


def test_reason_is_one_short_line():
    assert reason_of(ValueError("two\n  lines")) == "two lines"
    assert reason_of(ValueError("x" * 500)) == "x" * 200
    assert reason_of(KeyError()) == "KeyError"


def test_unknown_name_suggests_a_similar_one_or_the_prefix_of_a_path_and_lists_all(tmp_path):
    known = ("MUTAG", "cifar10")
    assert did_you_mean("mutagg", known) == "; did you mean MUTAG?"
    assert did_you_mean("something", known) == ""
    assert str(unknown_name("`dataset`", "cifar11", known, " or folder:PATH")) == (
        "`dataset` is 'cifar11', which is unknown; did you mean cifar10? Known: MUTAG, cifar10 or folder:PATH"
    )
    file = tmp_path / "MUTAG"
    file.touch()
    for path, kinds, hint in (
        (tmp_path, ("folder:PATH", "lines:PATH"), f"; did you mean folder:{tmp_path}? Known"),
        (file, ("folder:PATH", "lines:PATH"), f"; did you mean lines:{file}? Known"),
        (file, ("folder:PATH",), "unknown. Known"),
        ("\0", ("folder:PATH",), "unknown. Known"),
    ):
        assert hint in str(unknown_name("source", str(path), kinds))


def test_line_is_appended_whole_or_not_at_all(tmp_path):
    """A limit of the file's size stands in for a full disk."""
    path = tmp_path / "lines"
    append_line(path, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            append_line(path, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "first\n"
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def write_half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write_half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_text() == "new"


def write_files(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_below(folder: Path) -> tuple[list[str], int]:
    paths, hidden = visible_files(folder)
    return [Path(path).relative_to(folder).as_posix() for path in paths], hidden


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (".ipynb_checkpoints", True),
        ("._a.png", True),
        ("__MACOSX", True),
        ("@eaDir", True),
        ("$RECYCLE.BIN", True),
        ("a.png", False),
        ("_a", False),
        ("a.b", False),
    ],
)
def test_names_that_systems_and_tools_add_are_hidden(name, hidden):
    assert is_hidden(name) is hidden


def test_visible_files_leave_out_hidden_files_and_folders_and_count_them(tmp_path):
    write_files(tmp_path, "b", "a/B", "a/deep/c", ".d", "a/._b", "__MACOSX/a/e", "a/.git/f", "a/.git/g")
    assert names_below(tmp_path) == (["a/B", "a/deep/c", "b"], 4)
    assert names_below(tmp_path / "a" / ".git") == (["f", "g"], 0)  # asked for by name


def test_visible_files_read_a_linked_folder_once(tmp_path):
    write_files(tmp_path, "store/x/1", "store/2", "root/part/own", "root/part/below/3")
    part = tmp_path / "root" / "part"
    (part / "a").symlink_to(tmp_path / "store")
    (part / "b").symlink_to(tmp_path / "store", target_is_directory=True)
    (part / "again").symlink_to("below")
    (part / "linked-file").symlink_to(tmp_path / "store" / "2")
    expected = ["a/2", "a/x/1", "below/3", "linked-file", "own"]
    assert names_below(part) == (expected, 0)
    (tmp_path / "elsewhere").symlink_to(part)
    assert names_below(tmp_path / "elsewhere") == (expected, 0)


@pytest.mark.parametrize("target", [".", "..", "../..", "below", "loop", "nowhere"])
def test_visible_files_end_cycles_and_never_leave_upwards(tmp_path, target):
    """A link upwards would bring the other classes of a data set into this one."""
    write_files(tmp_path, "root/part/own", "root/part/below/3", "root/other/4")
    part = tmp_path / "root" / "part"
    (part / "loop").symlink_to(target)
    (part / "below" / "back").symlink_to(part)
    broken = ["loop"] if target in ("loop", "nowhere") else []  # for the reader to name
    assert names_below(part) == (["below/3", *broken, "own"], 0)


def test_folder_that_cannot_be_read_is_not_empty(tmp_path, monkeypatch):
    write_files(tmp_path, "a/1", "b/2")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="b"):
        visible_files(tmp_path)
