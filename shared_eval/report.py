"""One page of everything: tables, figures, and the records behind them: ``python -m shared_eval.report``."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import matplotlib
import pandas as pd
import tyro
from matplotlib.figure import Figure

from core.io.errors import InputError
from core.io.files import read_json, write_atomically
from core.training.cli import command, parse
from shared_eval import figures
from shared_eval.outputs import show, writing
from shared_eval.recipes import all_recipes, published_by
from shared_eval.records import find_records, read_records, settings_of
from shared_eval.tables import NOTHING, Published, ResultTable, scores, summarise, told_apart

TEMPLATE = Path(__file__).parent / "report.html.jinja"


def write_report(
    records: pd.DataFrame,
    output: Path,
    published: Published = NOTHING,
    mix: bool = False,
    title: str = "hard-negatives",
) -> Path:
    """Write one HTML file about some records, which needs neither server nor network.

    Each number names the records it came from, each record its settings and environment.
    """
    if records.empty:
        raise InputError("there are no whole records to report")
    whole = summarise(scores(records), published, mix)
    parts = whole.by_dataset()
    tables = [("All of them", whole)] if len(parts) > 1 else []
    tables += parts.items()
    by_dataset = each_dataset(told_apart(records, mix))
    runs = {path: describe_run(Path(path)) for path in records["path"].unique()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        title=title,
        tables=[(name, rows_of(table, runs), table.columns) for name, table in tables],
        plots=[(title, as_svg(figure)) for of in by_dataset for title, figure in figures_of(of).items()],
        runs=runs.values(),
        count=len(runs),
    )
    with writing(output):
        write_atomically(output, page)
    return output


def each_dataset(records: pd.DataFrame) -> list[pd.DataFrame]:
    """The records of one dataset after the other."""
    return [of_dataset for _, of_dataset in records.groupby(["modality", "dataset"], sort=False)]


def describe_run(path: Path) -> dict[str, Any]:
    """A record, and the settings beside it, as the page shows them."""
    record = read_json(path)
    return {
        "id": "run-" + re.sub(r"\W+", "-", str(path.parent)).strip("-"),
        "name": str(path.parent),
        "record": json.dumps(record, indent=2),
        "settings": json.dumps(settings_of(path.parent), indent=2),
        "seed": record["seed"],
    }


def rows_of(table: ResultTable, runs: dict[str, dict]) -> list[dict[str, Any]]:
    """The rows of a table as the template takes them."""
    rows = []
    for row in table.rows:
        cells = []
        for column in table.columns:
            cell = row.cells.get(column)
            if cell is None:
                cells.append(None)
                continue
            cells.append(
                {
                    "text": row.text(column),
                    "value": cell.mean,
                    "better": cell.is_better,
                    "difference": cell.difference_text,
                    "runs": [runs[path] for path in cell.records],
                }
            )
        rows.append({"label": row.label, "kind": row.kind, "cells": cells})
    return rows


def as_svg(figure: Figure) -> str:
    """The figure as SVG, in base64."""
    text = io.BytesIO()
    figure.savefig(text, format="svg")
    return base64.b64encode(text.getvalue()).decode()


@matplotlib.rc_context({"text.parse_math": False})  # a dollar sign in a name begins no formula
def figures_of(records: pd.DataFrame) -> dict[str, Figure]:
    """The figures of one dataset's records, told apart, by title; of runs, those of the first seed."""
    dataset = records["dataset"].iloc[0]
    first = records[records["seed"] == records["seed"].min()].sort_values(["beta", "tau_plus"], kind="stable")
    folders = {row["label"]: Path(row["path"]).parent for _, row in first.iterrows()}
    read = {label: figures.read_sample(folder) for label, folder in folders.items()}
    samples = {label: sample for label, sample in read.items() if sample is not None}
    good = scores(records)
    made = {
        f"{dataset}: {metric} against beta": figures.accuracy_against_beta(good, f"{dataset} {metric}")
        for metric in good["metric"].unique()
    }
    made |= {
        f"{dataset}: loss": figures.training_curves(folders, dataset),
        f"{dataset}: similarities": figures.similarity_histograms(samples, dataset),
        f"{dataset}: map of the embedding": figures.embedding_map(samples, dataset),
        f"{dataset}: alignment and uniformity": figures.alignment_against_uniformity(records, dataset),
    }
    return {title: figure for title, figure in made.items() if figure is not None}


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write a page about the records of finished runs."""

    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Folders to look in."""
    output: Path = Path("report.html")
    """The page."""
    figures: Path | None = None
    """Write every figure there as well, as PNG and SVG."""
    mix: bool = False
    """Average records of different code or settings, which else get rows of their own."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv, "python -m shared_eval.report")
    paths = find_records(config.roots)
    if not paths:
        raise InputError(f"no result.json below {', '.join(map(str, config.roots))}; name a folder of runs")
    records = read_records(paths)
    show(str(write_report(records, config.output, published_by(all_recipes()), config.mix)))
    if config.figures is None:
        return
    for of_dataset in each_dataset(told_apart(records, config.mix)):
        for title, figure in figures_of(of_dataset).items():
            path = config.figures / re.sub(r"\W+", "-", title)
            with writing(path):
                figures.save(figure, path)


if __name__ == "__main__":
    main()
