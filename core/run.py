"""A run's folder: settings, metrics, checkpoint, encoder, result; each file whole or not there."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from rich.console import Console

from core.config import Config, TrainConfig, flag
from core.distributed import is_first, launched_processes, process_group, wait_for_all, world_size
from core.environment import choose_device, choose_precision, describe_environment, peak_memory_bytes
from core.errors import InputError
from core.files import write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Trained:
    """What training leaves behind beside the weights."""

    untrained_metrics: dict[str, float]
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class Run:
    """The folder of one training run: what it holds is this class's alone to write.

    ``config.json`` is written first and ``result.json`` last, so its presence means the run is whole. Where
    several processes train as one, the first alone writes.
    """

    folder: Path
    modality: str
    config: TrainConfig

    @classmethod
    def open(cls, modality: str, config: TrainConfig) -> "Run":
        """Open the folder that ``config`` names, new or holding this very run.

        Raises InputError where it holds something else, or an unfinished run without ``--resume``.
        """
        folder = config.output_dir or default_folder(
            modality, config.dataset, config.objective_slug(), config.seed
        )
        run = cls(folder, modality, config)
        if launched_processes() != world_size():
            raise InputError(f"{modality} training runs in one process; start it without torchrun")
        if is_first():
            run._claim()
        wait_for_all()
        return run

    def _claim(self) -> None:
        """Make the folder this run's, or raise InputError."""
        folder, config = self.folder, self.config
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "config.json").exists():
                self._check_same_settings()
            elif any(folder.iterdir()):
                raise InputError(f"{folder} holds files that are no run's; choose another --output-dir")
            if self.checkpoint_path.exists() and not config.resume and not self.is_finished():
                raise InputError(
                    f"{folder} holds this run unfinished, {len(self.read_metrics()) - 1} of {config.epochs} "
                    "epochs done; add --resume to go on, or choose another --output-dir"
                )
            settings = {"modality": self.modality} | config.as_dict()
            if not self.is_finished():
                write_atomically(folder / "config.json", json.dumps(settings, indent=2) + "\n")
                self.checkpoint_path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"--output-dir {folder} cannot be written: {error.strerror}") from error

    def _check_same_settings(self) -> None:
        given = {"modality": self.modality} | self.config.identity()
        held = read_settings(self.folder)
        changed = [
            f"{flag(name)} {json.dumps(held.get(name))} there, {json.dumps(value)} now"
            for name, value in given.items()
            if held.get(name) != value
        ]
        if changed:
            raise InputError(
                f"{self.folder} holds a run of other settings ({'; '.join(changed)}); "
                "choose another --output-dir"
            )

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint" / "state.pt"

    def is_finished(self) -> bool:
        return (self.folder / "result.json").exists()

    def read_metrics(self) -> list[dict[str, Any]]:
        """The whole lines of ``metrics.jsonl``; a last line cut short is left out."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def keep_metrics(self, epochs: int) -> None:
        """Drop the lines of epochs after ``epochs``: training is about to make them again."""
        if not is_first():
            return
        kept = [line for line in self.read_metrics() if line["epoch"] <= epochs]
        write_atomically(self.folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in kept))

    def log_metrics(self, epoch: int, **metrics: float) -> None:
        """Append an epoch's line to ``metrics.jsonl``; epoch 0 is the encoder before its first step."""
        if not is_first():
            return
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"epoch": epoch} | metrics) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        if is_first():
            write_atomically(self.checkpoint_path, lambda file: torch.save(state, file))

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """What ``save_checkpoint`` was last given, its tensors on ``device``; None where there is none."""
        if not self.checkpoint_path.exists():
            return None
        try:
            return torch.load(self.checkpoint_path, map_location=device, weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.checkpoint_path} cannot be read ({reason}); delete it to start the run anew"
            ) from error

    def save_encoder(self, encoder: torch.nn.Module) -> None:
        """Write ``encoder.safetensors``: the encoder's state, for others to load."""
        state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
        write_atomically(self.folder / "encoder.safetensors", safetensors.torch.save(state))

    def save_sample(self, sample: dict[str, torch.Tensor]) -> None:
        """Write ``sample.safetensors``, what figures of the embedding are drawn from.

        ``representations`` [N, D] and ``labels`` [N] of test samples; cosines of ``positives`` and
        ``negatives`` [M], as the objective sees them.
        """
        kept = {name: value.detach().cpu().contiguous() for name, value in sample.items()}
        write_atomically(self.folder / "sample.safetensors", safetensors.torch.save(kept))

    def save_encoder_folder(self, write: Callable[[Path], object]) -> None:
        """Make the folder ``encoder/``, whole or not at all, of what ``write`` puts in the one it gets."""
        scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=".encoder-"))
        try:
            write(scratch)
            shutil.rmtree(self.folder / "encoder", ignore_errors=True)
            scratch.chmod(0o755)
            scratch.rename(self.folder / "encoder")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

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
            "schema": SCHEMA,
            "modality": self.modality,
            "dataset": self.config.dataset,
            "objective": self.config.objective_record(),
            "seed": self.config.seed,
            "epochs": self.config.epochs,
            "metrics": metrics,
            "untrained_metrics": trained.untrained_metrics,
            "train_seconds": round(trained.seconds, 3),
            "eval_seconds": round(eval_seconds, 3),
            "samples_per_second": round(trained.samples_per_second, 1),
            "peak_memory_bytes": peak_memory_bytes(device),
            "environment": describe_environment(device),
        } | facts
        write_atomically(self.folder / "result.json", json.dumps(result, indent=2) + "\n")

    def read_result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())

    def report(self) -> None:
        """Print a finished run's scores, trained and untrained, and its folder."""
        result = self.read_result()
        console = Console(highlight=False, soft_wrap=True)
        for name, value in result["metrics"].items():
            untrained = result["untrained_metrics"].get(name)
            before = "" if untrained is None else f" (untrained {untrained:.4f})"
            console.print(f"{name} {value:.4f}{before}")
        console.print(f"run folder: {self.folder}")


def settle(config: Config) -> tuple[Config, torch.device]:
    """The config with its precision resolved for its device, and that device."""
    device = choose_device(config.device)
    return replace(config, precision=choose_precision(config.precision, device)), device


def launch(train: Callable[[Config], Run], config: Config) -> None:
    """Train in all the processes that torchrun has started; the first reports."""
    with process_group(choose_device(config.device)):
        run = train(config)
        if is_first():
            run.report()


def default_folder(modality: str, dataset: str, objective_slug: str, seed: int) -> Path:
    """runs/MODALITY/DATASET/OBJECTIVE/seed-N."""
    dataset = re.sub(r"[^\w.+-]+", "-", dataset).strip("-")
    return Path("runs") / modality / dataset / objective_slug / f"seed-{seed}"


def read_settings(folder: Path, modality: str | None = None) -> dict[str, Any]:
    """A run folder's ``config.json``, of ``modality`` if given; raises InputError where there is none."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no run folder: {path} cannot be read ({error})") from error
    if not isinstance(settings, dict) or "modality" not in settings:
        raise InputError(f"{folder} is no run folder: {path} names no modality")
    if modality is not None and settings["modality"] != modality:
        raise InputError(
            f"{folder} holds a run of modality {settings['modality']}; one of {modality} is needed"
        )
    return settings


def load_encoder_state(encoder: torch.nn.Module, folder: Path) -> None:
    """Fill ``encoder`` from a run's ``encoder.safetensors``; raises InputError if that cannot be done."""
    path = folder / "encoder.safetensors"
    try:
        encoder.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run is not finished; go on with --resume") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not hold this encoder: {reason}") from error
