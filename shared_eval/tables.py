"""Tables of records: objectives down, datasets across, mean ± standard deviation over seeds."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from shared_eval.statistics import LEVEL, Difference, holm, paired_difference

UNTRAINED = "untrained encoder"
# The row of beta 0, tau_plus 0 where modalities, each with a name of its own for it, stand side by side.
PLAIN = "plain (beta 0, tau_plus 0)"
ORACLE = "best beta (oracle: chosen on the figures themselves)"
CSV_COLUMNS = (
    "objective",
    "kind",
    "column",
    "mean",
    "deviation",
    "seeds",
    "difference",
    "low",
    "high",
    "p",
    "corrected_p",
)
LATEX = {character: rf"\{character}" for character in "_%&#${}"}
LATEX |= {"^": r"\^{}", "~": r"\~{}", "\\": r"\textbackslash{}"}
# What identifies an objective beside its name, and the code and settings that its records are of.
POINT = ["family", "tau_plus", "beta", "version"]

# Published figures, fractions: row's label, which says whose they are, and column to value.
Published = Mapping[tuple[str, str], float]
NOTHING: Published = MappingProxyType({})


@dataclass(frozen=True)
class Cell:
    """Scores of one objective on one dataset, a seed each."""

    scores: dict[int, float]  # by seed, fractions
    records: tuple[str, ...] = ()  # the files they are from
    difference: Difference | None = None  # to the baseline at the same seeds
    corrected_p: float | None = None  # of the difference, over all of the table; None of one seed

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)

    @property
    def deviation(self) -> float:
        """Sample standard deviation, nan of one seed."""
        return float(pd.Series(self.scores).std())

    @property
    def is_better(self) -> bool:
        """Whether the gain over the baseline survives the correction."""
        return self.corrected_p is not None and self.corrected_p < LEVEL and self.difference.mean > 0

    @property
    def text(self) -> str:
        """As ``84.2 ± 1.3 (10)``: percent, and in brackets the number of seeds."""
        spread = f" ± {100 * self.deviation:.1f}" if len(self.scores) > 1 else ""
        return f"{100 * self.mean:.1f}{spread} ({len(self.scores)})"

    @property
    def difference_text(self) -> str:
        """As ``+1.2 [0.3, 2.1] p 0.031``: points, 95 % interval, corrected p; of one seed points alone."""
        if self.difference is None:
            return ""
        d = self.difference
        if self.corrected_p is None:
            return f"{100 * d.mean:+.1f}"
        return f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}] p {self.corrected_p:.3f}"


@dataclass(frozen=True)
class Row:
    """An objective, or what stands beside them: the untrained encoder, the oracle, what was published."""

    label: str
    cells: dict[str, Cell]
    kind: str = "objective"
    point: tuple = ()  # family, tau_plus, beta, version

    def text(self, column: str, what: str = "text") -> str:
        """A cell's text, published figures without a number of seeds; empty where there is no cell."""
        if column not in self.cells:
            return ""
        text = getattr(self.cells[column], what)
        return text.removesuffix(" (1)") if self.kind == "published" else text


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells; a cell that is missing has no record."""

    columns: list[str]
    rows: list[Row] = field(default_factory=list)

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    @property
    def has_tests(self) -> bool:
        """Whether any difference is of several seeds, and so has an interval and a p."""
        return any(cell.corrected_p is not None for row in self.rows for cell in row.cells.values())

    def by_dataset(self) -> dict[str, "ResultTable"]:
        """The part of each dataset, in its order; corrections stay those of the whole."""
        columns: dict[str, list[str]] = {}
        for column in self.columns:
            columns.setdefault(column.rpartition(" ")[0], []).append(column)
        return {
            dataset: ResultTable(own, [row for row in self.rows if row.cells.keys() & set(own)])
            for dataset, own in columns.items()
        }

    def texts(
        self, what: str = "text", write: Callable[[str, bool], Any] = lambda text, is_better: text
    ) -> Iterator[tuple[Row, list[Any]]]:
        """Each row with the texts of its cells, empty where there is none: (row, texts) pairs.

        ``what`` is a property of cells; ``write`` makes of a text, and of whether it is a gain that survives,
        what is to be shown.
        """
        for row in self.rows:
            held = [(row.text(column, what), row.cells.get(column)) for column in self.columns]
            yield row, [write(text, cell.is_better) if text else "" for text, cell in held]


def scores(records: pd.DataFrame) -> pd.DataFrame:
    """The records' rows that say how good a representation is; the rest describes it."""
    metrics = records["metric"]
    return records[metrics.str.endswith(("_accuracy", "_f1", "_spearman")) & ~metrics.str.contains("top5")]


