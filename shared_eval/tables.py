"""Result tables of records: objectives down, datasets across, mean ± standard deviation over seeds.

``table_formats`` writes them for terminals, in Markdown, CSV and LaTeX.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

import pandas as pd

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

# Published figures, as fractions, by (label, column); the label begins with the source.
Published = Mapping[tuple[str, str], float]
NO_FIGURES: Published = MappingProxyType({})

Content = Literal["text", "difference_text"]  # what a table's cells show


@dataclass(frozen=True)
class TableCell:
    """Scores of one objective on one dataset, one for each seed."""

    scores: dict[int, float]  # by seed, fractions
    records: tuple[str, ...] = ()  # the files they come from
    difference: Difference | None = None  # to the baseline at the same seeds
    corrected_p: float | None = None  # of the difference, over the whole table; None for one seed
    is_score: bool = True  # a fraction, shown in percent; if not, it describes the embedding

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; nan for one seed."""
        return float(pd.Series(self.scores).std())

    @property
    def is_better(self) -> bool:
        """Whether the cell has a gain over the baseline that is significant after correction."""
        if self.difference is None or self.corrected_p is None:
            return False
        return self.corrected_p < LEVEL and self.difference.mean > 0

    @property
    def text(self) -> str:
        """As ``84.2 ± 1.3 (10)``: percent, and the number of seeds; a description as it is, ``0.31 (1)``."""
        scale, digits = (100, 1) if self.is_score else (1, 2)
        spread = f" ± {scale * self.deviation:.{digits}f}" if len(self.scores) > 1 else ""
        return f"{scale * self.mean:.{digits}f}{spread} ({len(self.scores)})"

    @property
    def difference_text(self) -> str:
        """As ``+1.2 [0.3, 2.1] p 0.031``: points, 95 % interval, corrected p; for one seed only points."""
        if self.difference is None:
            return ""
        d = self.difference
        if self.corrected_p is None:
            return f"{100 * d.mean:+.1f}"
        return f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}] p {self.corrected_p:.3f}"


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

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def texts(self, content: Content = "text") -> list[tuple[Row, list[str]]]:
        """Each row with the texts of its cells."""
        return [(row, [row.text(column, content) for column in self.columns]) for row in self.rows]

    @property
    def has_tests(self) -> bool:
        """Whether any difference is over several seeds, and so has an interval and a p."""
        return any(cell.corrected_p is not None for row in self.rows for cell in row.cells.values())

    def by_dataset(self) -> dict[str, "ResultTable"]:
        """One table for each dataset; p-values stay corrected over all of them."""
        columns: dict[str, list[str]] = {}
        for column in self.columns:
            columns.setdefault(column.rpartition(" ")[0], []).append(column)
        return {
            dataset: ResultTable(own, [row for row in self.rows if row.cells.keys() & set(own)])
            for dataset, own in columns.items()
        }


def scores(records: pd.DataFrame) -> pd.DataFrame:
    """The rows whose metric scores a representation, or describes it in a record without any score."""
    is_score = records["metric"].str.endswith(SCORES)
    has_scores = is_score.groupby(records["path"]).transform("any")
    describes = records["metric"].isin(DESCRIPTIONS) & ~has_scores
    return records[(is_score & ~records["metric"].str.contains("top5")) | describes]


def summarise(records: pd.DataFrame, published: Published = NO_FIGURES, merge: bool = False) -> ResultTable:
    """Make a table: the untrained encoder first, then objectives by family, tau_plus and beta.

    Columns are ``dataset metric``. Records of different code or settings, or of an unclean work tree, get
    rows of their own (see ``label_versions``) unless ``merge``. Several records of one seed count as their
    mean; equal scores of an untrained encoder, which depend on the seed alone, count as one.
    """
    records = records.assign(column=records["dataset"] + " " + records["metric"])
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        plain = records["family"].map(lambda family: _join(PLAIN, family))
        records["label"] = records["label"].mask(is_plain, plain)
    records = label_versions(records, merge).sort_values(list(Point._fields), kind="stable")
    rows = [*_untrained_rows(records), *_objective_rows(records)]
    columns = list(dict.fromkeys(records.sort_index()["column"]))
    rows = _with_differences(rows)
    return ResultTable(columns, [*rows, *_oracle_rows(rows, columns), *_published_rows(columns, published)])


def label_versions(records: pd.DataFrame, merge: bool = False) -> pd.DataFrame:
    """Add a ``version`` to records and to their labels: records of different versions are not averaged.

    A version names the revision if a dataset has records of several, or if the work tree was unclean, and the
    settings' fingerprint if a dataset has several; neither if all are to ``merge``. It always names the rules
    of the evaluation if a dataset has records of several: such scores do not compare.
    """
    revision, settings = records["revision"].fillna(""), records["settings"]
    evaluation = records["evaluation"]
    dataset = [records["modality"], records["dataset"]]
    shows_revision = (revision.groupby(dataset).transform("nunique") > 1) | revision.str.endswith("-dirty")
    shows_settings = settings.groupby(dataset).transform("nunique") > 1
    shows_evaluation = evaluation.groupby(dataset).transform("nunique") > 1
    version = revision.where(shows_revision, "") + ("/" + settings).where(shows_settings, "")
    if merge:
        version = pd.Series("", index=records.index)
    named = version + ("/" + evaluation).where(shows_evaluation & (evaluation != ""), "")
    version = named.str.removeprefix("/").where(version == "", named)
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
        rows.append(
            Row(first["label"], _cells(group, "value"), point=point, plain_family=first["plain_family"])
        )
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


def _with_differences(rows: list[Row]) -> list[Row]:
    """Add every objective's difference to its baseline, p corrected over all that have several seeds."""
    differences = _differences(rows)
    p_values = {key: difference.p for key, difference in differences.items() if difference.pairs > 1}
    corrected = dict(zip(p_values, map(float, holm(list(p_values.values()))), strict=True))
    return [
        replace(
            row,
            cells={
                column: replace(
                    cell, difference=differences.get((i, column)), corrected_p=corrected.get((i, column))
                )
                for column, cell in row.cells.items()
            },
        )
        for i, row in enumerate(rows)
    ]


def _differences(rows: list[Row]) -> dict[tuple[int, str], Difference]:
    """By row and column: an objective's difference to its baseline, at the seeds that both have."""
    differences = {}
    for i, row in enumerate(rows):
        baseline = baseline_of(row, rows)
        if baseline is None:
            continue
        for column in row.cells:
            if column not in baseline.cells or not row.cells[column].is_score:
                continue
            ours, theirs = row.cells[column].scores, baseline.cells[column].scores
            if seeds := sorted(ours.keys() & theirs.keys()):
                pairs = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
                differences[i, column] = paired_difference(*pairs)
    return differences


def baseline_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The objective that ``row`` is compared with: same family, tau_plus and version, at beta 0.

    The beta 0 row itself, and a row without one, is compared with its plain objective.
    """
    if row.point is None or not (row.point.beta or row.point.tau_plus):
        return None
    by_point = {other.point: other for other in rows if other.point is not None}
    plain = Point(row.plain_family, 0, 0, row.point.version)
    candidates = [row.point._replace(beta=0), plain] if row.point.beta > 0 else [plain]
    return next((by_point[point] for point in candidates if point in by_point), None)


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
