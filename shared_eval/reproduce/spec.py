"""Run specs and jobs: what a table's runs are, and the commands that train them."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.training.cli import flag
from core.training.records import read_record

Value = str | int | float | bool | tuple[str, ...]  # of a setting


@dataclass(frozen=True)
class RunSpec:
    """One run of a table: a modality, and the settings that its trainer is given."""

    modality: str
    dataset: str
    objective: str  # after ``locate``, as its beta and tau_plus name it
    beta: float
    tau_plus: float
    seed: int
    epochs: int
    options: tuple[tuple[str, Value], ...] = ()  # of the objective
    extra: tuple[tuple[str, Value], ...] = ()  # further settings
    root: str = "runs"
    seeds_together: bool | None = None  # whether one process can train it with other seeds
    seconds: float | None = field(default=None, compare=False)  # that it takes at most by its recipe
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
    """The run specs that one process trains: one, or each of some betas at each of some seeds."""

    specs: tuple[RunSpec, ...]

    def command(self) -> list[str]:
        first = self.specs[0]
        settings, folder = first.settings(), first.folder
        if len(self.specs) > 1:
            settings.pop("seed")
            settings["seeds"] = _listed(spec.seed for spec in self.specs)
            folder = folder.with_name("seed-{seed}")  # the trainer fills in each seed
        if len({spec.beta for spec in self.specs}) > 1:
            settings.pop("beta")
            settings["objective"] = "hard"  # at beta 0 the trainer names it by its numbers
            settings["betas"] = _listed(spec.beta for spec in self.specs)
            folder = first.folder.parents[1]  # the trainer adds objective and seed
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
    if isinstance(value, tuple):
        return [flag(name), *value]
    return [flag(name), str(value)]


def _listed(values: Iterable[object]) -> str:
    """The different values, as a trainer takes them."""
    return ",".join(dict.fromkeys(map(str, values)))


def group_jobs(specs: Sequence[RunSpec], together: int) -> list[Job]:
    """Group run specs into jobs where the trainer can train several runs at once.

    A job has up to ``together`` seeds, and all betas whose runs have these seeds to run.
    """
    by_objective: dict[RunSpec, list[RunSpec]] = {}
    for spec in specs:
        by_objective.setdefault(replace(spec, seed=0) if spec.seeds_together else spec, []).append(spec)
    by_seeds: dict[tuple[RunSpec, tuple[int, ...]], list[list[RunSpec]]] = {}
    for key, group in by_objective.items():
        seeds = tuple(spec.seed for spec in group)
        any_beta = replace(key, beta=0.0, objective="hard") if key.seeds_together else key
        by_seeds.setdefault((any_beta, seeds), []).append(group)
    return [
        Job(tuple(spec for group in groups for spec in group[start : start + together]))
        for (_, seeds), groups in by_seeds.items()
        for start in range(0, len(seeds), together)
    ]
