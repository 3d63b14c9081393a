"""Recipes: one small file for each table, with its settings, their source and the published figures."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from core.io.errors import InputError, did_you_mean, reason_of
from core.io.files import check_regular
from core.training.settings import MAX_FLOAT, check_hardness, check_type
from shared_eval.planned import Baseline, Plan, Planned, Primary, Published, PublishedScore, planned_together
from shared_eval.reproduce.spec import RunSpec, Value
from shared_eval.startup import modalities

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
    "graphs": ("tudatasets", "tudatasets-large"),
    "sentences": ("bookcorpus",),
}
TABLES["all"] = TABLES["images"] + TABLES["graphs"] + TABLES["sentences"]
# Settings that a run has from its recipe's own keys.
OWN_SETTINGS = (
    *("dataset", "objective", "beta", "betas", "tau_plus", "seed", "seeds", "epochs"),
    *("output_dir", "resume"),
)

Table = TypeVar("Table")


@dataclass(frozen=True)
class Objectives:
    """One objective at one or several betas and tau_plus."""

    objective: str
    tau_plus: tuple[float, ...] = (0.0,)
    betas: tuple[float, ...] = (0.0,)
    options: dict[str, Value] = field(default_factory=dict)  # further settings of the objective


@dataclass(frozen=True)
class Figure:
    """A published figure; ``label`` names its row and begins with its objective, as in "hard, on GraphCL"."""

    source: str
    dataset: str
    metric: str
    label: str
    value: float  # a fraction, as is the deviation
    deviation: float | None = None

    @property
    def row(self) -> str:
        """The label of its row."""
        return f"{self.source}: {self.label}"


@dataclass(frozen=True)
class PrimaryComparisons:
    """What a table is made to answer: one objective against its baselines, by one metric a dataset."""

    metric: str
    beta: float
    tau_plus: float
    against: tuple[Baseline, ...]
    family: str = ""


@dataclass(frozen=True)
class Recipe:
    """The runs behind a table."""

    title: str
    modality: str
    source: str  # of settings and figures
    cost: str  # as measured, and where, or why it was not
    datasets: tuple[str, ...]
    epochs: tuple[int, ...]
    seeds: int
    objectives: tuple[Objectives, ...]
    published: tuple[Figure, ...] = ()
    primary: PrimaryComparisons | None = None
    settings: dict[str, Value] = field(default_factory=dict)  # further settings of every run
    folder: str = "runs"  # {epochs} becomes a run's number of epochs
    seeds_together: bool | None = None  # by default where the trainer can do that
    # Of a run of each dataset with the most of the epochs, evaluated, as measured. A shorter one is estimated
    # to take as many: its evaluation is as long.
    seconds: dict[str, float] = field(default_factory=dict)

    def points(self, betas: Sequence[float] = ()) -> list[tuple[Objectives, float, float]]:
        """Every objective with a tau_plus and a beta; ``betas`` replace those of the hard ones."""
        return [
            (entry, tau_plus, beta)
            for entry in self.objectives
            for tau_plus in entry.tau_plus
            for beta in (betas if betas and max(entry.betas) > 0 else entry.betas)
        ]

    def specs(
        self,
        datasets: Sequence[str] = (),
        betas: Sequence[float] = (),
        seeds: int | None = None,
    ) -> list[RunSpec]:
        """The recipe's runs; arguments replace what the recipe has.

        Raises InputError if these are more than MAX_RUNS.
        """
        datasets, seeds = datasets or self.datasets, seeds or self.seeds
        points = self.points(betas)
        runs = len(datasets) * len(self.epochs) * seeds * len(points)
        if runs > MAX_RUNS:
            raise InputError(f"{self.title} would have {runs:,} runs; a table has at most {MAX_RUNS:,}")
        return [
            RunSpec(
                modality=self.modality,
                dataset=dataset,
                objective=entry.objective,
                beta=beta,
                tau_plus=tau_plus,
                seed=seed,
                epochs=epochs,
                options=tuple(entry.options.items()),
                extra=tuple(self.settings.items()),
                root=self.folder.replace("{epochs}", str(epochs)),
                seeds_together=self.seeds_together,
                seconds=self.seconds.get(dataset),
            )
            for dataset, epochs, seed in product(datasets, self.epochs, range(seeds))
            for entry, tau_plus, beta in points
        ]

    def published_figures(self) -> Published:
        """By label, which begins with the figure's source, and column."""
        return {
            (figure.row, f"{figure.dataset} {figure.metric}"): PublishedScore(figure.value, figure.deviation)
            for figure in self.published
        }

    def primary_comparisons(self) -> Planned:
        """The comparisons that are corrected together."""
        if self.primary is None:
            return {}
        family, tau_plus, beta = self.primary.family, self.primary.tau_plus, self.primary.beta
        named = product(self.datasets, self.epochs, self.primary.against)
        return planned_together(
            self.title,
            (
                Primary(f"{dataset} {self.primary.metric}", epochs, family, tau_plus, beta, baseline)
                for dataset, epochs, baseline in named
            ),
        )


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


