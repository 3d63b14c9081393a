"""A run's folder: settings, metrics, checkpoint, encoder, result. Each file is complete or absent.

What may be there at any moment, also after a kill:

- ``.lock``, locked while a process trains the run; then ``config.json``; then ``checkpoint/``.
- ``checkpoint/`` holds up to two intact states. The newest is the truth: it carries the lines of
  ``metrics.jsonl``, which is written again from them when a run is resumed.
- The encoder, ``sample.safetensors`` and the model card, ``README.md``, once training has ended.
- ``result.json`` last: if it is there, the run is complete. ``failure.json`` instead if a run has diverged.
- Temporary files under names of their own, which the next process to open the folder removes.

A finished run that is resumed to more epochs keeps its record, encoder and ``config.json`` until all files of
the longer run are written, in ``.finished/``. Then the record goes, and they take their places.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from core.distributed import barrier, is_main_process
from core.io.digests import file_checksum
from core.io.errors import (
    DamagedFileError,
    DivergedError,
    InputError,
    NewerSchemaError,
    TrainingError,
    reason_of,
)
from core.io.files import append_line, readable, write_atomically
from core.training.checkpoints import Checkpoints
from core.training.claim import FINISHED, LOCK, claim
from core.training.config import TrainConfig
from core.training.divergence import Divergence
from core.training.provenance import describe_environment, peak_memory_bytes
from core.training.records import HEADS, SCHEMA, check_files, read_result, record_text
from core.training.settings import describe_changes


class Run:
    """The folder of one training run. Only this class writes to it, once ``claim`` has made it ready.

    Of several processes only the main one writes. What cannot be written is a TrainingError.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder = config.folder()
        self.has_diverged = False
        self.sample: Mapping[str, Tensor] = {}  # what ``save_sample`` was given
        self.lock: IO[str] | None = None

    @classmethod
    @contextmanager
    def open(cls, config: TrainConfig) -> Iterator["Run"]:
        """Lock the folder that ``config`` names, which is new or holds this run, for this process.

        Raises:
            InputError: It holds something else, an unfinished run without ``resume``, or a run that another
                process trains.
        """
        run = cls(config)
        try:
            if is_main_process():
                claim(run)
            barrier()
            yield run
        finally:
            if run.lock is not None:
                run.lock.close()

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoint")

    def is_finished(self) -> bool:
        """Whether there is an intact record of so many epochs; InputError for one of a newer schema."""
        record = self.record()
        return record is not None and record.get("epochs") == self.config.epochs

    def record(self) -> dict[str, Any] | None:
        """The record if there is an intact one, perhaps of fewer epochs."""
        path = self.folder / "result.json"
        try:
            return read_result(path)
        except NewerSchemaError as error:
            raise InputError(f"{path} cannot be read: {error}; choose another `output_dir`") from error
        except (FileNotFoundError, DamagedFileError):
            return None

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        """Replace ``metrics.jsonl`` by these lines."""
        if is_main_process():
            self._write("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append the line of an epoch to ``metrics.jsonl``."""
        if is_main_process():
            with self.writing("metrics.jsonl"):
                append_line(self.folder / "metrics.jsonl", json.dumps(line))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        if is_main_process():
            with self.writing("checkpoint"):
                self.checkpoints.save(state)

    def load_checkpoint(self, fingerprint: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The state of the last checkpoint, with tensors on the CPU; None if there is none.

        Raises InputError if it was trained on data of another fingerprint.
        """
        state = self.checkpoints.load()
        if state is not None and fingerprint is not None:
            recorded = state.get("data", fingerprint)  # older checkpoints have none, or fewer parts
            both = sorted(fingerprint.keys() & recorded.keys())
            if changes := describe_changes(recorded, {name: fingerprint[name] for name in both}):
                raise InputError(
                    f"the data are not those that the run in {self.folder} began with ({changes}); "
                    "put those back, or choose another `output_dir`"
                )
        return state

    def save_encoder(self, state: Mapping[str, Tensor]) -> None:
        """Write ``encoder.safetensors``: the encoder's state, for others to load."""
        self._save_tensors("encoder.safetensors", state)

    def save_heads(self, state: Mapping[str, Tensor]) -> None:
        """Write ``heads.safetensors``: the heads that scores without labels need to be taken again."""
        self._save_tensors(HEADS, state)

    def save_sample(self, sample: Mapping[str, Tensor]) -> None:
        """Write ``sample.safetensors``, which figures of the embedding are drawn from.

        ``representations`` [N, D] of test samples, and their ``labels`` [N] if there are any; cosines of
        ``positives`` and ``negatives`` [M], as the objective sees them. ``shown_images``,
        ``shown_texts`` (JSON), or ``shown_edges`` and ``shown_nodes`` are a few items; ``shown_before`` and
        ``shown_after`` [n, D] are their embeddings before and after training.
        """
        self.sample = sample
        self._save_tensors("sample.safetensors", sample)

    def save_encoder_folder(self, write: Callable[[Path], object]) -> None:
        """Make the folder ``encoder/`` of what ``write`` puts into the folder it is given."""
        with self.writing("encoder"):
            folder = self.folder / FINISHED / "encoder"
            folder.mkdir(parents=True)
            write(folder)

    def finish(self, fields: Mapping[str, Any], device: torch.device, card: str) -> None:
        """Put the run's last files into their places, ``result.json`` at the end.

        ``fields`` are what was measured, ``card`` is the text of ``README.md``.
        """
        result = {
            **self._header(),
            "epochs": self.config.epochs,
            **fields,
            "peak_memory_bytes": peak_memory_bytes(device),
            "environment": describe_environment(device),
        }
        finished = self.folder / FINISHED
        with self.writing("result.json"):
            files = [path for path in sorted(finished.rglob("*")) if path.is_file()]
            result["files"] = {str(path.relative_to(finished)): file_checksum(path) for path in files}
        # Not named result.json yet, for which readers search every folder.
        self._write(f"{FINISHED}/record.json", record_text(result))
        self._write(f"{FINISHED}/config.json", self.config.as_text())
        self._write(f"{FINISHED}/README.md", card)
        with self.writing("result.json"):
            self._publish()

    def _publish(self) -> None:
        """Rename the finished files to their places; a record is only there while all belong to it."""
        finished, record = self.folder / FINISHED, self.folder / "result.json"
        whole = (finished / "record.json").rename(self.folder / ".result.json.finished")
        record.unlink(missing_ok=True)
        for path in sorted(finished.iterdir()):
            place = self.folder / path.name
            if place.is_dir():  # moved away first: a folder that is half deleted must not pass for one
                place.rename(finished / f".{path.name}")
            path.rename(place)
        shutil.rmtree(finished)
        whole.rename(record)

    def fail(self, diverged: Divergence, epoch: int, step: int) -> DivergedError:
        """Write ``failure.json``: why the run has diverged, and when that was noticed; return the error.

        The file names settings in backquotes, as the error does; the commands that print it write flags. A
        finished run that was resumed to more epochs keeps its record instead.
        """
        self.has_diverged = True
        kept = f"the checkpoint before it is kept in {self.folder}; " if self.checkpoints.exist() else ""
        advice = kept + diverged.advice(epoch, step, self._settings_to_try())
        message = f"{diverged.description} in epoch {epoch}, step {step}; {advice}"
        failure = {"reason": diverged.reason, "epoch": epoch, "step": step, "message": message}
        if is_main_process() and self.record() is None:
            self._write("failure.json", record_text(self._header() | failure))
        return DivergedError(diverged.reason, epoch, step, message)

    def report(self, was_finished: bool, shows_folder: bool = True) -> None:
        """Print a finished run's scores, trained and untrained, its folder, and if nothing was trained."""
        result = read_result(self.folder / "result.json")
        for name, value in result["metrics"].items():
            untrained = result["untrained_metrics"].get(name)
            before = "" if untrained is None else f" (untrained {untrained:.4f})"
            print(f"{name} {value:.4f}{before}")
        if not shows_folder:
            return
        note = " (finished before: nothing was trained)" if was_finished else ""
        print(f"run folder: {readable(str(self.folder))}{note}")

    def _settings_to_try(self) -> str:
        """The settings that may prevent divergence; the run's own folder accepts no other settings."""
        config = self.config
        tries = [f"a smaller `lr` than {config.lr:g}"]
        tries += [f"a smaller `beta` than {config.beta:g}"] if config.beta else []
        tries += ["`precision` float32"] if config.precision != "float32" else []
        return f"{' or '.join(tries)}, and another `output_dir`"

    def _header(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "modality": self.config.modality,
            "dataset": self.config.dataset,
            "objective": self.config.objective_record(),
            "seed": self.config.seed,
        }

    def _save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with self.writing(name):
            (self.folder / FINISHED).mkdir(exist_ok=True)
        self._write(f"{FINISHED}/{name}", safetensors.torch.save(contiguous))

    def _write(self, name: str, content: str | bytes) -> None:
        with self.writing(name):
            write_atomically(self.folder / name, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Turn what the disk refuses inside into a TrainingError that names the file."""
        try:
            if not self._has_its_folder():
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            yield
        except (OSError, safetensors.SafetensorError) as error:
            reason = getattr(error, "strerror", None) or reason_of(error)
            if not self._has_its_folder():
                reason = "the run's folder was removed or replaced during training"
            raise TrainingError(
                f"{self.folder / name} cannot be written: {reason}; every file that is there is intact: "
                "remove the cause, then resume with the same command and `resume`"
            ) from error

    def _has_its_folder(self) -> bool:
        """Whether the folder is the one that this process has locked."""
        if self.lock is None:
            return True
        try:
            return os.path.samestat(os.fstat(self.lock.fileno()), (self.folder / LOCK).stat())
        except OSError:
            return False


def load_encoder_state(
    encoder: nn.Module,
    folder: Path,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state,
    name: str = "encoder.safetensors",
) -> None:
    """Load a run's file ``name`` into ``encoder``, which may be on the meta device.

    ``adapt`` turns the saved state into the one that ``encoder`` has. Raises InputError if it does not fit.
    """
    path = folder / name
    check_files(folder)
    try:
        encoder.load_state_dict(adapt(safetensors.torch.load_file(path)), assign=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run is not finished; resume it with `resume`") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not hold this encoder: {reason_of(error)}") from error
