"""The tables of the page of evidence: each kind of block, as Markdown."""

import re
from collections.abc import Mapping, Sequence
from os.path import commonpath, relpath
from pathlib import Path

import numpy as np
import pandas as pd

from core.io.errors import InputError
from shared_eval.result_table import ResultTable, Row, TableCell, at_version, points
from shared_eval.statistics import FLIPS, Difference, chance_of_as_many, paired_difference
from shared_eval.summary import PARTS, answers
from shared_eval.table_figures import baseline_names, gain_grids
from shared_eval.table_formats import markdown
from shared_eval.tables import baselines_of

LINK = re.compile(r"\[([^]]+ \(\d+\))\]\([^)]+\)")
SEEDS = re.compile(r"seeds (\d+)-(\d+)")
AGAINST = " against "
SUMMARY_HEAD = ("", "untrained", "plain", "debiased", "hard, beta 1", "gain over plain", "plain, published")

Selected = Sequence[str]


def figure_path(title: str, page: Path) -> Path:
    """Where a figure is, without its suffix."""
    return page.parent / "figures" / re.sub(r"\W+", "-", title)


def summary(table: ResultTable, selected: Selected, page: Path) -> str:
    """A line for each primary column: the primary objective, its baselines, and its gain over plain."""
    lines = []
    columns = columns_of(table, selected)
    for row, column, comparison in answers(table):
        if comparison.baseline != "plain" or column not in columns:
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
    """The first published score of the plain objective, and its source; empty if there is none."""
    names = baseline_names(table, "plain")
    for row in table.rows:
        source, _, label = row.label.partition(": ")
        if row.kind == "published" and column in row.cells and label in names:
            return f"{row.text(column)} ({source})"
    return ""


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
    """Differences between rows at the same seeds, column by column.

    ``selected`` has pairs of labels, ``ROW against ROW``. It may name columns, by default all, and seeds, as
    ``seeds 10-19``.
    """
    ranges = [range(int(a), int(b) + 1) for a, b in SEEDS.findall("; ".join(selected))]
    labels = [tuple(name.split(AGAINST)) for name in selected if AGAINST in name]
    columns = [name for name in selected if AGAINST not in name and not SEEDS.fullmatch(name)]
    lines = []
    for column in columns_of(table, columns):
        for ours, theirs in labels:
            first, other = row_of(table, ours), row_of(table, theirs)
            if column in first.cells.keys() & other.cells.keys():
                gained = gains_by_seed(first.cells[column], other.cells[column].scores)
                chosen = [
                    gain for seed, gain in gained.items() if not ranges or any(seed in own for own in ranges)
                ]
                if not chosen:
                    raise InputError(f"{ours} and {theirs} have no common seed in {column}")
                d = paired_difference(chosen, np.zeros(len(chosen)))
                lines.append([column, ours, theirs, shown(d), str(d.pairs)])
    return markdown(["", "objective", "against", "difference", "seeds"], lines)


def row_of(table: ResultTable, label: str) -> Row:
    try:
        return table.row(label)
    except LookupError as error:
        raise InputError(error.args[0]) from error


def shown(d: Difference) -> str:
    return points(d.mean, d.low, d.high)


def gains_by_seed(cell: TableCell, theirs: Mapping[int, float]) -> dict[int, float]:
    """What a cell's scores are above others of the same seeds."""
    return {seed: cell.scores[seed] - theirs[seed] for seed in sorted(cell.scores.keys() & theirs.keys())}


def variants(table: ResultTable, selected: Selected, page: Path) -> str:
    """Each variant against the default at the same tau_plus: a line for each beta above 0, one for all."""
    rows = {row.point: row for row in table.rows if row.point is not None}
    gained = [
        (column, at_version(point.family, point.version), point.beta, seed, gain)
        for point, row in rows.items()
        if point.beta > 0 and point.family != row.plain_family
        if (default := rows.get(point._replace(family=row.plain_family))) is not None
        for column in row.cells.keys() & default.cells.keys()
        for seed, gain in gains_by_seed(row.cells[column], default.cells[column].scores).items()
    ]
    frame = pd.DataFrame(gained, columns=["column", "family", "beta", "seed", "gain"])
    lines = []
    for (column, family), group in frame.groupby(["column", "family"]):
        betas = [(f"{beta:g}", own) for beta, own in group.groupby("beta")]
        for beta, own in [*betas, ("all of these", group)]:
            d = mean_gain(own)
            lines.append([column, family, beta, shown(d), str(d.pairs)])
    return markdown(["", "variant", "beta", "variant - default", "seeds"], lines)


