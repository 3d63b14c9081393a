"""Plan a table: which runs it needs, and how long those that are missing may take."""

from collections import Counter
from collections.abc import Sequence

from core.io.errors import InputError
from shared_eval.records import find_records, read_records
from shared_eval.reproduce.recipes import Recipe
from shared_eval.reproduce.spec import RunSpec


def plan_specs(
    recipes: Sequence[Recipe],
    datasets: Sequence[str] = (),
    objectives: Sequence[str] = (),
    betas: Sequence[float] = (),
    seeds: int | None = None,
) -> list[RunSpec]:
    """The runs of some recipes, each once; arguments as those of ``Recipe.specs``.

    A single recipe takes any datasets; of several, each takes those of its own. Raises InputError if no run
    is left.
    """
    specs: dict[RunSpec, None] = {}
    for recipe in recipes:
        own = [name for name in datasets if len(recipes) == 1 or name in recipe.datasets]
        if own or not datasets:
            specs |= dict.fromkeys(recipe.specs(own, objectives, betas, seeds))
    if not specs:
        given = [f"`datasets` {' '.join(datasets)}"] if datasets else []
        given += [f"`objectives` {' '.join(objectives)}"] if objectives else []
        titles = ", ".join(recipe.title for recipe in recipes)
        raise InputError(f"no run of {titles} is left with {' and '.join(given)}")
    return list(specs)


def estimated_seconds(specs: Sequence[RunSpec]) -> tuple[float, int]:
    """How long runs may take one after the other; and for how many of them there is no estimate.

    The estimate is from earlier records of the same dataset below the same root.
    """
    total, unknown = 0.0, 0
    counts = Counter((spec.folder.parents[1], spec.epochs) for spec in specs)
    for (folder, epochs), count in counts.items():
        records = read_records(find_records([folder])).drop_duplicates("path")
        if records.empty:
            unknown += count
        else:
            seconds_per_epoch = (records["train_seconds"] / records["epochs"].clip(lower=1)).mean()
            total += count * (seconds_per_epoch * epochs + 2 * records["eval_seconds"].mean())
    return total, unknown


def describe_estimate(specs: Sequence[RunSpec], num_processes: int) -> str:
    """The estimated time of runs as text, ``num_processes`` at a time."""
    seconds, unknown = estimated_seconds(specs)
    known = f"about {seconds / 60 / num_processes:.0f} min" if unknown < len(specs) else ""
    rest = f"{unknown} have no earlier record to estimate from" if unknown else ""
    return "; ".join(filter(None, [known, rest])) or "nothing"
