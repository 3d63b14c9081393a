"""The page of evidence: ``python -m benchmarks.evidence`` fills in its tables and figures from the records.

``benchmarks/results/README.md`` and the README are written by hand, but for what stands between
``<!-- begin KIND STUDIES: SELECTED -->`` and ``<!-- end -->``. KIND is a key of ``KINDS``, STUDIES are
folders with records, and SELECTED, separated by semicolons, are columns of a table, labels of its rows, or
titles of its figures. A study of thousands of runs has them in one file instead, which ``python -m
shared_eval.records RUNS --csv STUDY/records.csv`` writes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from os.path import commonpath, relpath
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import ROOT
from core.io.errors import InputError
from core.io.files import write_atomically
from core.training.cli import command, parse
from shared_eval.figures import save
from shared_eval.outputs import writing
from shared_eval.records import find_exports, find_records, read_export, read_records
from shared_eval.reproduce.recipes import all_recipes, primary_comparisons, published_figures
from shared_eval.result_table import ResultTable, Row, points
from shared_eval.statistics import paired_difference
from shared_eval.summary import PARTS, answers
from shared_eval.table_figures import baseline_names, draw_table, gain_grids
from shared_eval.table_formats import markdown
from shared_eval.tables import baselines_of, scores, summarise

RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- begin (\w+) ([\w -]+?)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"\[([^]]+ \(\d+\))\]\([^)]+\)")
SUMMARY_HEAD = ("", "untrained", "plain", "debiased", "hard, beta 1", "gain over plain", "plain, published")

Selected = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EvidenceConfig:
    """Fill in the tables and figures of the page of evidence."""

    results: Path = RESULTS
    """Folder of studies, each a folder with records."""
    pages: tuple[Path, ...] = (RESULTS / "README.md", ROOT / "README.md")
    """Pages to fill in; their figures are in a folder beside them."""


class Studies:
    """The tables of some folders in ``results``, each with records."""

    def __init__(self, results: Path) -> None:
        self.results = results
        recipes = all_recipes()
        self.published, self.primary = published_figures(recipes), primary_comparisons(recipes)

    @cache  # noqa: B019 -- lives as long as the command
    def table(self, names: str) -> ResultTable:
        """One table of the folders that ``names`` lists. Raises InputError if they have no records."""
        found = [records_of(self.results / name) for name in names.split()]
        if all(records.empty for records in found):
            raise InputError(f"{self.results} has no records of {names}")
        records = pd.concat([records for records in found if not records.empty], ignore_index=True)
        return summarise(scores(records), self.published, primary=self.primary)


def records_of(study: Path) -> pd.DataFrame:
    """The records of a study: in one file, or in the folders of its runs."""
    exports = find_exports([study])
    return pd.concat(map(read_export, exports)) if exports else read_records(find_records([study]))


def fill(page: Path, studies: Studies) -> str:
    """The page's text with each block as the records have it. Raises InputError for an unknown block."""

    def made(block: re.Match[str]) -> str:
        begin, kind, names, selected, end = block.groups()
        if kind not in KINDS:
            raise InputError(f"{page} has a block {kind}, which is not one of {', '.join(KINDS)}")
        return begin + KINDS[kind](studies.table(names), listed(selected), page) + end

    return BLOCK.sub(made, page.read_text("utf-8"))


def draw(page: Path, studies: Studies) -> None:
    """Write the figures of the page's blocks."""
    for _, kind, names, selected, _ in BLOCK.findall(page.read_text("utf-8")):
        if kind == "figures":
            drawn = draw_table(studies.table(names))
            for title in listed(selected):
                if title not in drawn:
                    raise InputError(f"the table of {names} has no figure {title}, only {'; '.join(drawn)}")
                path = figure_path(title, page)
                with writing(path):
                    save(drawn[title], path)


def listed(selected: str | None) -> list[str]:
    return selected.split("; ") if selected else []


def figure_path(title: str, page: Path) -> Path:
    """Where a figure is, without its suffix."""
    return page.parent / "figures" / re.sub(r"\W+", "-", title)


def summary(table: ResultTable, selected: Selected, page: Path) -> str:
    """A line for each primary column: the primary objective, its baselines, and its gain over plain."""
    lines = []
    for row, column, comparison in answers(table):
        if comparison.baseline != "plain" or (selected and column not in selected):
            continue
        baselines = baselines_of(row, table.rows)
        untrained = (r for r in table.rows if r.kind == "untrained" and r.version == row.version)
        shown = (next(untrained, None), baselines["plain"], baselines.get("beta 0"), row)
        cells = [linked(other, column, page) if other else "" for other in shown]
        lines.append([column, *cells, comparison.points, published_plain(table, column)])
    return markdown(SUMMARY_HEAD, lines)


def brief(table: ResultTable, selected: Selected, page: Path) -> str:
    """The summary without links, for a page that is also read as text."""
    return LINK.sub(r"\1", summary(table, selected, page))


def published_plain(table: ResultTable, column: str) -> str:
    """The first published figure of the plain objective; empty if there is none."""
    names = baseline_names(table, "plain")
    rows = [row for row in table.rows if row.kind == "published" and column in row.cells]
    return next((row.text(column) for row in rows if row.label.partition(": ")[2] in names), "")


def score_table(table: ResultTable, selected: Selected, page: Path) -> str:
    """All scores, each with a link to its records; ``selected`` are columns."""
    columns = columns_of(table, selected)
    rows = [row for row in table.rows if any(column in row.cells for column in columns)]
    lines = ([row.label, *(linked(row, column, page) for column in columns)] for row in rows)
    return markdown(["objective", *columns], lines)


