"""Recipes: one small file for each table, with its settings, their source and the published figures."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.io.errors import InputError, reason_of
from core.io.files import check_regular
from core.training.settings import MAX_FLOAT, check_hardness
from shared_eval.reproduce.spec import RunSpec, Value

if TYPE_CHECKING:
    from shared_eval.tables import Published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_RUNS = 100_000
FOLDER = Path(__file__).parent / "recipes"
# The tables that have a name, and their recipes.
TABLES = {
    "demo": ("demo-images", "demo-graphs", "demo-sentences"),
    "images": ("stl10", "cifar"),
    "graphs": ("tudatasets",),
    "sentences": ("bookcorpus",),
}
TABLES["all"] = TABLES["images"] + TABLES["graphs"] + TABLES["sentences"]
MODALITIES = ("image", "graph", "sentence")
# Settings that a run has from its recipe's own keys.
OWN_SETTINGS = (
    *("dataset", "objective", "beta", "betas", "tau_plus", "seed", "seeds", "epochs"),
    *("output_dir", "resume"),
)


@dataclass(frozen=True)
class Objectives:
    """One objective at one or several betas."""

    objective: str
    tau_plus: float = 0.0
    betas: tuple[float, ...] = (0.0,)
    options: dict[str, Value] = field(default_factory=dict)  # further settings of the objective


@dataclass(frozen=True)
class Recipe:
    """The runs behind a table."""

    title: str
    modality: str
    source: str  # of settings and figures
    cost: str  # as measured, and where; empty if it was not
    datasets: tuple[str, ...]
    epochs: int
    seeds: int
    objectives: tuple[Objectives, ...]
    published: tuple[dict[str, Any], ...]  # dataset, metric, label, source, and value as a fraction
    settings: dict[str, Value] = field(default_factory=dict)  # further settings of every run
    folder: str = "runs"
    seeds_together: bool | None = None  # by default where the trainer can do that
    seconds: dict[str, float] = field(default_factory=dict)  # a run of each dataset, evaluated, as measured

    def specs(
        self,
        datasets: Sequence[str] = (),
        objectives: Sequence[str] = (),
        betas: Sequence[float] = (),
        seeds: int | None = None,
    ) -> list[RunSpec]:
        """The recipe's runs; ``objectives`` selects some, the other arguments replace what the recipe has.

        Raises InputError if these are more than MAX_RUNS.
        """
        datasets, seeds = datasets or self.datasets, seeds or self.seeds
        points = [
            (entry, beta)
            for entry in self.objectives
            for beta in (betas if betas and max(entry.betas) > 0 else entry.betas)
        ]
        runs = len(datasets) * seeds * len(points)
        if runs > MAX_RUNS:
            raise InputError(f"{self.title} would have {runs:,} runs; a table has at most {MAX_RUNS:,}")
        specs = [
            RunSpec(
                modality=self.modality,
                dataset=dataset,
                objective="debiased" if entry.objective == "hard" and beta == 0 else entry.objective,
                beta=beta,
                tau_plus=entry.tau_plus,
                seed=seed,
                epochs=self.epochs,
                options=tuple(entry.options.items()),
                extra=tuple(self.settings.items()),
                root=self.folder,
                seeds_together=self.seeds_together,
                seconds=self.seconds.get(dataset),
            )
            for dataset in datasets
            for seed in range(seeds)
            for entry, beta in points
        ]
        return [spec for spec in specs if not objectives or spec.objective in objectives]

    def published_figures(self) -> "Published":
        """By label, which begins with the figure's source, and column."""
        return {
            (f"{entry['source']}: {entry['label']}", f"{entry['dataset']} {entry['metric']}"): entry["value"]
            for entry in self.published
        }


def load_recipes(table: str) -> list[Recipe]:
    """The recipes of a table's name, or of one file; raises InputError if there is neither."""
    if table in TABLES:
        return [read_recipe(FOLDER / f"{name}.toml") for name in TABLES[table]]
    for path in (Path(table), FOLDER / f"{table}.toml"):
        if os.path.isfile(path):
            return [read_recipe(path)]
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    raise InputError(f"{table} is not a table ({', '.join(TABLES)}), recipe ({', '.join(names)}) or file")


def all_recipes() -> list[Recipe]:
    """The recipes that come with the project."""
    return [read_recipe(path) for path in sorted(FOLDER.glob("*.toml"))]


def published_figures(recipes: Iterable[Recipe]) -> "Published":
    """The published figures of some recipes."""
    return {key: value for recipe in recipes for key, value in recipe.published_figures().items()}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file; raises InputError if anything is missing, unknown or has the wrong type."""
    try:
        check_regular(path)
        content = tomllib.loads(path.read_text("utf-8"))
        content["objectives"] = tuple(map(_read_objectives, content["objectives"]))
        content["datasets"], content["published"] = tuple(content["datasets"]), tuple(content["published"])
        recipe = Recipe(**content)
        check_recipe(recipe)
        return recipe
    except (InputError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a recipe: {reason_of(error).replace('`', '')}") from error


def _read_objectives(entry: dict[str, Any]) -> Objectives:
    """An entry of ``objectives``: keys other than objective, tau_plus and betas are options."""
    options = dict(entry)
    return Objectives(
        objective=options.pop("objective"),
        tau_plus=options.pop("tau_plus", 0.0),
        betas=tuple(map(float, options.pop("betas", [0.0]))),
        options=options,
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError if a value has the wrong type, or no run can come of it."""
    for name in ("title", "modality", "source", "cost", "folder"):
        _check_type(name, getattr(recipe, name), str)
    if recipe.modality not in MODALITIES:
        raise ValueError(f"modality is {recipe.modality!r}; it must be one of {', '.join(MODALITIES)}")
    for name in ("epochs", "seeds"):
        _check_type(name, getattr(recipe, name), int)
    _check_type("seeds_together", recipe.seeds_together, bool, type(None))
    for entry in recipe.objectives:
        _check_type("objective", entry.objective, str)
        _check_type("tau_plus", entry.tau_plus, int, float)
        _check_settings("objectives", entry.options)
        for beta in entry.betas:
            check_hardness(beta, entry.tau_plus)
    for dataset in recipe.datasets:
        _check_type("datasets", dataset, str)
    for figure in recipe.published:
        for name in ("dataset", "metric", "label", "source"):
            _check_type(f"published {name}", figure[name], str)
        _check_type("published value", figure["value"], int, float)
    _check_settings("settings", recipe.settings)
    for dataset, seconds in recipe.seconds.items():
        _check_type(f"seconds {dataset}", seconds, int, float)
        if not 0 < seconds <= MAX_FLOAT:
            raise ValueError(f"seconds {dataset} is {seconds}; it must be above 0, and finite")
    runs = len(recipe.datasets) * recipe.seeds * sum(len(entry.betas) for entry in recipe.objectives)
    if not 1 <= runs <= MAX_RUNS or recipe.epochs < 1:
        raise ValueError(f"it has {recipe.epochs} epochs and {runs} runs; a table has 1 to {MAX_RUNS:,} runs")


def _check_settings(where: str, settings: dict[str, Value]) -> None:
    for name, value in settings.items():
        if name in OWN_SETTINGS:
            raise ValueError(f"{where} has {name}, which the recipe's own keys and the seeds determine")
        _check_type(f"{where} {name}", value, str, int, float, bool)


def _check_type(name: str, value: Any, *types: type) -> None:
    if type(value) not in types:
        expected = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{name} is {str(value)[:100]!r}; it must be {expected}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name} is {value[:100]!r}; a command cannot be given a zero byte")