def primary_comparisons(recipes: Iterable[Recipe]) -> Planned:
    """The primary comparisons of some recipes; one of several recipes belongs to the largest plan."""
    plans: dict[Primary, Plan] = {}
    for recipe in recipes:
        for comparison, plan in recipe.primary_comparisons().items():
            plans[comparison] = max(plans.get(comparison, plan), plan, key=lambda plan: plan.size)
    return plans


def primary_comparisons_of(study: str, recipes: Iterable[Recipe]) -> Planned:
    """Those of the recipe that a study is named after, which may have none; else those of all ``recipes``."""
    own = FOLDER / f"{study}.toml"
    return read_recipe(own).primary_comparisons() if own.is_file() else primary_comparisons(recipes)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file; raises InputError if anything is missing, unknown or has the wrong type."""
    try:
        check_regular(path)
        content = tomllib.loads(path.read_text("utf-8"))
        recipe = _read_recipe(content)
        check_recipe(recipe)
        return recipe
    except (InputError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a recipe: {reason_of(error).replace('`', '')}") from error


def _read_recipe(content: dict[str, Any]) -> Recipe:
    readers: dict[str, Callable[[Any], Any]] = {
        "objectives": lambda entries: tuple(map(_read_objectives, entries)),
        "published": lambda entries: tuple(_read_table(Figure, "published", entry) for entry in entries),
        "primary": lambda entry: _read_table(PrimaryComparisons, "primary", entry),
        "epochs": _listed,
        "settings": lambda entry: {name: _hashable(value) for name, value in entry.items()},
    }
    _check_places(content)
    read = {name: read(content[name]) for name, read in readers.items() if name in content}
    return _read_table(Recipe, "the recipe", content | read)


def _check_places(content: dict[str, Any]) -> None:
    """Raise InputError if a key of the recipe is in one of its tables: TOML reads a late line as theirs."""
    own = get_type_hints(Recipe).keys() - set(OWN_SETTINGS) - {"source"}  # a published figure has a source
    for where, value in content.items():
        for table in _listed(value):
            for name in table if isinstance(table, dict) else ():
                if name in own:
                    raise InputError(
                        f"{where} has {name}, a key of the recipe; write it above the first line that begins "
                        "with ["
                    )


def _read_objectives(entry: dict[str, Any]) -> Objectives:
    """An entry of ``objectives``: keys other than objective, tau_plus and betas are options."""
    own = {name: entry[name] for name in ("objective", "tau_plus", "betas") if name in entry}
    options = {name: value for name, value in entry.items() if name not in own}
    own["tau_plus"] = _listed(own.get("tau_plus", 0.0))
    read = _read_table(Objectives, "objectives", own | {"options": options})
    for name in ("betas", "tau_plus"):
        if not getattr(read, name):
            raise InputError(f"{name} of an entry of objectives is empty; leave it out, or add a number")
    return replace(read, betas=tuple(map(float, read.betas)))


def _listed(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it."""
    return value if isinstance(value, list) else [value]