def summarise(records: pd.DataFrame, published: Published = NOTHING, mix: bool = False) -> ResultTable:
    """The table of some records: the untrained encoder first, then objectives by family, tau_plus and beta.

    Columns are ``dataset metric``. Records of different code or settings, or of an unclean work tree, get
    rows of their own (``told_apart``), unless they are to be ``mix``-ed. Where a seed has several, their mean
    counts; of an untrained encoder, whose score depends on the seed alone, equal ones are one.
    """
    records = records.assign(column=records["dataset"] + " " + records["metric"])
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        plain = records["family"].map(lambda family: _listed(PLAIN, family))
        records["label"] = records["label"].mask(is_plain, plain)
    records = told_apart(records, mix).sort_values(POINT, kind="stable")
    untrained = records.dropna(subset="untrained")
    untrained = untrained.drop_duplicates(["column", "seed", "encoder", "version", "untrained"])
    rows = [
        Row(_of_version(_listed(UNTRAINED, encoder), version), _cells(of, "untrained"), "untrained")
        for (encoder, version), of in untrained.groupby(["encoder", "version"])
    ]
    for (*point, label), of_row in records.groupby([*POINT, "label"], sort=False):
        rows.append(Row(label, _cells(of_row, "value"), "objective", tuple(point)))
    columns = list(dict.fromkeys(records.sort_index()["column"]))
    table = ResultTable(columns, _with_differences(rows))
    table = replace(table, rows=[*table.rows, *_oracles(table)])
    return replace(table, rows=[*table.rows, *_published_rows(table, published)])


def told_apart(records: pd.DataFrame, mix: bool = False) -> pd.DataFrame:
    """The records with a ``version``, which their labels then end in: what must not be averaged unasked.

    It names the code where a dataset's records are of several revisions, or of an unclean work tree, and the
    settings where they are of several; it is empty where there is nothing to tell apart, or all is to be
    ``mix``-ed.
    """
    if mix:
        return records.assign(version="")
    revision, settings = records["revision"].fillna(""), records["settings"]
    datasets = [records["modality"], records["dataset"]]
    is_named = (revision.groupby(datasets).transform("nunique") > 1) | revision.str.endswith("-dirty")
    is_set_apart = settings.groupby(datasets).transform("nunique") > 1
    version = revision.where(is_named, "") + ("/" + settings).where(is_set_apart, "")
    labels = [_of_version(*pair) for pair in zip(records["label"], version, strict=True)]
    return records.assign(version=version, label=labels)


def _of_version(label: str, version: str) -> str:
    return f"{label} @ {version}" if version else label


def _listed(*parts: str) -> str:
    """What there is of some parts of a label, with commas."""
    return ", ".join(filter(None, parts))


def _cells(records: pd.DataFrame, name: str) -> dict[str, Cell]:
    """A row's cells, of the values of that name."""
    return {
        column: Cell(of_column.groupby("seed")[name].mean().to_dict(), tuple(of_column["path"].unique()))
        for column, of_column in records.groupby("column", sort=False)
    }


def _with_differences(rows: list[Row]) -> list[Row]:
    """Every objective's difference to its baseline, corrected over all of several seeds in the table."""
    found: dict[tuple[int, str], Difference] = {}
    for i, row in enumerate(rows):
        baseline = baseline_of(row, rows)
        for column, cell in row.cells.items() if baseline else ():
            other = baseline.cells.get(column)
            seeds = sorted(cell.scores.keys() & other.scores.keys()) if other else []
            if seeds:
                found[i, column] = paired_difference(
                    [cell.scores[seed] for seed in seeds], [other.scores[seed] for seed in seeds]
                )
    tested = {key: difference.p for key, difference in found.items() if difference.pairs > 1}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        replace(
            row,
            cells={
                column: replace(
                    cell, difference=found.get((i, column)), corrected_p=corrected.get((i, column))
                )
                for column, cell in row.cells.items()
            },
        )
        for i, row in enumerate(rows)
    ]


def baseline_of(row: Row, rows: list[Row]) -> Row | None:
    """The beta 0 objective of the same family and tau_plus; for that one, the family's plain objective.

    Of the same version always. A plain objective is the same whether released or corrected.
    """
    if row.kind != "objective" or not any(row.point[1:3]):
        return None
    family, tau_plus, beta, version = row.point
    plain_family = family.removeprefix("released").removeprefix(", ")
    wanted = [(family, tau_plus, 0, version)] if beta > 0 else []
    by_point = {other.point: other for other in rows if other.kind == "objective"}
    found = [by_point[point] for point in [*wanted, (plain_family, 0, 0, version)] if point in by_point]
    return found[0] if found else None


