"""Result tables of records: objectives down, datasets across, mean ± standard deviation over seeds.

``table_formats`` writes them for terminals, in Markdown, CSV and LaTeX.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import pandas as pd

from shared_eval.planned import NO_COMPARISONS, NO_FIGURES, Baseline, Primary, Published
from shared_eval.statistics import LEVEL, Difference, holm, paired_difference

UNTRAINED = "untrained encoder"
# The row of beta 0, tau_plus 0 where modalities, each with its own name for it, share a table.
PLAIN = "plain (beta 0, tau_plus 0)"
SCORES = ("_accuracy", "_f1", "_spearman", "_pearson")  # endings of metrics, of which more is better
# Metrics of runs without labels, shown as they are: of none of them more, or less, is always better.
DESCRIPTIONS = (
    "effective_rank",
    "alignment",
    "uniformity",
    "positive_similarity",
    "hardest_negative_similarity",
)
ORACLE = "best beta (oracle: chosen on the figures themselves)"

Content = Literal["text", "difference_text"]  # what a table's cells show


@dataclass(frozen=True)
class Comparison:
    """An objective's difference to one of its baselines, at the same seeds."""

    baseline: Baseline
    difference: Difference
    is_primary: bool = False
    corrected_p: float | None = (
        None  # over the table's primary comparisons; None for others, and for one seed
    )

    @property
    def is_gain(self) -> bool:
        """Whether this is a gain that is significant after correction; an exploratory one never is."""
        return self.corrected_p is not None and self.corrected_p < LEVEL and self.difference.mean > 0

    @property
    def text(self) -> str:
        """As ``+1.2 [0.3, 2.1] p 0.031``: points, 95 % interval, corrected p; for one seed only points.

        The uncorrected p of an exploratory comparison is in parentheses.
        """
        d = self.difference
        if d.pairs == 1:
            return f"{100 * d.mean:+.1f}"
        p = f"(p {d.p:.3f})" if self.corrected_p is None else f"p {self.corrected_p:.3f}"
        return f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}] {p}"


