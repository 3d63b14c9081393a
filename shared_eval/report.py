"""Write a page of tables, figures and the records behind them: ``python -m shared_eval.report``."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from core.io.errors import InputError
from core.training.cli import command, parse
from shared_eval.outputs import check_output, show, writing
from shared_eval.records import (
    EXPORT,
    check_folders,
    find_records_and_exports,
    read_export,
    read_records,
    warn_failed_runs,
    warn_repeated_seeds,
)
from shared_eval.reproduce.recipes import all_recipes, primary_comparisons_of, published_figures, read_recipe

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write a page about the records of finished runs."""

    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Folders to search."""
    recipes: tuple[Path, ...] = ()
    """Files of recipes whose primary comparisons and published figures count, beside those that come with the
    project."""
    output: Path = Path("report.html")
    """File of the page."""
    figures: Path | None = None
    """Folder for every figure, as PNG and SVG; by default figures are only in the page."""
    mix: bool = False
    """Average records of different code, settings or epochs, which otherwise get rows of their own."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv, "python -m shared_eval.report")
    check_output(config.output, overwrite=True, suffixes=(".html",))
    check_folders(config.roots)
    recipes = [*all_recipes(), *map(read_recipe, config.recipes)]
    paths, exports = find_records_and_exports(config.roots)
    if not paths and not exports:
        where = ", ".join(map(str, config.roots))
        raise InputError(f"no result.json or {EXPORT} below {where}; name a folder of runs")
    warn_failed_runs(config.roots)
    # Imported here because matplotlib and SciPy are slow, and help and errors do not need them.
    from shared_eval import figures
    from shared_eval.report_page import Study, write_report

    published = published_figures(recipes)
    studies = []
    for file, records in {"": read_records(paths), **read_exports(exports)}.items():
        primary = primary_comparisons_of(Path(file).parent.name, recipes)
        if not records.empty:
            warn_repeated_seeds(records)
            studies.append(Study.of(records, published, primary, config.mix, file))
    if not studies:
        raise InputError("there are no valid records to report")
    show(str(write_report(studies, config.output)))
    if config.figures is None:
        return
    drawn = [
        (f"{Path(study.file).parent.name} {title}", figure)
        for study in studies
        for title, figure in study.drawn.items()
    ]
    for name, (_, figure) in zip(file_names(title for title, _ in drawn), drawn, strict=True):
        with writing(config.figures / name):
            figures.save(figure, config.figures / name)


def read_exports(paths: Iterable[Path]) -> "dict[str, pd.DataFrame]":
    """The records of each file that has those of many runs; a warning names files that have none."""
    found = {}
    for path in paths:
        try:
            found[str(path)] = read_export(path)
        except InputError as error:
            print(f"warning: {error}; it is skipped", file=sys.stderr)
    return found


def file_names(titles: Iterable[str]) -> list[str]:
    """A name for each title, without its signs; those that would be equal are numbered."""
    names: list[str] = []
    for title in titles:
        plain = name = re.sub(r"\W+", "-", title).strip("-")
        number = 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


if __name__ == "__main__":
    main()
