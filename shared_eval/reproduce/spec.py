"""Run specs and jobs: what a table's runs are, where their folders are, and the commands that train them."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.io.files import read_json
from core.training.cli import flag
from core.training.config import default_folder, objective_slug
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
    options: tuple[tuple[str, Value], ...] = ()  # of the objective; its folder is named by them
    extra: tuple[tuple[str, Value], ...] = ()  # further settings
    root: str = "runs"
    seeds_together: bool = False  # whether one process can train it with other seeds
    seconds: float | None = field(default=None, compare=False)  # that it takes by its recipe

    @property
    def slug(self) -> str:
        """The objective as a folder's name, as ``hard-beta1-tau0.5-released``."""
        options = [_option_slug(name, value) for name, value in self.options]
        return "-".join([objective_slug(self.objective, self.beta, self.tau_plus), *filter(None, options)])

    @property
    def folder(self) -> Path:
        """The run's folder: ROOT/MODALITY/DATASET/SLUG/seed-N."""
        default = default_folder(self.modality, self.dataset, self.slug, self.seed)
        return Path(self.root) / default.relative_to("runs")

    def settings(self) -> dict[str, Value]:
        """The settings that are not the trainer's defaults, by name."""
        names = ("dataset", "objective", "beta", "tau_plus", "seed", "epochs")
        return {name: getattr(self, name) for name in names} | dict(self.extra) | dict(self.options)

    def is_finished(self) -> bool:
        """Whether its folder has the record of a run with these settings."""
        try:
            read_record(self.folder / "result.json")
            settings = read_json(self.folder / "config.json")
        except (OSError, ValueError):
            return False
        return isinstance(settings, dict) and all(
            settings.get(name) == value for name, value in self.settings().items()
        )

    def __str__(self) -> str:
        return str(Job((self,)))


def _option_slug(name: str, value: Value) -> str:
    """A string by its value, a flag by its name if it is set, a number by both."""
    if isinstance(value, bool):
        return name if value else ""
    text = f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}"
    return re.sub(r"[^\w.+-]+", "-", value if isinstance(value, str) else text).strip("-")


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
    """A setting on a command line; a flag is given if it is set, else left out."""
    if isinstance(value, bool):
        return [flag(name)] if value else []
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
