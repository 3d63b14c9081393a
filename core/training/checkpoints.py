"""Checkpoints: two generations of a run's state, each with its checksum; the newest that is whole counts."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from core.io.errors import DamagedFileError, InputError, NewerSchemaError, is_out_of_memory, reason_of
from core.io.files import check_regular, check_schema, write_atomically

SCHEMA = 2  # of a file: a line of JSON, then what torch.save made of the state; 1 had no such line
SLOTS = ("state-a.pt", "state-b.pt")


class Checkpoints:
    """What a run can go on from, in a folder of its own.

    A new state never replaces the newest that is whole, always the one before it or a damaged one: at any
    instant the last good state is there, and after the second also the one before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._newest: str | None = None
        self._generation = 0

    def exist(self) -> bool:
        """Whether there is any file to go on from, damaged or not."""
        return any(self.folder.glob("*.pt"))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write ``state``, of types that ``torch.load(weights_only=True)`` reads."""
        body = io.BytesIO()
        torch.save(dict(state), body)
        facts = {"schema": SCHEMA, "generation": self._generation + 1}
        header = facts | {"sha256": _digest(facts, body.getbuffer())}
        slot = next(name for name in SLOTS if name != self._newest)

        def write(file) -> None:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(body.getbuffer())

        write_atomically(self.folder / slot, write)
        self._newest, self._generation = slot, self._generation + 1

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, its tensors on the CPU; None where none was ever saved.

        Files that are damaged or of an older schema are named on stderr; raises InputError where no other
        is left, or where one is of a newer schema.
        """
        whole, faults = [], []
        for path in sorted(self.folder.glob("*.pt")):
            try:
                whole.append(read_checkpoint(path))
            except NewerSchemaError as error:
                raise InputError(f"{path} cannot be read: {error}; choose another --output-dir") from error
            except (OSError, DamagedFileError) as error:
                faults.append(f"{path} cannot be used: {error}")
        if faults and not whole:
            raise InputError(f"{'; '.join(faults)}; delete {self.folder} to start the run anew")
        if not whole:
            return None
        path, self._generation, state = max(whole, key=lambda found: found[1])
        for fault in faults:
            print(f"warning: {fault}; going on from {path.name}, the last that is whole", file=sys.stderr)
        self._newest = path.name
        return state


def read_checkpoint(path: Path) -> tuple[Path, int, dict[str, Any]]:
    """A checkpoint's path, generation and state, tensors on the CPU; parsed only once its checksum holds.

    Raises DamagedFileError, saying how, if it is damaged or of another schema; OSError if it cannot be read;
    InputError if it is whole and still holds no state that can be parsed, here and now.
    """
    check_regular(path)
    head, _, body = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(head)
        facts = {name: header[name] for name in ("schema", "generation")}
        checksum = header["sha256"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise DamagedFileError("it does not begin as a checkpoint does") from None
    check_schema(facts["schema"], SCHEMA)
    if checksum != _digest(facts, body):
        raise DamagedFileError("its checksum does not hold: it is truncated or damaged")
    if not isinstance(facts["generation"], int):
        raise DamagedFileError(f"its generation is {facts['generation']!r}, no whole number")
    try:
        state = dict(torch.load(io.BytesIO(body), map_location="cpu", weights_only=True))
    except Exception as error:  # of many kinds: the bytes may be anybody's, the torch another, memory short
        raise InputError(
            f"{path} cannot be read, though its checksum holds ({reason_of(error)}); go on with the same "
            "command once that is mended, or delete the file to go on from the one before it"
        ) from error
    return path, facts["generation"], state


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """What a state lacks inside, or has of another kind or shape, is an InputError that names its folder."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
        raise InputError(
            f"{folder} does not hold a state of this run ({reason}); delete it to start the run anew"
        ) from error


def _digest(facts: Mapping[str, Any], body: bytes | memoryview) -> str:
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()