def columns_of(table: ResultTable, selected: Selected) -> Selected:
    """The selected columns, by default all; raises InputError if the table lacks one."""
    if missing := set(selected) - set(table.columns):
        raise InputError(f"the table has no column {missing.pop()}, only {'; '.join(table.columns)}")
    return selected or table.columns


def linked(row: Row, column: str, page: Path) -> str:
    """A cell's text, with a link to the folder of its records; published figures have none."""
    text = row.text(column)
    if not text or not row.cells[column].records:
        return text
    folder = commonpath([Path(path).parent for path in row.cells[column].records])
    return f"[{text}]({relpath(folder, page.parent)})"


def differences(table: ResultTable, selected: Selected, page: Path) -> str:
    """Each objective's difference to beta 0; ``selected`` are columns."""
    columns = columns_of(table, selected)
    lines = [[row.label, *(row.text(column, "difference_text") for column in columns)] for row in table.rows]
    return markdown(["objective", *columns], [line for line in lines if any(line[1:])])


def pairs(table: ResultTable, selected: Selected, page: Path) -> str:
    """The first of the ``selected`` rows against each of the others, at the same seeds."""
    try:
        first, *others = map(table.row, selected)
    except LookupError as error:
        raise InputError(error.args[0]) from error
    lines = []
    for column in table.columns:
        for other in others:
            if column in first.cells.keys() & other.cells.keys():
                ours, theirs = first.cells[column].scores, other.cells[column].scores
                if not (seeds := sorted(ours.keys() & theirs.keys())):
                    raise InputError(f"{first.label} and {other.label} have no common seed in {column}")
                d = paired_difference([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
                lines.append([column, other.label, points(d.mean, d.low, d.high), str(d.pairs)])
    return markdown(["", f"{first.label}, against", "difference", "seeds"], lines)


def variants(table: ResultTable, selected: Selected, page: Path) -> str:
    """Each variant against the default at the same tau_plus: a line for each beta above 0, one for all."""
    rows = {row.point: row for row in table.rows if row.point is not None}
    differences = [
        (column, point.family, point.beta, seed, score - default.cells[column].scores[seed])
        for point, row in rows.items()
        if point.beta > 0 and point.family != row.plain_family
        if (default := rows.get(point._replace(family=row.plain_family))) is not None
        for column in row.cells.keys() & default.cells.keys()
        for seed, score in row.cells[column].scores.items()
        if seed in default.cells[column].scores
    ]
    frame = pd.DataFrame(differences, columns=["column", "family", "beta", "seed", "difference"])
    lines = []
    for (column, family), group in frame.groupby(["column", "family"]):
        betas = [(f"{beta:g}", own) for beta, own in group.groupby("beta")]
        for beta, own in [*betas, ("all of these", group)]:
            of_seeds = own.groupby("seed")["difference"].mean()
            d = paired_difference(of_seeds, np.zeros(len(of_seeds)))
            lines.append([column, family, beta, points(d.mean, d.low, d.high), str(d.pairs)])
    return markdown(["", "variant", "beta", "variant - default", "seeds"], lines)


def training(table: ResultTable, selected: Selected, page: Path) -> str:
    """What training gains: each objective against its own encoder before it; ``selected`` are columns."""
    columns = columns_of(table, selected)
    gained = {
        (row.label, column): c.points for row, column, c in table.comparisons() if c.baseline == "untrained"
    }
    lines = [[row.label, *(gained.get((row.label, column), "") for column in columns)] for row in table.rows]
    return markdown(["objective", *columns], [line for line in lines if any(line[1:])])


def gains(table: ResultTable, selected: Selected, page: Path) -> str:
    """The gain over plain of ``selected`` columns at each beta and tau_plus, and how many exclude 0."""
    parts = []
    for column in columns_of(table, selected):
        for family, grid in gain_grids(table, column).items():
            head = [f"{column}, {family or 'default'}", *(f"beta {beta:g}" for beta in grid.columns)]
            lines = [
                [
                    f"tau_plus {tau_plus:g}",
                    *("" if pd.isna(d) else points(d.mean, d.low, d.high) for d in row),
                ]
                for tau_plus, row in zip(grid.index, grid.to_numpy(), strict=True)
            ]
            found = [d for d in grid.to_numpy().ravel() if not pd.isna(d)]
            above, below = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
            said = f"Intervals above 0: {above} of {len(found)}; below 0: {below}."
            parts.append(f"{markdown(head, lines)}\n{said}\n")
    return "\n".join(parts)


def primary(table: ResultTable, selected: Selected, page: Path) -> str:
    return markdown(PARTS[0].head, PARTS[0].rows(table))


def overall(table: ResultTable, selected: Selected, page: Path) -> str:
    return markdown(PARTS[1].head, PARTS[1].rows(table))


def figure_links(table: ResultTable, selected: Selected, page: Path) -> str:
    paths = (relpath(figure_path(title, page).with_suffix(".svg"), page.parent) for title in selected)
    return "\n".join(f"![{title}]({path})\n" for title, path in zip(selected, paths, strict=True))


KINDS = {
    "summary": summary,
    "brief": brief,
    "scores": score_table,
    "differences": differences,
    "pairs": pairs,
    "variants": variants,
    "gains": gains,
    "training": training,
    "primary": primary,
    "overall": overall,
    "figures": figure_links,
}


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EvidenceConfig, argv, "python -m benchmarks.evidence")
    studies = Studies(config.results)
    for page in config.pages:
        draw(page, studies)
        write_atomically(page, fill(page, studies))


if __name__ == "__main__":
    main()
