"""Tables of records: objectives down, datasets across, mean ± standard deviation over seeds."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pandas as pd
from rich.table import Table

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
# What identifies an objective beside its name.
POINT = ["family", "tau_plus", "beta", "label"]

# The paper's figures, fractions: row's label and column to value.
Published = Mapping[tuple[str, str], float]
NOTHING: Published = MappingProxyType({})


@dataclass(frozen=True)
class Cell:
    """Scores of one objective on one dataset, a seed each."""

    scores: dict[int, float]  # by seed, fractions
    records: tuple[str, ...] = ()  # the files they are from
    difference: Difference | None = None  # to the baseline at the same seeds
    corrected_p: float | None = None  # of the difference, over all of the table

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
        if d.pairs == 1:
            return f"{100 * d.mean:+.1f}"
        return f"{100 * d.mean:+.1f} [{100 * d.low:.1f}, {100 * d.high:.1f}] p {self.corrected_p:.3f}"


@dataclass(frozen=True)
class Row:
    """An objective, or what stands beside them: the untrained encoder, the oracle, the paper."""

    label: str
    cells: dict[str, Cell]
    kind: str = "objective"
    point: tuple = ()  # family, tau_plus, beta

    def text(self, column: str, what: str = "text") -> str:
        """A cell's text, the paper's figures without a number of seeds; empty where there is no cell."""
        if column not in self.cells:
            return ""
        text = getattr(self.cells[column], what)
        return text.removesuffix(" (1)") if self.kind == "paper" else text


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells; a cell that is missing has no record."""

    columns: list[str]
    rows: list[Row] = field(default_factory=list)

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def texts(
        self, what: str = "text", write: Callable[[str, bool], str] = lambda text, is_better: text
    ) -> Iterator[tuple[Row, list[str]]]:
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

    Columns are ``dataset metric``. An untrained encoder's score depends on the seed alone, so each seed
    counts once there. Records of different code or settings, or of an unclean work tree, get rows of their
    own, unless they are to be ``mix``-ed; of those the newest of a seed counts.
    """
    records = records.assign(column=records["dataset"] + " " + records["metric"])
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        records["label"] = records["label"].mask(is_plain, PLAIN)
    if not mix:
        records["label"] = _told_apart(records)
    records = records.sort_values(POINT, kind="stable")
    untrained = records.dropna(subset="untrained").drop_duplicates(["column", "seed", "encoder"])
    rows = [
        Row(
            ", ".join(filter(None, [UNTRAINED, encoder])),
            _cells(of.assign(value=of["untrained"])),
            "untrained",
        )
        for encoder, of in untrained.groupby("encoder")
    ]
    for (*point, label), of_row in records.groupby(POINT, sort=False):
        rows.append(Row(label, _cells(of_row), "objective", tuple(point)))
    columns = list(dict.fromkeys(records.sort_index()["column"]))
    table = ResultTable(columns, _with_differences(rows))
    table = replace(table, rows=[*table.rows, *_oracles(table)])
    return replace(table, rows=[*table.rows, *_published_rows(table, published)])


def _told_apart(records: pd.DataFrame) -> pd.Series:
    """Labels, with the version behind them where an objective's records are of several."""
    version = records["revision"].fillna("") + records["settings"].map("/{}".format)
    counts = version.groupby([records["label"], records["column"]]).transform("nunique")
    several = counts.groupby(records["label"]).transform("max") > 1
    return records["label"].mask(several, records["label"] + " @ " + version)


def _cells(records: pd.DataFrame) -> dict[str, Cell]:
    return {
        column: Cell(
            dict(zip(of_column["seed"], of_column["value"], strict=True)), tuple(of_column["path"].unique())
        )
        for column, of_column in records.groupby("column", sort=False)
    }


def _with_differences(rows: list[Row]) -> list[Row]:
    """Every objective's difference to its baseline, corrected over all comparisons of the table."""
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
    corrected = dict(zip(found, holm([difference.p for difference in found.values()]), strict=True))
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

    A plain objective is the same whether released or corrected.
    """
    if row.kind != "objective" or not any(row.point[1:]):
        return None
    family, tau_plus, beta = row.point
    plain_family = family.removeprefix("released").removeprefix(", ")
    wanted = [(family, tau_plus, 0)] if beta > 0 else []
    by_point = {other.point: other for other in rows if other.kind == "objective"}
    found = [by_point[point] for point in [*wanted, (plain_family, 0, 0)] if point in by_point]
    return found[0] if found else None


def _oracles(table: ResultTable) -> list[Row]:
    """For each family and tau_plus with several betas, the best of them on each dataset."""
    groups: dict[tuple, list[Row]] = {}
    for row in table.rows:
        if row.kind == "objective" and row.point[2] > 0:
            groups.setdefault(row.point[:2], []).append(row)
    oracles = []
    for (family, tau_plus), rows in groups.items():
        if len(rows) > 1:
            best = {
                column: max(held, key=lambda cell: cell.mean)
                for column in table.columns
                if (held := [row.cells[column] for row in rows if column in row.cells])
            }
            cells = {column: Cell(cell.scores, cell.records) for column, cell in best.items()}
            label = ", ".join(filter(None, [ORACLE, f"tau_plus {tau_plus:g}", family]))
            oracles.append(Row(label, cells, "oracle"))
    return oracles


def _published_rows(table: ResultTable, published: Published) -> list[Row]:
    labels = dict.fromkeys(label for label, _ in published)
    return [
        Row(
            f"paper: {label}",
            {
                column: Cell({0: value})
                for (of, column), value in published.items()
                if of == label and column in table.columns
            },
            "paper",
        )
        for label in labels
    ]


def to_terminal(table: ResultTable, title: str) -> Table:
    """The table for a terminal; bold is what beats its baseline after correction."""
    heads = [name.removesuffix("_accuracy").replace(" ", "\n", 1) for name in table.columns]
    drawn = Table("objective", *heads, title=title, title_justify="left")
    for row, texts in table.texts(write=lambda text, better: f"[bold]{text}[/bold]" if better else text):
        drawn.add_row(row.label, *texts)
    return drawn


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
            seeds = None if row.kind == "paper" else len(cell.scores)
            numbers = [cell.mean, cell.deviation, seeds, *of_difference]
            writer.writerow([row.label, row.kind, column, *(_plain(number) for number in numbers)])
    return text.getvalue()


def _plain(number: float | int | None) -> str:
    if number is None or pd.isna(number):
        return ""
    return str(number) if isinstance(number, int) else f"{number:.6g}"


def to_latex(table: ResultTable) -> str:
    """The table in LaTeX, for the package booktabs."""
    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["objective", *map(_latex, table.columns)]) + r" \\",
        r"\midrule",
    ]
    kind = table.rows[0].kind if table.rows else ""
    for row, texts in table.texts(write=_latex_cell):
        if row.kind != kind:
            lines.append(r"\midrule")
            kind = row.kind
        lines.append(" & ".join([_latex(row.label), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(text: str, is_better: bool) -> str:
    written = _latex(text).replace("±", r"$\pm$")
    return rf"\textbf{{{written}}}" if is_better else written


def _latex(text: str) -> str:
    for character in "_%&#":
        text = text.replace(character, rf"\{character}")
    return text
