"""Plan a table: which runs it needs, and how long those that are missing may take."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from core.io.errors import InputError
from shared_eval.planned import LEVEL, smallest_p
from shared_eval.records import find_records, read_records
from shared_eval.reproduce.recipes import Recipe
from shared_eval.reproduce.spec import Job, RunSpec

UNITS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))


def plan_specs(
    recipes: Sequence[Recipe],
    datasets: Sequence[str] = (),
    betas: Sequence[float] = (),
    seeds: int | None = None,
) -> list[RunSpec]:
    """The runs of some recipes, each once; arguments as those of ``Recipe.specs``.

    A single recipe takes any datasets; of several, each takes those of its own. Raises InputError if none has
    a dataset.
    """
    known = dict.fromkeys(name for recipe in recipes for name in recipe.datasets)
    if len(recipes) > 1:
        _check_names("datasets", datasets, known)
    specs: dict[RunSpec, None] = {}
    for recipe in recipes:
        own = [name for name in datasets if len(recipes) == 1 or name in recipe.datasets]
        if own or not datasets:
            specs |= dict.fromkeys(recipe.specs(own, betas, seeds))
    return list(specs)


def select_objectives(specs: Sequence[RunSpec], objectives: Sequence[str]) -> list[RunSpec]:
    """The located runs of the objectives named, all if none is; raises InputError if one has no run."""
    _check_names("objectives", objectives, dict.fromkeys(spec.objective for spec in specs))
    return [spec for spec in specs if not objectives or spec.objective in objectives]


def _check_names(argument: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raise InputError if the argument has a name that the table does not have."""
    for name in names:
        if name not in known:
            raise InputError(f"`{argument}` has {name}; the table has {', '.join(known)}")


def describe_power(recipes: Iterable[Recipe], seeds: int | None = None) -> list[str]:
    """A line for each recipe whose seeds are too few for any primary comparison to be significant."""
    lines = []
    for recipe in recipes:
        planned, count = len(recipe.primary_comparisons()), seeds or recipe.seeds
        smallest = min(1.0, planned * smallest_p(count))
        if planned and smallest >= LEVEL:
            lines.append(
                f"{recipe.title}: {count} seeds are too few for its {planned} primary comparisons: after "
                f"correction no p can be below {smallest:.2g}"
            )
    return lines


def estimate_seconds(specs: Iterable[RunSpec]) -> dict[RunSpec, float | None]:
    """How long each run may take: by earlier records, else by its recipe; None if neither says.

    Earlier records are those of the same dataset below the same root.
    """
    recorded = cache(_recorded_seconds)
    estimates = {spec: recorded(spec.folder.parents[1], spec.epochs) for spec in specs}
    return {spec: spec.seconds if seconds is None else seconds for spec, seconds in estimates.items()}


def _recorded_seconds(folder: Path, epochs: int) -> float | None:
    """How long a run of so many epochs takes by the records in a folder."""
    records = read_records(find_records([folder])).drop_duplicates("path")
    if records.empty:
        return None
    seconds_per_epoch = (records["train_seconds"] / records["epochs"].clip(lower=1)).mean()
    return float(seconds_per_epoch * epochs + 2 * records["eval_seconds"].mean())


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Jobs by estimated time, so that no long one starts last; those without an estimate come first."""
    estimates = estimate_seconds(spec for job in jobs for spec in job.specs)

    def seconds(job: Job) -> float:
        known = [estimates[spec] for spec in job.specs]
        return math.inf if None in known else sum(filter(None, known))

    return sorted(jobs, key=seconds, reverse=True)


def describe_estimate(specs: Sequence[RunSpec], num_processes: int, how: str = "") -> str:
    """The estimated time of runs as text, ``num_processes`` at a time; ``how`` follows the time."""
    estimates = estimate_seconds(specs)
    known = [seconds for seconds in estimates.values() if seconds is not None]
    unknown = len(specs) - len(known)
    time = f"about {_rounded(max(sum(known) / num_processes, *known))}{how}" if known else ""
    rest = f"{unknown} have no earlier record and no measured cost to estimate from" if unknown else ""
    return "; ".join(filter(None, [time, rest])) or "nothing"


def _rounded(seconds: float) -> str:
    """A time in its largest unit, of which it has two or more."""
    unit, size = next(((name, size) for name, size in UNITS if seconds >= 2 * size), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"