def _oracles(table: ResultTable) -> list[Row]:
    """For each family, tau_plus and version with several betas, the best of them on each dataset."""
    groups: dict[tuple, list[Row]] = {}
    for row in table.rows:
        if row.kind == "objective" and row.point[2] > 0:
            family, tau_plus, _, version = row.point
            groups.setdefault((family, tau_plus, version), []).append(row)
    oracles = []
    for (family, tau_plus, version), rows in groups.items():
        if len(rows) > 1:
            best = {
                column: max(held, key=lambda cell: cell.mean)
                for column in table.columns
                if (held := [row.cells[column] for row in rows if column in row.cells])
            }
            cells = {column: Cell(cell.scores, cell.records) for column, cell in best.items()}
            label = _of_version(_listed(ORACLE, f"tau_plus {tau_plus:g}", family), version)
            oracles.append(Row(label, cells, "oracle"))
    return oracles


def _published_rows(table: ResultTable, published: Published) -> list[Row]:
    """A row for each label of published figures that there is a column for."""
    rows: dict[str, dict[str, Cell]] = {}
    for (label, column), value in published.items():
        if column in table.columns:
            rows.setdefault(label, {})[column] = Cell({0: value})
    return [Row(label, cells, "published") for label, cells in rows.items()]


def to_terminal(table: ResultTable, title: str, what: str = "text") -> Table:
    """The table for a terminal; bold is what beats its baseline after correction, ``what`` a cell's text.

    Where it is narrow, labels are broken between words, and numbers never.
    """
    rows = [(Text(row.label), *texts) for row, texts in table.texts(what, _terminal_cell) if any(texts)]
    heads = [Text(name.removesuffix("_accuracy").replace(" ", "\n", 1)) for name in table.columns]
    held = zip(heads, *(texts for _, *texts in rows), strict=True)
    columns = [Column(column[0], no_wrap=True, min_width=max(map(_width, column))) for column in held]
    drawn = Table("objective", *columns, title=title, title_justify="left")
    for texts in rows:
        drawn.add_row(*texts)
    return drawn


def _terminal_cell(text: str, is_better: bool) -> Text:
    return Text(text, "bold" if is_better else "")


def _width(text: Text) -> int:
    return max(map(cell_len, text.plain.split("\n")))


def to_markdown(table: ResultTable, what: str = "text") -> str:
    """The table in Markdown; ``what`` is ``text``, or ``difference_text`` for the differences."""
    lines = [["objective", *table.columns], ["---"] * (1 + len(table.columns))]
    written = table.texts(what, lambda text, better: f"**{text}**" if better else text)
    lines += [[row.label, *texts] for row, texts in written if any(texts)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_csv(table: ResultTable) -> str:
    """One line a cell: row, kind, column, mean, deviation, seeds, difference, interval, p, corrected p."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for column in table.columns:
            cell = row.cells.get(column)
            if cell is None:
                continue
            d = cell.difference
            of_difference = [d.mean, d.low, d.high, d.p, cell.corrected_p] if d else [None] * 5
            seeds = None if row.kind == "published" else len(cell.scores)
            numbers = [cell.mean, cell.deviation, seeds, *of_difference]
            writer.writerow([row.label, row.kind, column, *(_plain(number) for number in numbers)])
    return text.getvalue()


def _plain(number: float | int | None) -> str:
    if number is None or pd.isna(number):
        return ""
    return str(number) if isinstance(number, int) else f"{number:.6g}"


def to_latex(table: ResultTable, what: str = "text") -> str:
    """The table in LaTeX, for the package booktabs; ``what`` as for ``to_markdown``."""
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["objective", *map(_latex, table.columns)]) + r" \\",
        r"\midrule",
    ]
    kind = table.rows[0].kind if table.rows else ""
    for row, texts in table.texts(what, _latex_cell):
        if not any(texts):
            continue
        if row.kind != kind:
            lines.append(r"\midrule")
            kind = row.kind
        lines.append(" & ".join([_latex(row.label), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(text: str, is_better: bool) -> str:
    written = _latex(text).replace("±", r"$\pm$")
    return rf"\textbf{{{written}}}" if is_better else written


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
