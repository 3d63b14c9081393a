"""Checkpoint files: two generations of a run's state with checksums; the newest that is intact counts."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from core.distributed import is_main_process
from core.io.digests import checksum
from core.io.errors import DamagedFileError, InputError, NewerSchemaError, is_out_of_memory, reason_of
from core.io.files import check_regular, check_schema, write_atomically

SCHEMA = 4  # of a file: a header in one line of JSON, then what torch.save writes
READABLE_SCHEMAS = (2, 3, SCHEMA)
SLOTS = ("state-a.pt", "state-b.pt")


class Checkpoints:
    """The checkpoint files of a run.

    A new state replaces the older of two files or a damaged one, never the newest intact one. So at any
    moment the last state is there, and from the second one on also the state before it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._newest: str | None = None
        self._generation = 0
        self._state: dict[str, Any] | None = None  # as the newest file has it, if that was read

    def exist(self) -> bool:
        """Whether there is any file, damaged or not."""
        return any(self.folder.glob("*.pt"))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write ``state``, of types that ``torch.load(weights_only=True)`` reads."""
        body = io.BytesIO()
        torch.save(dict(state), body)
        header: dict[str, Any] = {"schema": SCHEMA, "generation": self._generation + 1}
        header |= {"sha256": _checksum(header, body.getbuffer())}
        slot = next(name for name in SLOTS if name != self._newest)

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(body.getbuffer())

        write_atomically(self.folder / slot, write)
        self._newest, self._generation = slot, self._generation + 1
        self.forget()

    def load(self) -> dict[str, Any] | None:
        """The newest intact state, with tensors on the CPU; None if none was ever saved.

        A warning names files that are damaged or of an older schema. Files are read, and warned of, once: the
        state is kept until ``forget`` or ``save``.

        Raises:
            InputError: No other file is left, or one is of a newer schema.
        """
        if self._state is None:
            self._state = self._read_newest()
        return self._state

    def forget(self) -> None:
        """Let go of the loaded state: the optimizer trains its tensors, which then differ from the file's."""
        self._state = None

    def _read_newest(self) -> dict[str, Any] | None:
        intact, faults = [], []
        for path in sorted(self.folder.glob("*.pt")):
            try:
                intact.append(read_checkpoint(path))
            except NewerSchemaError as error:
                raise InputError(f"{path} cannot be read: {error}; choose another `output_dir`") from error
            except (OSError, DamagedFileError) as error:
                faults.append(f"{path} cannot be used: {error}")
        if faults and not intact:
            raise InputError(f"{'; '.join(faults)}; delete {self.folder} to start again from the beginning")
        if not intact:
            return None
        path, self._generation, state = max(intact, key=lambda checkpoint: checkpoint[1])
        for fault in faults if is_main_process() else ():
            print(f"warning: {fault}; resuming from {path.name}, the last intact one", file=sys.stderr)
        self._newest = path.name
        return state


def read_checkpoint(path: Path) -> tuple[Path, int, dict[str, Any]]:
    """A checkpoint's path, generation and state, tensors on the CPU; parsed only if its checksum is right.

    ``has_times_of_group`` of the state: whether its times are those of all runs that were trained together,
    as before schema 4, and not this run's share.

    Raises:
        DamagedFileError: It is damaged or of another schema.
        OSError: It cannot be read.
        InputError: Its checksum is right, but this torch, or this machine's memory, cannot load it.
    """
    check_regular(path)
    head, _, body = path.read_bytes().partition(b"\n")
    try:
        header = {**json.loads(head)}
        is_intact = header.pop("sha256") == _checksum(header, body)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise DamagedFileError("it does not begin as a checkpoint does") from None
    if not is_intact:  # before the schema, in which a bit may have flipped
        raise DamagedFileError("its checksum is wrong: it is truncated or damaged")
    schema, generation = header.get("schema"), header.get("generation")
    if schema not in READABLE_SCHEMAS:
        check_schema(schema, SCHEMA)
    if not isinstance(generation, int):
        raise DamagedFileError(f"its generation is {generation!r}, which is not an integer")
    try:
        state = dict(torch.load(io.BytesIO(body), map_location="cpu", weights_only=True))
    except Exception as error:  # of many kinds: crafted bytes, another version of torch, too little memory
        raise InputError(
            f"{path} cannot be read, although its checksum is right ({reason_of(error)}); remove the cause "
            "and use the same command again, or delete the file to resume from the one before it"
        ) from error
    state = _upgrade(state) if schema == 2 else state
    return path, generation, state | {"has_times_of_group": schema in (2, 3)}


def _upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """A state of schema 2 as schema 3 has it."""
    with restoring(Path("the checkpoint")):
        progress = dict(state.pop("place"))
        untrained, *history = progress["history"]
        return state | {
            "progress": {
                "untrained": {name: value for name, value in untrained.items() if name != "epoch"},
                "history": history,
                "step_statistics": progress["measures"],
                **{name: progress[name] for name in ("epoch", "epoch_seconds", "seconds")},
            }
        }


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Turn the error of a state that lacks something, or has it in another type or shape, into InputError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
        raise InputError(
            f"{folder} does not hold a state of this run ({reason}); "
            "delete it to start again from the beginning"
        ) from error


def _checksum(header: Mapping[str, Any], body: bytes | memoryview) -> str:
    return checksum([json.dumps(dict(header), sort_keys=True), body])