@dataclass(frozen=True)
class TableCell:
    """Scores of one objective on one dataset, one for each seed."""

    scores: dict[int, float]  # by seed, fractions
    records: tuple[str, ...] = ()  # the files they come from
    untrained: dict[int, float] = field(default_factory=dict)  # of the same runs, before training
    comparisons: tuple[Comparison, ...] = ()  # with each baseline that the table has
    is_score: bool = True  # a fraction, shown in percent; if not, it describes the embedding

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; nan for one seed."""
        return float(pd.Series(self.scores).std())

    @property
    def comparison(self) -> Comparison | None:
        """The one with the objective at beta 0; without one, that with the plain objective."""
        trained = [comparison for comparison in self.comparisons if comparison.baseline != "untrained"]
        return trained[0] if trained else None

    @property
    def is_better(self) -> bool:
        """Whether the cell has a gain over the baseline that is significant after correction."""
        return self.comparison is not None and self.comparison.is_gain

    @property
    def text(self) -> str:
        """As ``84.2 ± 1.3 (10)``: percent, and the number of seeds; a description as it is, ``0.31 (1)``."""
        scale, digits = (100, 1) if self.is_score else (1, 2)
        spread = f" ± {scale * self.deviation:.{digits}f}" if len(self.scores) > 1 else ""
        return f"{scale * self.mean:.{digits}f}{spread} ({len(self.scores)})"

    @property
    def difference_text(self) -> str:
        """The text of its comparison; empty if it has none."""
        return "" if self.comparison is None else self.comparison.text


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

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

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


def scores(records: pd.DataFrame) -> pd.DataFrame:
    """The rows whose metric scores a representation, or describes it in a record without any score."""
    is_score = records["metric"].str.endswith(SCORES)
    has_scores = is_score.groupby(records["path"]).transform("any")
    describes = records["metric"].isin(DESCRIPTIONS) & ~has_scores
    return records[(is_score & ~records["metric"].str.contains("top5")) | describes]


def summarise(
    records: pd.DataFrame,
    published: Published = NO_FIGURES,
    merge: bool = False,
    primary: Collection[Primary] = NO_COMPARISONS,
) -> ResultTable:
    """Make a table: the untrained encoder first, then objectives by family, tau_plus and beta.

    Columns are ``dataset metric``. Records of different code or settings, or of an unclean work tree, get
    rows of their own (see ``label_versions``) unless ``merge``. Several records of one seed count as their
    mean; equal scores of an untrained encoder, which depend on the seed alone, count as one. Comparisons are
    exploratory unless they are ``primary``, for whose number p is corrected.
    """
    records = records.assign(column=records["dataset"] + " " + records["metric"])
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        plain = records["family"].map(lambda family: _join(PLAIN, family))
        records["label"] = records["label"].mask(is_plain, plain)
    records = label_versions(records, merge)
    modalities = dict(zip(records["column"], records["modality"], strict=True))
    columns = list(modalities)
    records = records.sort_values(["family", "tau_plus", "beta", "epochs", "version"], kind="stable")
    rows = _with_comparisons([*_untrained_rows(records), *_objective_rows(records)], primary)
    rows += [*_oracle_rows(rows, columns), *_published_rows(columns, published)]
    return ResultTable(columns, rows, modalities)


def label_versions(records: pd.DataFrame, merge: bool = False) -> pd.DataFrame:
    """Add a ``version`` to records and to their labels: records of different versions are not averaged.

    A version names the revision if a dataset has records of several, or if the work tree was unclean, the
    settings' fingerprint and the epochs if a dataset has several; none of them if all are to ``merge``. It
    always names the rules of the evaluation if a dataset has records of several: such scores do not compare.
    """
    dataset = [records["modality"], records["dataset"]]

    def differs(name: str) -> pd.Series:
        return records[name].fillna("").groupby(dataset).transform("nunique") > 1

    revision = records["revision"].fillna("")
    parts = [records["evaluation"].where(differs("evaluation"), "")]
    if not merge:
        parts = [
            revision.where(differs("revision") | revision.str.endswith("-dirty"), ""),
            records["settings"].where(differs("settings"), ""),
            ("epochs " + records["epochs"].astype(str)).where(differs("epochs"), ""),
            *parts,
        ]
    version = ["/".join(filter(None, names)) for names in zip(*parts, strict=True)]
    labels = [_at_version(*pair) for pair in zip(records["label"], version, strict=True)]
    return records.assign(version=version, label=labels)


def _at_version(label: str, version: str) -> str:
    return f"{label} @ {version}" if version else label


def _join(*parts: str) -> str:
    """The parts that are not empty, joined by commas."""
    return ", ".join(filter(None, parts))


def _untrained_rows(records: pd.DataFrame) -> list[Row]:
    """A row for each encoder and version."""
    untrained = records.dropna(subset="untrained")
    untrained = untrained.drop_duplicates(["column", "seed", "encoder", "version", "untrained"])
    rows = []
    for _, group in untrained.groupby(["encoder", "version"]):
        encoder, version = group[["encoder", "version"]].iloc[0]
        label = _at_version(_join(UNTRAINED, encoder), version)
        rows.append(Row(label, _cells(group, "untrained"), "untrained"))
    return rows


def _objective_rows(records: pd.DataFrame) -> list[Row]:
    """A row for each point and label, in the records' order."""
    rows = []
    for _, group in records.groupby([*Point._fields, "label"], sort=False):
        first = group.iloc[0]
        point = Point(first["family"], first["tau_plus"], first["beta"], first["version"])
        cells = _cells(group, "value")
        for column, before in _cells(group.dropna(subset="untrained"), "untrained").items():
            cells[column] = replace(cells[column], untrained=before.scores)
        rows.append(Row(first["label"], cells, point=point, plain_family=first["plain_family"]))
    return rows


def _cells(records: pd.DataFrame, name: str) -> dict[str, TableCell]:
    """The cells of a row by column, with the values in the records' column ``name``."""
    cells = {}
    for column, group in records.groupby("column", sort=False):
        seeds = group.groupby("seed")[name].mean()
        by_seed = dict(zip(seeds.index.tolist(), seeds.tolist(), strict=True))
        is_score = group["metric"].iloc[0] not in DESCRIPTIONS
        cells[str(column)] = TableCell(by_seed, tuple(group["path"].unique()), is_score=is_score)
    return cells


