"""Result tables as text: for a terminal, in Markdown, CSV and LaTeX."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pandas as pd
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from shared_eval.result_table import Comparison, Content, ResultTable, Row

LATEX = {character: rf"\{character}" for character in "_%&#${}"}
LATEX |= {"^": r"\^{}", "~": r"\~{}", "\\": r"\textbackslash{}"}

Written = TypeVar("Written", str, Text)


def to_terminal(table: ResultTable, title: str, content: Content = "text") -> Table:
    """The table for a terminal; a significant gain over the baseline is bold.

    In a narrow terminal labels break between words; numbers never break.
    """
    rows = list(_rows(table, content, lambda text, is_better: Text(text, "bold" if is_better else "")))
    columns = []
    for i, name in enumerate(table.columns):
        head = Text(name.removesuffix("_accuracy").replace(" ", "\n", 1))
        width = max(_width(text) for text in [head, *(texts[i] for _, texts in rows)])
        columns.append(Column(head, no_wrap=True, min_width=width))
    drawn = Table("objective", *columns, title=title, title_justify="left")
    for row, texts in rows:
        drawn.add_row(Text(row.label), *texts)
    return drawn


def to_markdown(table: ResultTable, content: Content = "text") -> str:
    """The table in Markdown; a significant gain over the baseline is bold."""
    rows = _rows(table, content, lambda text, is_better: f"**{text}**" if is_better else text)
    return markdown(["objective", *table.columns], ([row.label, *texts] for row, texts in rows))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts as a table in Markdown."""
    lines = ([text.replace("|", r"\|") for text in line] for line in (head, ["---"] * len(head), *rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_csv(table: ResultTable) -> str:
    """One line for each comparison of a cell, or one: row, column, mean, seeds, difference, p values, ..."""
    lines = [
        {
            "objective": row.label,
            "kind": row.kind,
            "column": column,
            "mean": cell.mean,
            "deviation": cell.deviation,
            "seeds": None if row.kind == "published" else len(cell.scores),
            **_csv_comparison(comparison),
        }
        for row in table.rows
        for column in table.columns
        if (cell := row.cells.get(column)) is not None
        for comparison in cell.comparisons or [None]
    ]
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6g")


def _csv_comparison(comparison: Comparison | None) -> dict[str, Any]:
    """A comparison of a cell with a baseline; empty without one."""
    names = (
        "difference",
        "low",
        "high",
        "pairs",
        "p",
        "corrected_p",
        "baseline",
        "primary",
        "detectable",
        "equivalent",
    )
    if comparison is None:
        return dict.fromkeys(names)
    d = comparison.difference
    numbers = (d.mean, d.low, d.high, d.pairs, d.p, comparison.corrected_p)
    is_equivalent = d.is_equivalent if d.pairs > 1 else None
    known = (comparison.baseline, comparison.is_primary, comparison.detectable, is_equivalent)
    return dict(zip(names, (*numbers, *known), strict=True))


def to_latex(table: ResultTable, content: Content = "text") -> str:
    """The table in LaTeX, for the package booktabs; a significant gain over the baseline is bold."""
    lines: list[list[str] | str] = []
    kind = ""
    for row, texts in _rows(table, content, _latex_cell):
        if lines and row.kind != kind:
            lines.append(r"\midrule")
        kind = row.kind
        lines.append([_latex(row.label), *texts])
    return _booktabs(["objective", *table.columns], lines)


def latex(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts as a table in LaTeX, for the package booktabs."""
    return _booktabs(head, [[_latex_cell(text, is_better=False) for text in row] for row in rows])


def _booktabs(head: Sequence[str], lines: Iterable[Sequence[str] | str]) -> str:
    """A table of LaTeX cells; a line that is one text stands as it is."""
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'c' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(map(_latex, head)) + r" \\",
            r"\midrule",
            *(line if isinstance(line, str) else " & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            "\\end{tabular}\n",
        ]
    )


def _rows(
    table: ResultTable, content: Content, write: Callable[[str, bool], Written]
) -> Iterator[tuple[Row, list[Written]]]:
    """The rows that have any text, with what ``write`` makes of (text, is_better) for each column."""
    for row, texts in table.texts(content):
        if any(texts):
            cells = [row.cells.get(column) for column in table.columns]
            is_better = [cell is not None and cell.is_better for cell in cells]
            yield row, [write(*pair) for pair in zip(texts, is_better, strict=True)]


def _width(text: Text) -> int:
    return max(map(cell_len, text.plain.split("\n")))


def _latex_cell(text: str, is_better: bool) -> str:
    written = _latex(text).replace("±", r"$\pm$")
    return rf"\textbf{{{written}}}" if is_better else written


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
