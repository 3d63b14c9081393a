"""A table of results: rows of objectives, a cell for each dataset, and comparisons between them."""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from shared_eval.planned import LEVEL, Baseline, smallest_p
from shared_eval.statistics import Difference

Content = Literal["text", "difference_text"]  # what a table's cells show


def points(mean: float, low: float, high: float) -> str:
    """A difference of fractions in points, with its interval: ``+1.2 [0.3, 2.1]``; of one pair ``+1.2``."""
    return f"{100 * mean:+.1f}" if np.isnan(low) else f"{100 * mean:+.1f} {in_brackets(low, high)}"


def in_brackets(low: float, high: float, digits: int = 1) -> str:
    """An interval of fractions in points: ``[0.3, 2.1]``; a bound of -0.0 is below 0."""
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def at_version(label: str, version: str) -> str:
    """A label with the version of its records, if it has one."""
    return f"{label} @ {version}" if version else label


@dataclass(frozen=True)
class Comparison:
    """An objective's difference to one of its baselines, at the same seeds."""

    baseline: Baseline
    difference: Difference
    planned_with: int = 0  # comparisons that are corrected together, itself included; 0 if exploratory
    corrected_p: float | None = None  # None for exploratory comparisons, and for one seed

    @property
    def is_primary(self) -> bool:
        """Whether a recipe names it."""
        return self.planned_with > 0

    @property
    def is_gain(self) -> bool:
        """Whether this is a gain that is significant after correction; an exploratory one never is.

        The interval must agree with the test: an outlier can give the mean another sign than most seeds have.
        """
        return self.corrected_p is not None and self.corrected_p < LEVEL and self.difference.low > 0

    @property
    def detectable(self) -> float:
        """That of its difference; nan where so few seeds in all comparisons could give no significant p."""
        is_possible = smallest_p(self.difference.pairs) * max(1, self.planned_with) < LEVEL
        return self.difference.detectable if is_possible else np.nan

    @property
    def points(self) -> str:
        """As ``+1.2 [0.3, 2.1]``: points and 95 % interval; for one seed only points."""
        return points(self.difference.mean, self.difference.low, self.difference.high)

    @property
    def text(self) -> str:
        """As ``+1.2 [0.3, 2.1] p 0.031``: with the corrected p; for one seed only points.

        The uncorrected p of an exploratory comparison is in parentheses.
        """
        if self.difference.pairs == 1:
            return self.points
        p = f"(p {self.difference.p:.3f})" if self.corrected_p is None else f"p {self.corrected_p:.3f}"
        return f"{self.points} {p}"


@dataclass(frozen=True)
class TableCell:
    """Scores of one objective on one dataset, one for each seed."""

    scores: dict[int, float]  # by seed, fractions
    records: tuple[str, ...] = ()  # the files they come from
    untrained: dict[int, float] = field(default_factory=dict)  # of the same runs, before training
    comparisons: tuple[Comparison, ...] = ()  # with each baseline that the table has
    is_score: bool = True  # a fraction, shown in percent; if not, it describes the embedding
    epochs: int | None = None  # of its runs; None if they differ
    published_deviation: float | None = None  # of a published score, which has no seeds here

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Sample standard deviation, or the published one; nan for one seed."""
        if self.published_deviation is not None:
            return self.published_deviation
        return float(pd.Series(self.scores).std())

    @property
    def comparison(self) -> Comparison | None:
        """The one with the objective at beta 0, else with the plain one; a primary one comes first."""
        trained = [comparison for comparison in self.comparisons if comparison.baseline != "untrained"]
        return max(trained, key=lambda comparison: comparison.is_primary, default=None)

    @property
    def is_better(self) -> bool:
        """Whether the cell has a gain over the baseline that is significant after correction."""
        return self.comparison is not None and self.comparison.is_gain

    @property
    def text(self) -> str:
        """As ``84.2 ± 1.3 (10)``: percent, and the number of seeds; a description as it is, ``0.31 (1)``."""
        scale, digits = (100, 1) if self.is_score else (1, 2)
        deviation = self.deviation
        spread = "" if np.isnan(deviation) else f" ± {scale * deviation:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{spread} ({len(self.scores)})"

    @property
    def difference_text(self) -> str:
        """The text of its comparison, with the number of seeds if not all are common; empty without one."""
        if self.comparison is None:
            return ""
        pairs = self.comparison.difference.pairs
        return self.comparison.text + (f" ({pairs} of {len(self.scores)} seeds)" * (pairs < len(self.scores)))


class Point(NamedTuple):
    """What identifies an objective in a table, and the code and settings of its records."""

    family: str
    tau_plus: float
    beta: float
    version: str


@dataclass(frozen=True)
class Row:
    """An objective, or what is compared with it: the untrained encoder, the oracle, a published figure."""

    label: str
    cells: dict[str, TableCell]
    kind: Literal["untrained", "objective", "oracle", "published"] = "objective"
    point: Point | None = None  # of an objective
    plain_family: str = ""  # family of its plain objective
    names: frozenset[str] = frozenset()  # of its objective, which modalities name differently
    version: str = ""  # of the code and settings of its records, where a dataset has several

    def text(self, column: str, content: Content = "text") -> str:
        """A cell's text, empty where there is no cell; published figures show no number of seeds."""
        if column not in self.cells:
            return ""
        text: str = getattr(self.cells[column], content)
        return text.removesuffix(" (1)") if self.kind == "published" else text


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells; a row has no cell in a column without a record."""

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    modalities: dict[str, str] = field(default_factory=dict)  # of the columns
    names: dict[str, str] = field(default_factory=dict)  # of the columns, as recipes have them

    def row(self, label: str) -> Row:
        """The row of a label; raises LookupError, naming the others, if there is none."""
        rows = {row.label: row for row in self.rows}
        if label not in rows:
            raise LookupError(f"the table has no row {label}, only {'; '.join(rows)}")
        return rows[label]

    def texts(self, content: Content = "text") -> list[tuple[Row, list[str]]]:
        """Each row with the texts of its cells."""
        return [(row, [row.text(column, content) for column in self.columns]) for row in self.rows]

    def comparisons(self) -> list[tuple[Row, str, Comparison]]:
        """Every comparison with its row and column, dataset by dataset."""
        return [
            (row, column, comparison)
            for column in self.columns
            for row in self.rows
            if column in row.cells
            for comparison in row.cells[column].comparisons
        ]

    @property
    def has_tests(self) -> bool:
        """Whether any difference to a trained objective is over several seeds, and so has an interval."""
        return any(c.difference.pairs > 1 for _, _, c in self.comparisons() if c.baseline != "untrained")

    def by_dataset(self) -> dict[str, "ResultTable"]:
        """One table for each dataset; p-values stay corrected over all of them."""
        columns: dict[str, list[str]] = {}
        for column in self.columns:
            columns.setdefault(column.rpartition(" ")[0], []).append(column)
        return {
            dataset: replace(self, columns=own, rows=[r for r in self.rows if r.cells.keys() & set(own)])
            for dataset, own in columns.items()
        }