def _with_comparisons(rows: list[Row], primary: Collection[Primary]) -> list[Row]:
    """Add every objective's comparisons, p corrected over the primary ones that have several seeds."""
    differences = _differences(rows)
    chosen = {key for key in differences if _as_primary(rows[key[0]], *key[1:]) in primary}
    tested = [key for key in differences if key in chosen and differences[key].pairs > 1]
    corrected = dict(zip(tested, map(float, holm([differences[key].p for key in tested])), strict=True))
    comparisons: dict[tuple[int, str], list[Comparison]] = {}
    for key, difference in differences.items():
        i, column, baseline = key
        comparison = Comparison(baseline, difference, key in chosen, corrected.get(key))
        comparisons.setdefault((i, column), []).append(comparison)
    return [
        replace(
            row,
            cells={
                column: replace(cell, comparisons=tuple(comparisons.get((i, column), ())))
                for column, cell in row.cells.items()
            },
        )
        for i, row in enumerate(rows)
    ]


def _as_primary(row: Row, column: str, baseline: Baseline) -> Primary | None:
    """A comparison as recipes name it."""
    if row.point is None:
        return None
    return Primary(column, row.point.family, row.point.tau_plus, row.point.beta, baseline)


def _differences(rows: list[Row]) -> dict[tuple[int, str, Baseline], Difference]:
    """By row, column and baseline: an objective's difference to the baseline, at the seeds that both have."""
    differences = {}
    for i, row in enumerate(rows):
        baselines = baselines_of(row, rows)
        for column, cell in row.cells.items():
            if row.point is None or not cell.is_score:
                continue
            trained = ((name, other) for name, other in baselines.items() if column in other.cells)
            others = {name: other.cells[column].scores for name, other in trained}
            for baseline, theirs in (*others.items(), ("untrained", cell.untrained)):
                if seeds := sorted(cell.scores.keys() & theirs.keys()):
                    pairs = [cell.scores[seed] for seed in seeds], [theirs[seed] for seed in seeds]
                    differences[i, column, baseline] = paired_difference(*pairs)
    return differences


def baselines_of(row: Row, rows: Iterable[Row]) -> dict[Baseline, Row]:
    """The trained objectives that ``row`` is compared with, of the same version.

    ``beta 0`` has the same family and tau_plus; ``plain`` has neither hardness nor tau_plus. Where these are
    one objective, it is the plain one.
    """
    if row.point is None or not (row.point.beta or row.point.tau_plus):
        return {}
    by_point = {other.point: other for other in rows if other.point is not None}
    counterpart, plain = row.point._replace(beta=0), Point(row.plain_family, 0, 0, row.point.version)
    points: dict[Baseline, Point] = {} if counterpart in (row.point, plain) else {"beta 0": counterpart}
    points["plain"] = plain
    return {baseline: by_point[point] for baseline, point in points.items() if point in by_point}


def _oracle_rows(rows: list[Row], columns: list[str]) -> list[Row]:
    """For each family, tau_plus and version with several betas, the best of them on each dataset."""
    groups: dict[Point, list[Row]] = {}
    for row in rows:
        if row.point is not None and row.point.beta > 0:
            groups.setdefault(row.point._replace(beta=0), []).append(row)
    oracles = []
    for point, members in groups.items():
        if len(members) > 1:
            cells = {}
            for column in columns:
                cells_of_column = [row.cells[column] for row in members if column in row.cells]
                if candidates := [cell for cell in cells_of_column if cell.is_score]:
                    best = max(candidates, key=lambda cell: cell.mean)
                    cells[column] = TableCell(best.scores, best.records)
            label = _at_version(_join(ORACLE, f"tau_plus {point.tau_plus:g}", point.family), point.version)
            if cells:
                oracles.append(Row(label, cells, "oracle"))
    return oracles


def _published_rows(columns: list[str], published: Published) -> list[Row]:
    """A row for each label of published figures that belong in one of the columns."""
    rows: dict[str, dict[str, TableCell]] = {}
    for (label, column), value in published.items():
        if column in columns:
            rows.setdefault(label, {})[column] = TableCell({0: value})
    return [Row(label, cells, "published") for label, cells in rows.items()]
