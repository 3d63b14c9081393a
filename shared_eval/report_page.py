"""The report: one HTML page with tables, figures, and the records behind every number."""

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from core.io.errors import InputError
from core.io.files import read_json, write_atomically
from shared_eval import figures
from shared_eval.outputs import writing
from shared_eval.records import settings_of
from shared_eval.tables import (
    DESCRIPTIONS,
    NO_FIGURES,
    Published,
    label_versions,
    scores,
    summarise,
)

TEMPLATE = Path(__file__).parent / "report.html.jinja"

Run = Mapping[str, Any]  # a record and its settings, as the page shows them


def write_report(
    records: pd.DataFrame,
    output: Path,
    published: Published = NO_FIGURES,
    merge: bool = False,
    title: str = "hard-negatives",
) -> Path:
    """Write the page of some records, which needs neither a server nor a network, and return its path.

    Each number links to the records it comes from, each record to its settings and environment.
    """
    if records.empty:
        raise InputError("there are no valid records to report")
    table = summarise(scores(records), published, merge)
    parts = table.by_dataset()
    tables = ({"All of them": table} if len(parts) > 1 else {}) | parts
    datasets = split_by_dataset(label_versions(records, merge))
    runs = {path: describe_run(Path(path)) for path in records["path"].unique()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        title=title,
        tables=tables,
        plots=[(name, to_svg(figure)) for part in datasets for name, figure in figures_of(part).items()],
        runs=runs,
    )
    with writing(output):
        write_atomically(output, page)
    return output


def split_by_dataset(records: pd.DataFrame) -> list[pd.DataFrame]:
    """The records of each dataset."""
    return [group for _, group in records.groupby(["modality", "dataset"], sort=False)]


def describe_run(path: Path) -> Run:
    """A record and the settings beside it, as the page shows them."""
    record = read_json(path)
    return {
        "id": "run-" + re.sub(r"\W+", "-", str(path.parent)).strip("-"),
        "name": str(path.parent),
        "record": json.dumps(record, indent=2),
        "settings": json.dumps(settings_of(path.parent), indent=2),
        "seed": record["seed"],
    }


def to_svg(figure: Figure) -> str:
    """The figure as SVG, in base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return base64.b64encode(buffer.getvalue()).decode()


def figures_of(records: pd.DataFrame) -> dict[str, Figure]:
    """The figures of one dataset by title; ``records`` have a version, and figures of runs show one seed."""
    dataset = records["dataset"].iloc[0]
    first = records[records["seed"] == records["seed"].min()].sort_values(["beta", "tau_plus"], kind="stable")
    folders = {row["label"]: Path(row["path"]).parent for row in first.to_dict("records")}
    loaded = {label: figures.read_sample(folder) for label, folder in folders.items()}
    samples = {label: sample for label, sample in loaded.items() if sample is not None}
    scored = scores(records)
    with matplotlib.rc_context(
        {"text.parse_math": False}
    ):  # a dollar sign in a name must not start a formula
        drawn = {
            f"{dataset}: {metric} against beta": figures.accuracy_against_beta(scored, f"{dataset} {metric}")
            for metric in scored["metric"].unique()
            if metric not in DESCRIPTIONS
        }
        drawn |= {
            f"{dataset}: loss": figures.training_curves(folders, dataset),
            f"{dataset}: similarities": figures.similarity_histograms(samples, dataset),
            f"{dataset}: map of the embedding": figures.embedding_map(samples, dataset),
            f"{dataset}: alignment and uniformity": figures.alignment_against_uniformity(records, dataset),
        }
    return {title: figure for title, figure in drawn.items() if figure is not None}
