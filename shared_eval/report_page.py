"""The report: one HTML page with tables, figures, and the records behind every number."""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from core.io.digests import checksum
from core.io.files import read_json
from shared_eval import figures
from shared_eval.gallery import rows_of, template
from shared_eval.outputs import write_output
from shared_eval.planned import NO_COMPARISONS, NO_FIGURES, Planned, Published
from shared_eval.records import settings_of
from shared_eval.result_table import ResultTable
from shared_eval.shown import embeddings_of, shown_items
from shared_eval.summary import PARTS
from shared_eval.table_figures import GAINS, draw_table
from shared_eval.tables import DESCRIPTIONS, RUN, dataset_names, label_versions, scores, summarise

OBJECTIVES_BESIDE = 3  # whose neighbours are compared
QUERIES = 4  # of a dataset, with their neighbours
MAX_PANELS = 8  # objectives in one figure of runs: as many as there are colours

Run = Mapping[str, Any]  # a record and its settings, as the page shows them


@dataclass(frozen=True)
class Study:
    """Records, and what a page shows of them."""

    records: pd.DataFrame  # as label_versions returns them
    table: ResultTable  # what summarise makes of them
    file: str = ""  # that has them all; empty if each has its own

    @classmethod
    def of(
        cls,
        records: pd.DataFrame,
        published: Published = NO_FIGURES,
        primary: Planned = NO_COMPARISONS,
        merge: bool = False,
        file: str = "",
    ) -> "Study":
        """The study of some records; arguments as those of ``summarise``."""
        table = summarise(scores(records), published, merge, primary)
        return cls(label_versions(records, merge), table, file)

    @cached_property
    def drawn(self) -> dict[str, Figure]:
        """The figures by title."""
        return draw(self.records, self.table)


def write_report(studies: Iterable[Study], output: Path) -> Path:
    """Write the page of some studies, which needs neither a server nor a network, and return its path.

    Each number links to the records it comes from, each record to its settings and environment. Records that
    are kept in one file have no such links.
    """
    sections = [section(study) for study in studies]
    page = template("report").render(
        sections=sections, records=sum(each["records"] for each in sections), gains_title=GAINS
    )
    write_output(output, page)
    return output


def section(study: Study) -> dict[str, Any]:
    """What the page shows of a study."""
    parts = study.table.by_dataset()
    paths = [] if study.file else list(study.records["path"].unique())
    plots = {title: to_svg(figure) for title, figure in study.drawn.items()}
    return {
        "file": study.file,
        "records": len(study.records.drop_duplicates([*RUN])),
        "tables": ({"All of them": study.table} if len(parts) > 1 else {}) | parts,
        "parts": [
            (part.name, part.title, part.head, rows) for part in PARTS if (rows := part.rows(study.table))
        ],
        "gains": plots.pop(GAINS, None),
        "plots": plots,
        "neighbours": neighbours_of(study.records),
        "runs": {path: describe_run(Path(path)) for path in paths},
    }


def draw(records: pd.DataFrame, table: ResultTable) -> dict[str, Figure]:
    """The figures of a table, and those of each dataset, by title; ``records`` have a version."""
    # A dollar sign in a name must not start a formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        drawn = draw_table(table)
        for name, group in by_dataset(records):
            drawn |= draw_dataset(name, group)
    return drawn


def neighbours_of(records: pd.DataFrame) -> dict[str, list[Any]]:
    """By dataset: a few items, and those nearest to them before training and after it by some objectives.

    Runs whose items are not those of the first, as with other tasks, are left out.
    """
    found = {}
    for name, group in by_dataset(records):
        samples = read_samples(first_runs(group, at_most=OBJECTIVES_BESIDE))
        shown = {label: shown_items(sample) for label, sample in samples.items()}
        items = next(filter(None, shown.values()), [])
        alike = {label: sample for label, sample in samples.items() if shown[label] == items}
        if embeddings := embeddings_of(alike, len(items)):
            found[name] = rows_of(items, embeddings, queries=QUERIES)
    return found


def by_dataset(records: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The records of each dataset by its name, as in the table's columns."""
    return [(str(name), group) for name, group in records.groupby(dataset_names(records), sort=False)]


def first_runs(records: pd.DataFrame, at_most: int) -> dict[str, Path]:
    """The folders of the lowest seed's runs by label, evenly from the least to the hardest objective."""
    first = records[records["seed"] == records["seed"].min()].sort_values(["beta", "tau_plus"], kind="stable")
    first = first.drop_duplicates("label")
    if len(first) > at_most:
        first = first.iloc[np.linspace(0, len(first) - 1, at_most).round().astype(int)]
    return {row["label"]: Path(row["path"]).parent for row in first.to_dict("records")}


def read_samples(folders: Mapping[str, Path]) -> dict[str, figures.Sample]:
    """The samples of runs that have one, by label."""
    loaded = {label: figures.read_sample(folder) for label, folder in folders.items()}
    return {label: sample for label, sample in loaded.items() if sample is not None}


def describe_run(path: Path) -> Run:
    """A record and the settings beside it, as the page shows them."""
    record = read_json(path)
    return {
        "id": "run-" + checksum([str(path.parent)])[:12],
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


def draw_dataset(name: str, records: pd.DataFrame) -> dict[str, Figure]:
    """The figures of one dataset by title; ``records`` have a version, and figures of runs show one seed."""
    folders = first_runs(records, at_most=MAX_PANELS)
    samples = read_samples(folders)
    scored = scores(records)
    drawn = {
        f"{name}: {metric} against {axis}": figures.score_against(axis, rows, f"{name} {metric}")
        for metric, rows in scored.groupby("metric", sort=False)
        if metric not in DESCRIPTIONS
        for axis in ("beta", "epochs")
    }
    drawn |= {
        f"{name}: loss": figures.training_curves(folders, name),
        f"{name}: similarities": figures.similarity_histograms(samples, name),
        f"{name}: map of the embedding": figures.embedding_map(samples, name),
        f"{name}: alignment and uniformity": figures.alignment_against_uniformity(records, name),
    }
    return {title: figure for title, figure in drawn.items() if figure is not None}