def _hashable(value: Any) -> Any:
    """A list as a tuple, anything else as it is: run specs are keys."""
    return tuple(value) if isinstance(value, list) else value


def _read_table(kind: type[Table], where: str, entry: dict[str, Any]) -> Table:
    """A dataclass from a TOML table; raises InputError if a key is unknown, missing or of the wrong type."""
    hints = get_type_hints(kind)
    for name in entry:
        if name not in hints:
            raise InputError(f"{where} has {name}, which is unknown{did_you_mean(name, hints)}")
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in entry and item.default is item.default_factory is MISSING:
            raise InputError(f"{where} has no {item.name}")
    return kind(**{name: check_type(name, value, hints[name]) for name, value in entry.items()})


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError if a value is out of range, or no run can come of it."""
    if recipe.modality not in modalities():
        raise ValueError(f"modality is {recipe.modality!r}; it must be one of {', '.join(modalities())}")
    points = recipe.points()
    for entry, tau_plus, beta in points:
        check_hardness(beta, tau_plus)
        _check_settings("objectives", entry.options)
    _check_settings("settings", recipe.settings)
    for text in (recipe.folder, *recipe.datasets):
        _check_word("folder or datasets", text)
    for dataset, seconds in recipe.seconds.items():
        if not 0 < seconds <= MAX_FLOAT:
            raise ValueError(f"seconds {dataset} is {seconds}; it must be above 0, and finite")
    for figure in recipe.published:
        _check_figure(figure, recipe.datasets)
    places = Counter((figure.row, figure.dataset, figure.metric) for figure in recipe.published)
    for (row, *place), times in places.items():
        if times > 1:
            raise ValueError(f"published has {times} scores of {row} in {' '.join(place)}; leave one")
    primary = recipe.primary
    if primary and (primary.tau_plus, primary.beta) not in {point[1:] for point in points}:
        named = f"beta {primary.beta:g} and tau_plus {primary.tau_plus:g}"
        raise ValueError(f"primary has {named}, which no entry of objectives has")
    if primary and primary.tau_plus == 0 and "beta 0" in primary.against:
        raise ValueError("primary is against beta 0, which is plain where tau_plus is 0; leave it out")
    numbers = {"plain": (0.0, 0.0), "beta 0": (primary.tau_plus, 0.0)} if primary else {}
    for baseline, number in numbers.items():
        if primary and baseline in primary.against and number not in {point[1:] for point in points}:
            raise ValueError(f"primary is against {baseline}, which no entry of objectives is")
    runs = len(recipe.datasets) * recipe.seeds * len(recipe.epochs) * len(points)
    if not 1 <= runs <= MAX_RUNS or min(recipe.epochs) < 1:
        epochs = ", ".join(map(str, recipe.epochs))
        raise ValueError(f"it has {epochs} epochs and {runs} runs; a table has 1 to {MAX_RUNS:,} runs")


def _check_figure(figure: Figure, datasets: Sequence[str]) -> None:
    """Raise ValueError unless a published figure is a fraction and of one of the recipe's datasets."""
    if not 0 < figure.value < 1:
        raise ValueError(f"published value is {figure.value}; it must be a fraction, as 0.874 for 87.4 %")
    if figure.deviation is not None and not 0 <= figure.deviation < 1:
        raise ValueError(
            f"published deviation is {figure.deviation}; it must be a fraction, as 0.011 for 1.1"
        )
    if figure.dataset not in datasets:
        hint = did_you_mean(figure.dataset, datasets)
        raise ValueError(f"published dataset is {figure.dataset}, which the recipe does not have{hint}")


def _check_settings(where: str, settings: dict[str, Value]) -> None:
    for name, value in settings.items():
        if name in OWN_SETTINGS:
            raise ValueError(f"{where} has {name}, which the recipe's own keys and the seeds determine")
        for word in value if isinstance(value, tuple) else (value,):
            _check_word(f"{where} {name}", word)


def _check_word(name: str, value: Value) -> None:
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name} is {value[:100]!r}; a command cannot be given a zero byte")
