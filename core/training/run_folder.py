"""A run's folder: settings, metrics, checkpoint, encoder, result; each file whole or not there.

What may be there at any instant, a kill included:

- ``.lock``, held by the process that trains as long as it lives; then ``config.json``; then ``checkpoint/``.
- ``checkpoint/`` has none, one or two states that are whole. The newest is the truth: it carries the lines of
  ``metrics.jsonl``, which is written anew from them when a run goes on, whatever it held.
- The encoder and ``sample.safetensors``, whole, once training has ended.
- ``result.json`` last: where it is, the run is whole. ``failure.json`` in its stead where a run cannot go on.
- Temporary files under names of their own, which the next process to open the folder removes.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch

from core.distributed import barrier, is_main_process, launched_processes, world_size
from core.io.digests import file_checksum
from core.io.errors import (
    DamagedFileError,
    DivergedError,
    InputError,
    NewerSchemaError,
    TrainingError,
    reason_of,
)
from core.io.files import read_json, readable, write_atomically
from core.training.checkpoints import Checkpoints
from core.training.config import TrainConfig, flag
from core.training.provenance import describe_environment, peak_memory_bytes
from core.training.records import SCHEMA, check_files, read_result, record_text

LOCK = ".lock"
# Names that ``write_atomically`` and ``save_encoder_folder`` leave if they are killed.
TEMPORARY = re.compile(
    r"\.(config\.json|metrics\.jsonl|encoder\.safetensors|sample\.safetensors|result\.json|failure\.json"
    r"|state-[ab]\.pt)\..+|\.encoder-.+"
)


@dataclass(frozen=True)
class Trained:
    """What training leaves behind beside the weights."""

    untrained_metrics: dict[str, Any]  # of runs that were trained together, lists with one for each
    seconds: float  # one run's share
    samples_per_second: float


@dataclass(frozen=True)
class Run:
    """The folder of one training run: what it holds is this class's alone to write.

    Where several processes train as one, the first alone writes. What cannot be written is a TrainingError.
    """

    folder: Path
    modality: str
    config: TrainConfig
    _lock: list[IO] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(cls, modality: str, config: TrainConfig) -> Iterator["Run"]:
        """Open the folder that ``config`` names, new or holding this very run, for this process alone.

        Raises InputError where it holds something else, an unfinished run without ``--resume``, or a run that
        another process is at.
        """
        folder = config.output_dir or default_folder(
            modality, config.dataset, config.objective_slug(), config.seed
        )
        run = cls(folder, modality, config)
        if launched_processes() != world_size():
            raise InputError(f"{modality} training runs in one process; start it without torchrun")
        try:
            if is_main_process():
                run._claim()
            barrier()
            yield run
        finally:
            for lock in run._lock:
                lock.close()

    def _claim(self) -> None:
        """Make the folder this run's, or raise InputError."""
        folder, config = self.folder, self.config
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_is_ours()
            if self.is_finished():
                return
            self._take_lock()
            self._check_is_ours()
            if self.is_finished():  # by a process that has ended since
                return
            if self.checkpoints.exist() and not config.resume:
                raise InputError(
                    f"{folder} holds this run unfinished, {self._epochs_done()} of {config.epochs} "
                    "epochs done; add --resume to go on, or choose another --output-dir"
                )
            remove_temporaries(folder)
            settings = {"modality": self.modality} | config.as_dict()
            write_atomically(folder / "config.json", json.dumps(settings, indent=2) + "\n")
            self.checkpoints.folder.mkdir(exist_ok=True)
            (folder / "failure.json").unlink(missing_ok=True)
            if (folder / "result.json").exists():
                print(f"warning: {folder / 'result.json'} is damaged and made anew", file=sys.stderr)
        except OSError as error:
            raise InputError(f"--output-dir {folder} cannot be written: {error.strerror}") from error

    def _check_is_ours(self) -> None:
        """Raise InputError if the folder holds another run, or something that is no run."""
        if not (self.folder / "config.json").exists():
            names = {path.name for path in self.folder.iterdir()} - {LOCK}
            if not all(map(TEMPORARY.fullmatch, names)):
                raise InputError(f"{self.folder} holds files that are no run's; choose another --output-dir")
            return
        given = {"modality": self.modality} | self.config.identity()
        # What an older run does not name was then as it is by default now.
        held = self.config.defaults() | read_settings(self.folder)
        if changes := changes_of(held, given):
            raise InputError(
                f"{self.folder} holds a run of other settings ({changes}); choose another --output-dir"
            )

    def _take_lock(self) -> None:
        """Lock the folder for as long as this process lives, or raise InputError if another has it."""
        lock = open(self.folder / LOCK, "a")  # noqa: SIM115
        self._lock.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self.folder} is in use: another process trains this run; wait for it to end, or choose "
                "another --output-dir"
            ) from None

    @property
    def runs(self) -> list["Run"]:
        """This run alone, where a group has several."""
        return [self]

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoint")

    def is_finished(self) -> bool:
        """Whether there is a record that is whole; raises InputError for one of a newer schema."""
        path = self.folder / "result.json"
        try:
            read_result(path)
        except NewerSchemaError as error:
            raise InputError(f"{path} cannot be read: {error}; choose another --output-dir") from error
        except (FileNotFoundError, DamagedFileError):
            return False
        return True

    def _epochs_done(self) -> int:
        try:
            lines = (self.folder / "metrics.jsonl").read_bytes().count(b"\n")
        except OSError:
            lines = 0
        return max(lines - 1, 0)

    def rewrite_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Make ``metrics.jsonl`` hold these lines and no others."""
        if is_main_process():
            self._write("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append an epoch's line to ``metrics.jsonl``; epoch 0 is the encoder before its first step."""
        if is_main_process():
            with self._writing("metrics.jsonl"), open(self.folder / "metrics.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        if is_main_process():
            with self._writing("checkpoint"):
                self.checkpoints.save(state)

    def load_checkpoint(self, data: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """What ``save_checkpoint`` was last given, its tensors on the CPU; None where there is none.

        Raises InputError where it was trained on data of another fingerprint than ``data``.
        """
        state = self.checkpoints.load()
        if state is not None and data is not None:
            held = state.get("data", data)  # older states name none
            if changes := changes_of(held, data):
                raise InputError(
                    f"the data are not those that the run in {self.folder} began with ({changes}); "
                    "put those back, or choose another --output-dir"
                )
        return state

    def save_encoder(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write ``encoder.safetensors``: the encoder's state, for others to load."""
        self._save_tensors("encoder.safetensors", state)

    def save_sample(self, sample: dict[str, torch.Tensor]) -> None:
        """Write ``sample.safetensors``, what figures of the embedding are drawn from.

        ``representations`` [N, D] and ``labels`` [N] of test samples; cosines of ``positives`` and
        ``negatives`` [M], as the objective sees them.
        """
        self._save_tensors("sample.safetensors", sample)

    def _save_tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        kept = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self._write(name, safetensors.torch.save(kept))

    def save_encoder_folder(self, write: Callable[[Path], object]) -> None:
        """Make the folder ``encoder/``, whole or not at all, of what ``write`` puts in the one it gets."""
        target = self.folder / "encoder"
        with self._writing("encoder"):
            scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=".encoder-"))
            try:
                write(scratch)
                scratch.chmod(0o755)
                if target.exists():  # moved away whole: a folder half deleted must not pass for an encoder
                    target.rename(tempfile.mkdtemp(dir=self.folder, prefix=".encoder-"))
                scratch.rename(target)
            finally:
                remove_temporaries(self.folder)

    def finish(
        self,
        metrics: dict[str, float],
        trained: Trained,
        *,
        eval_seconds: float,
        device: torch.device,
        **facts: Any,
    ) -> None:
        """Write ``result.json``, the last of the run's files; ``facts`` are a modality's own."""
        result = {
            **self._header(),
            "epochs": self.config.epochs,
            "metrics": metrics,
            "untrained_metrics": trained.untrained_metrics,
            "train_seconds": round(trained.seconds, 3),
            "eval_seconds": round(eval_seconds, 3),
            "samples_per_second": round(trained.samples_per_second, 1),
            "peak_memory_bytes": peak_memory_bytes(device),
            "environment": describe_environment(device),
            **facts,
        }
        with self._writing("result.json"):
            made = [*self.folder.glob("*.safetensors"), *(self.folder / "encoder").rglob("*")]
            result["files"] = {
                str(path.relative_to(self.folder)): file_checksum(path)
                for path in sorted(made)
                if path.is_file()
            }
        self._write("result.json", record_text(result))

    def fail(self, error: DivergedError) -> None:
        """Write ``failure.json``: why the run cannot go on, and where that was found."""
        if is_main_process():
            failure = self._header() | {"reason": error.reason, "epoch": error.epoch, "step": error.step}
            self._write("failure.json", record_text(failure | {"message": str(error)}))

    def has_failed(self) -> bool:
        """Whether the run has diverged since it was opened."""
        return (self.folder / "failure.json").exists()

    def _header(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "modality": self.modality,
            "dataset": self.config.dataset,
            "objective": self.config.objective_record(),
            "seed": self.config.seed,
        }

    def _write(self, name: str, content: str | bytes) -> None:
        with self._writing(name):
            write_atomically(self.folder / name, content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """What the disk refuses inside is a TrainingError that names the file."""
        try:
            if not self._is_still_there():
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            yield
        except (OSError, safetensors.SafetensorError) as error:
            reason = getattr(error, "strerror", None) or reason_of(error)
            if not self._is_still_there():
                reason = "the run's folder was removed or replaced while it ran"
            raise TrainingError(
                f"{self.folder / name} cannot be written: {reason}; what is there is whole: "
                "once that is mended, go on with the same command and --resume"
            ) from error

    def _is_still_there(self) -> bool:
        """Whether the folder is the one that this process has locked."""
        path = self.folder / LOCK
        try:
            return all(os.path.samestat(os.fstat(lock.fileno()), path.stat()) for lock in self._lock)
        except OSError:
            return False

    def read_result(self) -> dict[str, Any]:
        return read_result(self.folder / "result.json")

    def report(self) -> None:
        """Print a finished run's scores, trained and untrained, and its folder."""
        result = self.read_result()
        for name, value in result["metrics"].items():
            untrained = result["untrained_metrics"].get(name)
            before = "" if untrained is None else f" (untrained {untrained:.4f})"
            print(f"{name} {value:.4f}{before}")
        print(f"run folder: {readable(str(self.folder))}")


def changes_of(held: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What a run's folder holds otherwise than it is given now, for a message; empty where nothing is."""
    return "; ".join(
        f"{flag(name)} {json.dumps(held.get(name))} there, {json.dumps(value)} now"
        for name, value in given.items()
        if held.get(name) != value
    )


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writes have left in a run's folder."""
    for path in [*folder.glob(".*"), *folder.glob("checkpoint/.*")]:
        if TEMPORARY.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def default_folder(modality: str, dataset: str, objective_slug: str, seed: int) -> Path:
    """runs/MODALITY/DATASET/OBJECTIVE/seed-N."""
    dataset = re.sub(r"[^\w.+-]+", "-", dataset).strip("-")
    return Path("runs") / modality / dataset / objective_slug / f"seed-{seed}"


def read_settings(folder: Path, modality: str | None = None) -> dict[str, Any]:
    """A run folder's ``config.json``, of ``modality`` if given; raises InputError where there is none."""
    path = folder / "config.json"
    try:
        settings = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no run folder: {path} cannot be read ({error})") from error
    if not isinstance(settings, dict) or "modality" not in settings:
        raise InputError(f"{folder} is no run folder: {path} names no modality")
    if modality is not None and settings["modality"] != modality:
        raise InputError(
            f"{folder} holds a run of modality {settings['modality']}; one of {modality} is needed"
        )
    return settings


def load_encoder_state(
    encoder: torch.nn.Module,
    folder: Path,
    adapt: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = lambda state: state,
) -> None:
    """Give ``encoder``, which may be on the meta device, the tensors of a run's ``encoder.safetensors``.

    ``adapt`` takes the state as it is kept to the one that ``encoder`` has. Raises InputError if that cannot
    be done.
    """
    path = folder / "encoder.safetensors"
    check_files(folder)
    try:
        encoder.load_state_dict(adapt(safetensors.torch.load_file(path)), assign=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run is not finished; go on with --resume") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not hold this encoder: {reason_of(error)}") from error
