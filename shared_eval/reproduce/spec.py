"""Run specs and jobs: what a table's runs are, and the commands that train them."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.training.cli import flag
from core.training.records import read_record

Value = str | int | float | bool  # of a setting


@dataclass(frozen=True)
class RunSpec:
    """One run of a table: a modality, and the settings that its trainer is given."""

    modality: str
    dataset: str
    objective: str
    beta: float
    tau_plus: float
    seed: int
    epochs: int
    options: tuple[tuple[str, Value], ...] = ()  # of the objective
    extra: tuple[tuple[str, Value], ...] = ()  # further settings
    root: str = "runs"
    seeds_together: bool | None = None  # whether one process can train it with other seeds
    seconds: float | None = field(default=None, compare=False)  # that it takes by its recipe
    # What its modality says of it; see ``locate``.
    folder: Path = field(default=Path(), compare=False)
    finished: bool = field(default=False, compare=False)  # whether the folder has its record
    conflict: str = field(default="", compare=False)  # how it differs from a run that the folder holds

    def settings(self) -> dict[str, Value]:
        """The settings that are not the trainer's defaults, by name."""
        names = ("dataset", "objective", "beta", "tau_plus", "seed", "epochs")
        return {name: getattr(self, name) for name in names} | dict(self.extra) | dict(self.options)

    def has_record(self) -> bool:
        """Whether its folder has a record, of this or of other settings."""
        try:
            read_record(self.folder / "result.json")
        except (OSError, ValueError):
            return False
        return True

    def __str__(self) -> str:
        return str(Job((self,)))


@dataclass(frozen=True)
class Job:
    """The run specs that one process trains: one, or several that differ only in their seeds."""

    specs: tuple[RunSpec, ...]

    def command(self) -> list[str]:
        first = self.specs[0]
        settings, folder = first.settings(), first.folder
        if len(self.specs) > 1:
            settings.pop("seed")
            settings["seeds"] = ",".join(str(spec.seed) for spec in self.specs)
            folder = folder.with_name("seed-{seed}")  # the trainer fills in each seed
        flags = [word for name, value in settings.items() for word in _flag_words(name, value)]
        command = [sys.executable, "-m", f"{first.modality}.train", *flags]
        return [*command, "--output-dir", str(folder), "--resume"]

    @property
    def log(self) -> Path:
        """The file with the process's output."""
        first = self.specs[0]
        return Path(first.root) / "logs" / f"{'-'.join(first.folder.relative_to(first.root).parts)}.log"

    def __str__(self) -> str:
        return shlex.join(self.command()[2:])


def _flag_words(name: str, value: Value) -> list[str]:
    """A setting on a command line; a boolean is ``--name`` or ``--no-name``."""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), str(value)]


def group_jobs(specs: Sequence[RunSpec], together: int) -> list[Job]:
    """Group run specs into jobs, up to ``together`` seeds in each where the trainer can do that."""
    groups: dict[RunSpec, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(replace(spec, seed=0) if spec.seeds_together else spec, []).append(spec)
    return [
        Job(tuple(group[start : start + together]))
        for group in groups.values()
        for start in range(0, len(group), together)
    ]
