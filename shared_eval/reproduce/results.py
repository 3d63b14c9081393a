"""What is shown and written of a table's finished runs."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from core.io.errors import TrainingError
from shared_eval.outputs import fits, show, text_table, write_output
from shared_eval.planned import Planned, Primary, Published
from shared_eval.records import read_records
from shared_eval.report_page import Study, write_report
from shared_eval.reproduce.recipes import Recipe, primary_comparisons, published_figures
from shared_eval.result_table import Content, ResultTable
from shared_eval.summary import PARTS
from shared_eval.table_formats import latex, markdown, to_csv, to_latex, to_markdown, to_terminal
from shared_eval.tables import as_primary

TITLES: dict[Content, str] = {
    "text": "accuracy in percent, mean ± standard deviation (seeds)",
    "difference_text": "difference to beta 0, or to plain, at the same seeds: points [95 % interval], "
    "Wilcoxon's p, corrected by Holm if primary; in parentheses the uncorrected p of an exploratory one",
}


def write_results(
    recipes: Sequence[Recipe],
    paths: Sequence[Path],
    page: Path,
    outputs: Sequence[Path],
    merge: bool,
    is_whole: bool = True,
) -> None:
    """Print the table of the records at ``paths``, and write it to ``outputs``, and the report to ``page``.

    ``merge`` averages records of different code or settings. What the recipes plan and the table lacks is
    named on stderr if it ``is_whole``: if it was to have all objectives of the recipes.
    """
    records = read_records(paths)
    published, primary = published_figures(recipes), primary_comparisons(recipes)
    study = Study.of(records, published, primary, merge)
    table = study.table
    if not table.rows:
        raise TrainingError(f"the table has no rows: none of {len(paths)} records has a score")
    for line in missing_from(table, records, published, primary) if is_whole else ():
        print(f"warning: {line}", file=sys.stderr)
    show_table(table)
    for path in outputs:
        write_output(path, table_text(table, path.suffix.lower()))
    show(f"report: {write_report([study], page)}")


def missing_from(
    table: ResultTable, records: pd.DataFrame, published: Published, primary: Planned
) -> Iterator[str]:
    """A line for each planned comparison and published column that the table does not have.

    Only datasets that have records count, and of comparisons only lengths of training that have some.
    """
    made = {
        as_primary(row, column, table.names[column], comparison.baseline)
        for row, column, comparison in table.comparisons()
    }
    lengths = set(zip(records["dataset"], records["epochs"], strict=True))
    for planned, plan in primary.items():
        if planned not in made and (_dataset(planned.column), planned.epochs) in lengths:
            numbers = f"beta {planned.beta:g}, tau_plus {planned.tau_plus:g}, family {planned.family!r}"
            compared = f"{planned.column} of {numbers} with {planned.baseline}"
            yield f"{plan.name} plans to compare {compared}, but {_why_not(planned, table)}"
    for column in dict.fromkeys(column for _, column in published):
        if column not in table.columns and _dataset(column) in set(records["dataset"]):
            yield f"published figures of {column} are not shown: {_columns_of(column, table)}"


def _why_not(planned: Primary, table: ResultTable) -> str:
    column, numbers = planned.column, (planned.tau_plus, planned.beta)
    if column not in table.columns:
        return _columns_of(column, table)
    cells = {r.point: r.cells[column] for r in table.rows if r.point is not None and column in r.cells}
    epochs = {p.family: cell.epochs for p, cell in cells.items() if (p.tau_plus, p.beta) == numbers}
    if planned.family not in epochs:
        named = " and ".join(sorted(map(repr, epochs)))
        return f"in the table the family is {named}" if epochs else "the table has no run of these numbers"
    if epochs[planned.family] is None:
        return "the table mixes lengths of training"
    return f"there are no runs of {planned.baseline} at its seeds and epochs"


def _columns_of(column: str, table: ResultTable) -> str:
    """What a message says of the columns that a dataset has instead of this one."""
    dataset = _dataset(column)
    own = [name for name in table.columns if _dataset(name) == dataset]
    return f"the table has {', '.join(own) or f'no score of {dataset}'}"


def _dataset(column: str) -> str:
    return column.rpartition(" ")[0]


def show_table(table: ResultTable) -> None:
    """Print a table, its differences if any is tested, and what it answers.

    Scores and differences are printed by dataset if the terminal is too narrow.
    """
    for content, title in TITLES.items():
        if content == "difference_text" and not table.has_tests:
            continue
        tables = [to_terminal(table, title, content)]
        if not fits(tables[0]):
            parts = table.by_dataset().items()
            tables = [to_terminal(part, f"{dataset}: {title}", content) for dataset, part in parts]
        for drawn in tables:
            show(drawn)
    for part in PARTS:
        if rows := part.rows(table):
            show(text_table(part.head, rows, f"{part.name}, {part.title}"))


def table_text(table: ResultTable, suffix: str) -> str:
    """The table as the text of a file with this suffix, its differences included."""
    if suffix == ".csv":
        return to_csv(table)  # its lines have the differences
    write, write_part = (to_markdown, markdown) if suffix == ".md" else (to_latex, latex)
    parts = [write(table), *([write(table, "difference_text")] if table.has_tests else [])]
    parts += [write_part(part.head, rows) for part in PARTS if (rows := part.rows(table))]
    return "\n".join(parts)
