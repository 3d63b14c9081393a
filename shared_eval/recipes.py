"""Recipes: one small file for each table, with its settings, their source and the published figures."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.io.errors import InputError
from core.io.files import check_regular
from core.losses.contrastive import check_hardness
from shared_eval.cells import Cell
from shared_eval.tables import Published

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODALITIES = ("image", "graph", "sentence")
MAX_RUNS = 100_000
FOLDER = Path(__file__).parent / "recipes"
# The tables that reproduce knows by name.
TABLES = {
    "demo": ("demo-images", "demo-graphs", "demo-sentences"),
    "images": ("stl10", "cifar"),
    "graphs": ("tudatasets",),
    "sentences": ("bookcorpus",),
}
TABLES["all"] = TABLES["images"] + TABLES["graphs"] + TABLES["sentences"]


@dataclass(frozen=True)
class Objectives:
    """One objective at one or several betas."""

    objective: str
    tau_plus: float = 0.0
    betas: tuple[float, ...] = (0.0,)
    variant: str | None = None


@dataclass(frozen=True)
class Recipe:
    """The runs behind a table."""

    title: str
    modality: str
    source: str  # of settings and figures
    cost: str  # as measured, empty where it was not
    datasets: tuple[str, ...]
    epochs: int
    seeds: int
    objectives: tuple[Objectives, ...]
    published: tuple[dict[str, Any], ...]  # dataset, metric, label, value as a fraction
    settings: dict[str, Any] = field(default_factory=dict)  # further flags of every run
    folder: str = "runs"

    def cells(
        self,
        datasets: Sequence[str] = (),
        objectives: Sequence[str] = (),
        betas: Sequence[float] = (),
        seeds: int | None = None,
    ) -> list[Cell]:
        """The recipe's runs; what is given narrows or replaces what the recipe has.

        Raises InputError where that makes more than a table can have.
        """
        datasets, seeds = datasets or self.datasets, seeds or self.seeds
        points = [
            (self._name(of.objective, beta), beta, of.tau_plus, of.variant)
            for of in self.objectives
            for beta in (betas if betas and max(of.betas) > 0 else of.betas)
        ]
        runs = len(datasets) * seeds * len(points)
        if runs > MAX_RUNS:
            raise InputError(f"{self.title} would have {runs:,} runs; {MAX_RUNS:,} at most make a table")
        return [
            Cell(
                modality=self.modality,
                dataset=dataset,
                objective=name,
                beta=beta,
                tau_plus=tau_plus,
                variant=variant,
                seed=seed,
                epochs=self.epochs,
                extra=tuple(self.settings.items()),
                root=self.folder,
            )
            for dataset in datasets
            for seed in range(seeds)
            for name, beta, tau_plus, variant in points
            if not objectives or name in objectives
        ]

    @staticmethod
    def _name(objective: str, beta: float) -> str:
        return "debiased" if objective == "hard" and beta == 0 else objective

    def published_figures(self) -> Published:
        """By label, which begins with whose figure it is, and column."""
        return {
            (f"{entry['source']}: {entry['label']}", f"{entry['dataset']} {entry['metric']}"): entry["value"]
            for entry in self.published
        }


def load_recipes(table: str) -> list[Recipe]:
    """The recipes of a table's name, or of one file; raises InputError where there is no such thing."""
    if table in TABLES:
        return [read_recipe(FOLDER / f"{name}.toml") for name in TABLES[table]]
    for path in (Path(table), FOLDER / f"{table}.toml"):
        if os.path.isfile(path):
            return [read_recipe(path)]
    named = sorted(path.stem for path in FOLDER.glob("*.toml"))
    raise InputError(f"{table} is no table ({', '.join(TABLES)}), recipe ({', '.join(named)}) or file")


def all_recipes() -> list[Recipe]:
    """Those that come with the project."""
    return [read_recipe(path) for path in sorted(FOLDER.glob("*.toml"))]


def published_by(recipes: Iterable[Recipe]) -> Published:
    """The published figures of some recipes."""
    return {key: value for recipe in recipes for key, value in recipe.published_figures().items()}


def read_recipe(path: Path) -> Recipe:
    """A recipe's file; raises InputError, naming it, where anything is missing, unknown or mistyped."""
    try:
        check_regular(path)
        content = tomllib.loads(path.read_text("utf-8"))
        objectives = tuple(
            Objectives(**{**entry, "betas": tuple(map(float, entry.get("betas", (0.0,))))})
            for entry in content.pop("objectives")
        )
        content["datasets"], content["published"] = tuple(content["datasets"]), tuple(content["published"])
        recipe = Recipe(objectives=objectives, **content)
        check_recipe(recipe)
        return recipe
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no recipe: {reason}") from error


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError where something in it is of another kind, or no run can come of it."""
    for name in ("title", "modality", "source", "cost", "folder"):
        _expect(name, getattr(recipe, name), str)
    if recipe.modality not in MODALITIES:
        raise ValueError(f"modality is {recipe.modality!r}; it must be one of {', '.join(MODALITIES)}")
    for name in ("epochs", "seeds"):
        _expect(name, getattr(recipe, name), int)
    for objective in recipe.objectives:
        _expect("objective", objective.objective, str)
        _expect("tau_plus", objective.tau_plus, int, float)
        _expect("variant", objective.variant, str, type(None))
        for beta in objective.betas:
            check_hardness(beta, objective.tau_plus)
    for dataset in recipe.datasets:
        _expect("datasets", dataset, str)
    for entry in recipe.published:
        for name in ("dataset", "metric", "label", "source"):
            _expect(f"published {name}", entry[name], str)
        _expect("published value", entry["value"], int, float)
    for name, value in recipe.settings.items():
        _expect(f"settings {name}", value, str, int, float, bool)
    runs = len(recipe.datasets) * recipe.seeds * sum(len(of.betas) for of in recipe.objectives)
    if not 1 <= runs <= MAX_RUNS or recipe.epochs < 1:
        raise ValueError(
            f"it has {recipe.epochs} epochs and {runs} runs; 1 to {MAX_RUNS:,} runs make a table"
        )


def _expect(name: str, value: Any, *kinds: type) -> None:
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} is {str(value)[:100]!r}; {expected} is needed")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name} is {value[:100]!r}; no command can be given a zero byte")
