"""Figures of a whole table: gains over datasets and modalities, ranks, and maps of beta and tau_plus."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared_eval.figures import STYLES
from shared_eval.planned import Baseline
from shared_eval.result_table import ResultTable, Row, at_version
from shared_eval.statistics import Ranks
from shared_eval.summary import Answer, answers, summarise_modalities

GAINS = "gains of hard negatives"  # title of the forest plot
FOREST: dict[Baseline, str] = {"plain": "plain", "beta 0": "debiased"}  # the baselines in the forest plot


def draw_table(table: ResultTable) -> dict[str, Figure]:
    """The figures of a table by title, as far as it has what they show."""
    drawn = {GAINS: forest(table)}
    for summary in summarise_modalities(table):
        if summary.ranks is not None:
            drawn[f"{summary.modality}: mean ranks"] = critical_difference(summary.ranks, summary.modality)
    drawn |= {f"{column}: map of gains": gain_maps(table, column) for column in table.columns}
    return {title: figure for title, figure in drawn.items() if figure is not None}


def forest(table: ResultTable) -> Figure | None:
    """The gain of the primary objective over plain and debiased: a line for each dataset, by modality.

    Points with their 95 % interval; published gains are hollow. None without such comparisons.
    """
    shown = [answer for answer in answers(table) if answer.comparison.baseline in FOREST]
    lines = sorted(dict.fromkeys(map(_line, shown)), key=lambda line: table.modalities[line[0]])
    if not lines:
        return None
    figure = Figure(figsize=(6.4, 1.6 + 0.4 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for i, ((baseline, name), style) in enumerate(zip(FOREST.items(), STYLES, strict=False)):
        own = [answer for answer in shown if answer.comparison.baseline == baseline]
        _draw_gains(axes, table, own, {line: y + 0.3 * i - 0.15 for y, line in enumerate(lines)}, style)
        axes.plot([], [], **style, linestyle="", label=f"over {name}")
        axes.plot([], [], **style, linestyle="", fillstyle="none", label=f"over {name}, published")
    axes.axvline(0, color="0.4", linewidth=0.8)
    names = [at_version(_short_name(column), version) for column, version in lines]
    axes.set_yticks(
        range(len(lines)),
        [f"{table.modalities[c]}: {name}" for (c, _), name in zip(lines, names, strict=True)],
    )
    axes.invert_yaxis()
    figure.supxlabel("gain of hard negatives in points, 95 % interval over seeds", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    return figure


def _line(answer: Answer) -> tuple[str, str]:
    """What has a line of its own: a column, in each version."""
    return answer.column, answer.row.version


def _short_name(column: str) -> str:
    """A column's name without the ending of its metric and the path before a folder."""
    dataset, _, metric = column.removesuffix("_accuracy").rpartition(" ")
    kind, is_folder, path = dataset.partition("folder:")
    return f"{kind}{is_folder}{Path(path).name} {metric}" if is_folder else f"{dataset} {metric}"


def _draw_gains(
    axes: Axes,
    table: ResultTable,
    shown: list[Answer],
    heights: dict[tuple[str, str], float],
    style: dict[str, Any],
) -> None:
    for answer in shown:
        d, height = answer.comparison.difference, heights[_line(answer)]
        if d.pairs > 1:
            axes.plot([100 * d.low, 100 * d.high], [height, height], color=style["color"])
        axes.plot(100 * d.mean, height, **style)
        for gain in published_gains(table, answer.column, answer.comparison.baseline, answer.row):
            axes.plot(100 * gain, height, **style, fillstyle="none")


def published_gains(table: ResultTable, column: str, baseline: Baseline, row: Row) -> list[float]:
    """Published gains of the hard objective over a baseline: one for each source that has both figures.

    Of a source's betas that of ``row`` counts; figures that name no beta count for any.
    """
    beta = f"beta {row.point.beta:g}" if row.point else ""
    names = baseline_names(table, baseline)
    hard: dict[str, float] = {}
    others: dict[str, float] = {}
    for quoted in table.rows:
        if quoted.kind == "published" and column in quoted.cells:
            source, _, label = quoted.label.partition(": ")
            name, *details = label.split(", ")
            if name == "hard" and (beta in details or not any(d.startswith("beta ") for d in details)):
                hard[source] = quoted.cells[column].mean
            elif name in names:
                others[source] = quoted.cells[column].mean
    return [gain - others[source] for source, gain in hard.items() if source in others]


def baseline_names(table: ResultTable, baseline: Baseline) -> set[str]:
    """What the label of a baseline's published figure may begin with."""
    if baseline != "plain":
        return {"debiased"}
    plain = [row.names for row in table.rows if row.point and row.point.beta == row.point.tau_plus == 0]
    return {"plain"}.union(*plain)


