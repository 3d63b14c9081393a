"""A record's file: its schema and checksum, and those of the files beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from core.io.digests import file_checksum
from core.io.errors import DamagedFileError, InputError
from core.io.files import check_schema, read_json

SCHEMA = 1


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
    check_schema(schema, SCHEMA)
    has_checksum = "checksum" in record or "files" in record  # a flipped bit in its name takes none away
    if has_checksum and record.get("checksum") != record_checksum(record):
        raise DamagedFileError("its checksum does not hold: it was damaged or edited")
    return record


def read_result(path: Path) -> dict[str, Any]:
    """A ``result.json`` with the scores that every one has; raises as ``read_record`` does."""
    record = read_record(path)
    for name in ("metrics", "untrained_metrics"):
        scores = record.get(name)
        if not (isinstance(scores, dict) and all(isinstance(value, float) for value in scores.values())):
            raise DamagedFileError(f"its {name} are not numbers with names")
    return record


def check_files(folder: Path) -> None:
    """Raise InputError if a file of a finished run is not what its record was made with."""
    path = folder / "result.json"
    try:
        files = read_record(path).get("files", {})
    except (OSError, DamagedFileError):
        return
    if not (isinstance(files, dict) and all(map(_is_inside, files))):
        raise InputError(f"{path} is damaged: its files are not checksums by names inside {folder}")
    for name, checksum in files.items():
        _check_file(folder / name, checksum)


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _check_file(path: Path, checksum: str) -> None:
    try:
        is_whole = file_checksum(path) == checksum
    except FileNotFoundError:
        return  # whoever needs it says so
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, named in result.json, cannot be read: {error}") from error
    if not is_whole:
        raise InputError(
            f"{path} is damaged: its checksum is not the one in result.json; delete result.json "
            "and train with --resume to write both anew"
        )