def mean_gain(gains: pd.DataFrame) -> Difference:
    """The mean gain; those of one seed count as their mean."""
    of_seeds = gains.groupby("seed")["gain"].mean()
    return paired_difference(of_seeds, np.zeros(len(of_seeds)))


def averages(table: ResultTable, selected: Selected, page: Path) -> str:
    """Each variant at each beta, over all its tau_plus: what it gains over plain and over the untrained."""
    gained = [
        (
            column,
            at_version(row.point.family or "default", row.point.version),
            row.point.beta,
            seed,
            baseline,
            gain,
        )
        for row in table.rows
        if row.point is not None and (plain := baselines_of(row, table.rows).get("plain")) is not None
        for column in row.cells.keys() & plain.cells.keys()
        for baseline, theirs in (
            ("plain", plain.cells[column].scores),
            ("untrained", row.cells[column].untrained),
        )
        for seed, gain in gains_by_seed(row.cells[column], theirs).items()
    ]
    frame = pd.DataFrame(gained, columns=["column", "variant", "beta", "seed", "baseline", "gain"])
    lines = []
    for (column, variant, beta), group in frame.groupby(["column", "variant", "beta"]):
        over = {baseline: mean_gain(own) for baseline, own in group.groupby("baseline")}
        if "plain" in over:
            untrained = shown(over["untrained"]) if "untrained" in over else ""
            gain = shown(over["plain"])
            lines.append([column, variant, f"{beta:g}", gain, untrained, str(over["plain"].pairs)])
    return markdown(["", "variant", "beta", "gain over plain", "gain over untrained", "seeds"], lines)


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
        grids = gain_grids(table, column)
        for family, grid in grids.items():
            head = [f"{column}, {family or 'default'}", *(f"beta {beta:g}" for beta in grid.columns)]
            lines = [
                [f"tau_plus {tau_plus:g}", *("" if pd.isna(d) else shown(d) for d in row)]
                for tau_plus, row in zip(grid.index, grid.to_numpy(), strict=True)
            ]
            parts.append(markdown(head, lines))
        found = [d for grid in grids.values() for d in grid.to_numpy().ravel() if not pd.isna(d)]
        if found:
            seeds = {frozenset(r.cells[column].scores) for r in table.rows if r.point and column in r.cells}
            parts.append(f"{count_intervals(found, have_same_seeds=len(seeds) == 1)}\n")
    return "\n".join(parts)


def count_intervals(found: Sequence[Difference], have_same_seeds: bool) -> str:
    """How many intervals exclude 0, and whether chance gives as many, if all have the same seeds."""
    above, below = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
    counted = f"Of {len(found)} intervals {above} are above 0 and {below} below."
    if not have_same_seeds or found[0].pairs < 2:
        return counted
    p = chance_of_as_many([d.differences for d in found])
    return f"{counted} Chance gives as many on one side with p {p:.3f} ({FLIPS:,} random signs of seeds)."


def primary(table: ResultTable, selected: Selected, page: Path) -> str:
    return markdown(PARTS[0].head, PARTS[0].rows(table))


def overall(table: ResultTable, selected: Selected, page: Path) -> str:
    """Means over the datasets of each modality; ``selected`` are modalities."""
    rows = PARTS[1].rows(table)
    if missing := set(selected) - {row[0] for row in rows}:
        raise InputError(f"the table has no comparisons of {missing.pop()}")
    return markdown(PARTS[1].head, [row for row in rows if not selected or row[0] in selected])


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
    "averages": averages,
    "gains": gains,
    "training": training,
    "primary": primary,
    "overall": overall,
    "figures": figure_links,
}
