"""What is shown and written of a table's finished runs."""

from collections.abc import Sequence
from pathlib import Path

from core.io.errors import TrainingError
from shared_eval.outputs import fits, show, text_table, write_output
from shared_eval.records import read_records
from shared_eval.report_page import draw, write_report
from shared_eval.reproduce.recipes import Recipe, primary_comparisons, published_figures
from shared_eval.result_table import Content, ResultTable
from shared_eval.summary import PARTS
from shared_eval.table_formats import latex, markdown, to_csv, to_latex, to_markdown, to_terminal
from shared_eval.tables import label_versions, scores, summarise

TITLES: dict[Content, str] = {
    "text": "accuracy in percent, mean ± standard deviation (seeds)",
    "difference_text": "difference to beta 0, or to plain, at the same seeds: points [95 % interval], "
    "Wilcoxon's p, corrected by Holm if primary; in parentheses the uncorrected p of an exploratory one",
}


def write_results(
    recipes: Sequence[Recipe], paths: Sequence[Path], root: Path, outputs: Sequence[Path], merge: bool
) -> None:
    """Print the table of the records at ``paths``, and write it to ``outputs`` and the report below ``root``.

    ``merge`` averages records of different code or settings.
    """
    records = read_records(paths)
    table = summarise(scores(records), published_figures(recipes), merge, primary_comparisons(recipes))
    if not table.rows:
        raise TrainingError(f"the table has no rows: none of {len(paths)} records has a score")
    show_table(table)
    for path in outputs:
        write_output(path, table_text(table, path.suffix))
    records = label_versions(records, merge)
    drawn = draw(records, table)
    show(f"report: {write_report(records, table, drawn, root / 'report.html')}")


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
