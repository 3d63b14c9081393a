"""A record's file: its schema and checksum, and those of the tensors beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from core.errors import DamagedFileError, InputError
from core.files import read_json

SCHEMA = 1


class NewerSchemaError(DamagedFileError):
    """A record was written by newer code than this."""


def record_text(record: dict[str, Any]) -> str:
    """A record as its file holds it, with the checksum of all the rest."""
    return json.dumps(record | {"checksum": record_checksum(record)}, indent=2) + "\n"


def record_checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON, without the checksum that it may hold already."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_record(path: Path) -> dict[str, Any]:
    """A ``result.json`` or ``failure.json``; records without a checksum are those of earlier code.

    Raises DamagedFileError, saying how, where it is truncated, changed, or of another schema; OSError where
    it cannot be read.
    """
    try:
        record = read_json(path)
        schema = record["schema"]
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedFileError(f"it is no whole record ({error})") from error
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        kind = NewerSchemaError if newer else DamagedFileError
        raise kind(f"its schema is {schema}, this code reads {SCHEMA}")
    has_checksum = "checksum" in record or "files" in record  # a flipped bit in its name takes none away
    if has_checksum and record.get("checksum") != record_checksum(record):
        raise DamagedFileError("its checksum does not hold: it was damaged or edited")
    return record


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_files(folder: Path) -> None:
    """Raise InputError if one of a finished run's safetensors is not what its record was made with."""
    try:
        files = read_record(folder / "result.json").get("files", {})
    except (OSError, DamagedFileError):
        return
    for name, checksum in files.items():
        path = folder / name
        if path.exists() and file_checksum(path) != checksum:
            raise InputError(
                f"{path} is damaged: its checksum is not the one in result.json; delete result.json "
                "and train with --resume to write both anew"
            )
