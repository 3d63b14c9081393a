"""Files, atomic writes, checksums and the messages of errors."""

import hashlib
import os

import numpy as np
import pytest
import torch

from core.io.digests import checksum, digest_of, file_checksum
from core.io.errors import DamagedFileError, NewerSchemaError, did_you_mean, reason_of, unknown_name
from core.io.files import check_schema, read_json, write_atomically


def test_checksum_is_the_sha256_of_all_parts_joined(tmp_path):
    numbers = torch.arange(6).view(2, 3).T  # not contiguous
    joined = "ä".encode() + b"\0b" + np.ascontiguousarray(numbers.numpy()).tobytes()
    expected = hashlib.sha256(joined).hexdigest()
    assert checksum(["ä", b"\0", memoryview(b"b"), numbers]) == expected
    assert digest_of(iter(["ä", b"\0b", numbers])) == expected[:16]
    (tmp_path / "file").write_bytes(joined)
    assert file_checksum(tmp_path / "file") == expected


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


def test_unknown_name_suggests_a_similar_one_and_lists_all():
    known = ("MUTAG", "cifar10")
    assert did_you_mean("mutagg", known) == "; did you mean MUTAG?"
    assert did_you_mean("something", known) == ""
    assert str(unknown_name("dataset", "cifar11", known, " or folder:PATH")) == (
        "`dataset` is 'cifar11', which is unknown; did you mean cifar10? Known: MUTAG, cifar10 or folder:PATH"
    )


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
