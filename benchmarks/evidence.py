"""The page of evidence: ``python -m benchmarks.evidence`` fills in its tables and figures from the records.

``benchmarks/results/README.md`` and the README are written by hand, but for what stands between
``<!-- begin KIND STUDIES: SELECTED -->`` and ``<!-- end -->``. KIND is a key of ``blocks.KINDS``, STUDIES are
folders with records, and SELECTED, separated by semicolons, are rows, columns, seeds, modalities or titles:
each kind says which. A study of thousands of runs has its records in one file, which ``python -m
shared_eval.records RUNS --csv STUDY/records.csv`` writes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from benchmarks.blocks import KINDS, figure_path
from benchmarks.measure import ROOT
from core.io.errors import InputError
from core.io.files import write_atomically
from core.training.cli import command, parse
from shared_eval.figures import save
from shared_eval.outputs import writing
from shared_eval.records import EXPORT, find_records, read_export, read_records
from shared_eval.reproduce.recipes import all_recipes, primary_comparisons_of, published_figures
from shared_eval.result_table import ResultTable
from shared_eval.table_figures import draw_table
from shared_eval.tables import scores, summarise

RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- begin (\w+) ([\w -]+?)(?:: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


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
        self.recipes = all_recipes()
        self.published = published_figures(self.recipes)

    @cache  # noqa: B019 -- lives as long as the command
    def table(self, names: str) -> ResultTable:
        """One table of the folders that ``names`` lists. Raises InputError if they have no records."""
        found = [records_of(self.results / name) for name in names.split()]
        if all(records.empty for records in found):
            raise InputError(f"{self.results} has no records of {names}")
        records = pd.concat([records for records in found if not records.empty], ignore_index=True)
        return summarise(scores(records), self.published, primary=primary_comparisons_of(names, self.recipes))


def records_of(study: Path) -> pd.DataFrame:
    """The records of a study: in one file, or in the folders of its runs."""
    export = study / EXPORT
    return read_export(export) if export.exists() else read_records(find_records([study]))


def fill(page: Path, studies: Studies) -> str:
    """The page's text with each block as the records have it. Raises InputError for an unknown block."""

    def made(block: re.Match[str]) -> str:
        begin, kind, names, selected, end = block.groups()
        if kind not in KINDS:
            raise InputError(f"{page} has a block {kind}, which is not one of {', '.join(KINDS)}")
        return begin + KINDS[kind](studies.table(names), listed(selected), page) + end

    return BLOCK.sub(made, page.read_text("utf-8"))


def draw(page: Path, studies: Studies) -> None:
    """Write the figures of the page's blocks. Raises InputError if two would share a file."""
    drawn_of: dict[Path, str] = {}  # the studies of each figure's file
    for _, kind, names, selected, _ in BLOCK.findall(page.read_text("utf-8")):
        if kind == "figures":
            drawn = draw_table(studies.table(names))
            for title in listed(selected):
                if title not in drawn:
                    raise InputError(f"the table of {names} has no figure {title}, only {'; '.join(drawn)}")
                path = figure_path(title, page)
                if drawn_of.setdefault(path, names) != names:
                    raise InputError(f"{page} has the figure {title} of {drawn_of[path]} and of {names}")
                with writing(path):
                    save(drawn[title], path)


def listed(selected: str | None) -> list[str]:
    return selected.split("; ") if selected else []


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EvidenceConfig, argv, "python -m benchmarks.evidence")
    studies = Studies(config.results)
    for page in config.pages:
        draw(page, studies)
        write_atomically(page, fill(page, studies))


if __name__ == "__main__":
    main()
