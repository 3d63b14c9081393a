"""What a table answers: its primary comparisons, and mean gains and ranks over the datasets of a modality."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shared_eval.planned import BASELINES, Baseline
from shared_eval.result_table import Comparison, ResultTable, Row, at_version, in_brackets, points
from shared_eval.statistics import Interval, Ranks, mean_over_datasets, mean_ranks

PRIMARY_TITLE = (
    "named by a recipe: points [95 % interval], Wilcoxon's p corrected by Holm for the planned number; "
    "detectable: the true difference that a t-test of so many seeds finds four times in five, empty where so "
    "few in all comparisons could not be significant; equivalent: whether the 90 % interval, "
    "beside it, lies within ± 1 point"
)
PRIMARY_HEAD = ("comparison", "with", "difference", "p (Holm)", "seeds", "detectable", "equivalent")
MODALITIES_TITLE = (
    "mean difference in points [95 % interval over datasets, or over the seeds of one], and mean ranks at "
    "the seeds that all have, 1 the best, which differ at 5 % by the critical difference (Nemenyi)"
)
MODALITIES_HEAD = ("modality", "what", "value", "datasets")


class Answer(NamedTuple):
    """A primary comparison, and where it is in the table."""

    row: Row
    column: str
    comparison: Comparison


@dataclass(frozen=True)
class ModalitySummary:
    """The primary columns of a modality together, of one objective, and one version of code and settings."""

    modality: str  # with the objective and the version, if there are several
    columns: list[str]
    gains: dict[Baseline, Interval]  # of the primary objective over each of its baselines
    ranks: Ranks | None  # of the rows that have every column, at common seeds; None for one row or column


def answers(table: ResultTable) -> list[Answer]:
    """The primary comparisons of a table, dataset by dataset."""
    return [Answer(*found) for found in table.comparisons() if found[2].is_primary]


def summarise_modalities(table: ResultTable) -> list[ModalitySummary]:
    """A summary of each primary objective of each modality."""
    groups: dict[tuple[str, str], dict[str, list[Answer]]] = {}
    for answer in answers(table):
        group = groups.setdefault((table.modalities[answer.column], answer.row.version), {})
        group.setdefault(answer.row.label, []).append(answer)
    return [
        _summarise(
            table, at_version(modality, version) if len(group) == 1 else f"{modality}, {label}", primary
        )
        for (modality, version), group in groups.items()
        for label, primary in group.items()
    ]


def _summarise(table: ResultTable, name: str, primary: list[Answer]) -> ModalitySummary:
    columns, version = list(dict.fromkeys(answer.column for answer in primary)), primary[0].row.version
    gains = {}
    for baseline in BASELINES:
        own = [answer.comparison.difference for answer in primary if answer.comparison.baseline == baseline]
        if own:
            gains[baseline] = mean_over_datasets([difference.differences for difference in own])
    everywhere = [
        row
        for row in table.rows
        if row.kind in ("untrained", "objective")
        and row.version == version
        and set(columns) <= row.cells.keys()
    ]
    ranks = _ranks(everywhere, columns) if len(columns) > 1 and len(everywhere) > 1 else None
    return ModalitySummary(name, columns, gains, ranks)


def _ranks(rows: list[Row], columns: list[str]) -> Ranks | None:
    """The mean ranks of rows, in each column at the seeds that all of them have; None if there are none."""
    means: dict[str, list[float]] = {row.label: [] for row in rows}
    for column in columns:
        seeds = set.intersection(*(set(row.cells[column].scores) for row in rows))
        if not seeds:
            return None
        for row in rows:
            scores = row.cells[column].scores
            means[row.label].append(sum(scores[seed] for seed in sorted(seeds)) / len(seeds))
    return mean_ranks(means)


def primary_rows(table: ResultTable) -> list[list[str]]:
    """The lines below PRIMARY_HEAD."""
    rows = []
    for row, column, comparison in answers(table):
        d = comparison.difference
        p = "" if comparison.corrected_p is None else f"{comparison.corrected_p:.3f}"
        detectable = "" if np.isnan(comparison.detectable) else f"{100 * comparison.detectable:.1f}"
        answer = "yes" if d.is_equivalent else "no"
        equivalent = "" if d.pairs == 1 else f"{answer} {in_brackets(*d.narrower, digits=2)}"
        named = f"{column}: {row.label}"
        rows.append([named, comparison.baseline, comparison.points, p, str(d.pairs), detectable, equivalent])
    return rows


def modality_rows(table: ResultTable) -> list[list[str]]:
    """The lines below MODALITIES_HEAD."""
    rows = []
    for summary in summarise_modalities(table):
        for baseline, gain in summary.gains.items():
            text = points(gain.estimate, gain.low, gain.high)
            rows.append([summary.modality, f"primary objective - {baseline}", text, str(gain.datasets)])
        if summary.ranks:
            count = str(summary.ranks.datasets)
            for label, rank in sorted(summary.ranks.means.items(), key=lambda item: item[1]):
                rows.append([summary.modality, f"mean rank: {label}", f"{rank:.2f}", count])
            critical = f"{summary.ranks.critical:.2f}"
            rows.append([summary.modality, "critical difference of mean ranks", critical, count])
    return rows


@dataclass(frozen=True)
class Part:
    """A table of texts beside the table of scores."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: Callable[[ResultTable], list[list[str]]]


PARTS = (
    Part("primary comparisons", PRIMARY_TITLE, PRIMARY_HEAD, primary_rows),
    Part("over the datasets of a modality", MODALITIES_TITLE, MODALITIES_HEAD, modality_rows),
)
