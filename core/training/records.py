"""Records: the file ``result.json``, its schema and checksum, and the checksums of the files beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.io.digests import checksum, file_checksum
from core.io.errors import DamagedFileError, InputError
from core.io.files import check_schema, read_json

SCHEMA = 1
HEADS = "heads.safetensors"  # of a run folder
# The settings that identified an objective before ``config.json`` listed them as ``objective_fields``.
OLDER_OBJECTIVE_FIELDS = frozenset(
    {
        *("variant", "stop_gradient", "anneal_beta", "positives"),
        *("normalize", "denominator", "window", "encoder"),
    }
)


def record_text(record: dict[str, Any]) -> str:
    """The text of a record's file: JSON with a checksum of the rest."""
    return json.dumps(record | {"checksum": record_checksum(record)}, indent=2) + "\n"


def record_checksum(record: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON, its own ``checksum`` left out."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return checksum([json.dumps(rest, sort_keys=True, separators=(",", ":"))])


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``result.json`` or ``failure.json``; older ones need no checksum, and get a label.

    Raises:
        DamagedFileError: The file is truncated, was changed, or has another schema.
        OSError: The file cannot be read.
    """
    try:
        record = read_json(path)
        schema = record["schema"]
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedFileError(f"it is not a valid record ({error})") from error
    check_schema(schema, SCHEMA)
    has_checksum = "checksum" in record or "files" in record  # a flipped bit in its name must not hide it
    if has_checksum and record.get("checksum") != record_checksum(record):
        raise DamagedFileError("its checksum does not match: it was damaged or edited")
    objective = record.get("objective")
    if isinstance(objective, dict) and "label" not in objective:
        record["objective"] = label_older_objective(objective)
    return record


def label_older_objective(objective: Mapping[str, Any]) -> dict[str, Any]:
    """Add ``label``, ``family`` and ``plain_family`` to an objective recorded before records had them.

    Raises DamagedFileError if a value has the wrong type.
    """
    get = objective.get
    try:
        numbers = [f"{name} {objective[name]:g}" for name in ("beta", "tau_plus") if get(name)]
        options = {
            "released": get("variant") == "released",
            "annealed": get("anneal_beta") == "down",
            "normalized": get("normalize"),
            "denominator all": get("denominator") == "all",
            "weights constant": get("stop_gradient"),
            "true positives": get("positives") == "label",
            f"window {get('window')}": get("window", 1) > 1,
        }
        keeps_plain = ("released", "annealed", "weights constant")  # at beta 0 and tau_plus 0
        changed = [name for name, is_changed in options.items() if is_changed]
        of_plain = [name for name in changed if name not in keeps_plain]
        family = ", ".join(filter(None, [get("encoder"), *(changed if numbers else of_plain)]))
        plain_family = ", ".join(filter(None, [get("encoder"), *of_plain]))
        label = ", ".join(filter(None, [objective["name"], *numbers, family]))
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedFileError(f"its objective is not valid ({error})") from error
    return {"encoder": None, **objective, "label": label, "family": family, "plain_family": plain_family}


def objective_fields(settings: Mapping[str, Any]) -> frozenset[str]:
    """Names of the settings in a ``config.json`` that are part of the objective's identity."""
    names = settings.get("objective_fields")
    return frozenset(map(str, names)) if isinstance(names, list) else OLDER_OBJECTIVE_FIELDS


def read_result(path: Path) -> dict[str, Any]:
    """Read a ``result.json`` and check its scores; raises as ``read_record`` does."""
    record = read_record(path)
    for name in ("metrics", "untrained_metrics"):
        scores = record.get(name)
        if not (isinstance(scores, dict) and all(isinstance(value, float) for value in scores.values())):
            raise DamagedFileError(f"its {name} are not a mapping from names to numbers")
    return record


def check_files(folder: Path) -> None:
    """Raise InputError if a file of a finished run has changed since its record was written."""
    path = folder / "result.json"
    try:
        files = read_record(path).get("files", {})
    except (OSError, DamagedFileError):
        return
    if not (isinstance(files, dict) and all(map(_is_inside, files))):
        raise InputError(f"{path} is damaged: its files are not checksums by names inside {folder}")
    for name, expected in files.items():
        _check_file(folder / name, expected)


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _check_file(path: Path, expected: str) -> None:
    try:
        is_unchanged = file_checksum(path) == expected
    except FileNotFoundError:
        return  # whoever reads the file reports it
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, named in result.json, cannot be read: {error}") from error
    if not is_unchanged:
        raise InputError(
            f"{path} is damaged: its checksum is not the one in result.json; delete result.json "
            "and train again with `resume` to write both"
        )