def critical_difference(ranks: Ranks, modality: str) -> Figure:
    """Mean ranks on a line; a bar joins objectives whose ranks differ by less than the critical difference.

    After Demsar (JMLR 2006), figure 1.
    """
    ordered = sorted(ranks.means.items(), key=lambda item: item[1])
    bars = _groups([rank for _, rank in ordered], ranks.critical)
    figure = Figure(figsize=(6.4, 1.3 + 0.22 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    for i, (label, rank) in enumerate(ordered):
        axes.plot([rank, rank, len(ordered) + 0.2], [0, i + 1, i + 1], color="0.5", linewidth=0.8)
        axes.text(len(ordered) + 0.3, i + 1, f"{label} ({rank:.2f})", va="center", fontsize=8)
    for i, (first, last) in enumerate(bars):
        height = -0.35 - 0.3 * i
        axes.plot([first - 0.03, last + 0.03], [height, height], color="black", linewidth=3)
    top = -1.2 - 0.3 * len(bars)
    axes.plot([1, 1 + ranks.critical], [top, top], color="black", marker="|")
    axes.text(1, top - 0.2, f"critical difference {ranks.critical:.2f}", fontsize=8, va="bottom")
    axes.axhline(0, color="black", linewidth=0.8, xmax=0.6)
    axes.set_ylim(len(ordered) + 0.7, top - 1)
    axes.set_xlim(0.8, len(ordered) * 1.7)
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(f"mean rank over {ranks.datasets} datasets, 1 is the best")
    axes.set_title(modality, fontsize=10)
    return figure


def _groups(ranks: list[float], critical: float) -> list[tuple[float, float]]:
    """First and last rank of each longest group within the critical difference; ``ranks`` ascend."""
    groups: list[tuple[float, float]] = []
    for first in ranks:
        last = max(rank for rank in ranks if rank - first < critical)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def gain_grids(table: ResultTable, column: str) -> dict[str, pd.DataFrame]:
    """The differences to the plain objective of each family: a row for each tau_plus, a column for each beta.

    Only families with two of both. A cell is missing where several rows have its numbers.
    """
    cells = pd.DataFrame(
        [
            (", ".join(filter(None, [row.point.family, row.point.version])), *row.point[1:3], c.difference)
            for row, name, c in table.comparisons()
            if row.point is not None and name == column and c.baseline == "plain"
        ],
        columns=["family", "tau_plus", "beta", "difference"],
    ).drop_duplicates(["family", "tau_plus", "beta"], keep=False)
    grids = {
        family: group.pivot(index="tau_plus", columns="beta", values="difference")
        for family, group in cells.groupby("family")
    }
    return {family: grid for family, grid in grids.items() if min(grid.shape) > 1}


def gain_maps(table: ResultTable, column: str) -> Figure | None:
    """The gain over the plain objective at each beta and tau_plus, with a panel for each family.

    Cells are marked whose 95 % interval excludes 0. None if no family has two betas and two tau_plus.
    """
    maps = gain_grids(table, column)
    if not maps:
        return None
    found = [d for grid in maps.values() for d in grid.to_numpy().ravel() if not pd.isna(d)]
    largest = max(abs(d.mean) for d in found)
    limit = 150 * largest  # the darkest colours would hide the numbers
    height, width = (max(grid.shape[i] for grid in maps.values()) for i in (0, 1))
    size = max(3.6, 1.8 + 0.55 * width), 0.7 + (0.9 + 0.45 * height) * len(maps)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (family, grid) in zip(np.atleast_1d(figure.subplots(len(maps))), maps.items(), strict=True):
        means = grid.map(lambda d: np.nan if pd.isna(d) else 100 * d.mean)
        image = axes.imshow(means, cmap="PuOr", vmin=-limit, vmax=limit, origin="lower", aspect="auto")
        for (y, x), d in np.ndenumerate(grid.to_numpy()):
            if not pd.isna(d):
                mark = "\n*" if d.excludes_zero else ""
                axes.text(x, y, f"{100 * d.mean:+.1f}{mark}", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(grid.shape[1]), [f"{beta:g}" for beta in grid.columns])
        axes.set_yticks(range(grid.shape[0]), [f"{tau_plus:g}" for tau_plus in grid.index])
        axes.set_xlabel("beta")
        axes.set_ylabel("tau_plus")
        axes.set_title(family or "default", fontsize=9)
        figure.colorbar(image, ax=axes, label="points")
    figure.suptitle(f"{column}: gain over plain\n* the 95 % interval excludes 0", fontsize=10)
    return figure
