"""Figures of records and samples, in colours that people of any colour vision can distinguish."""

import json
from collections.abc import Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import safetensors.numpy
from cycler import Cycler, cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from core.io.files import write_atomically

# Okabe and Ito's palette, which people with any colour vision can distinguish; marks do it in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES: "Cycler[str, Any]" = cycler(color=COLOURS) + cycler(marker=MARKS)
SIZE = (5.2, 3.4)  # inches

Sample = Mapping[str, np.ndarray]


def read_sample(folder: Path) -> Sample | None:
    """Read a run's ``sample.safetensors``; None if it is missing, damaged or cannot be drawn."""
    try:
        sample = safetensors.numpy.load_file(folder / "sample.safetensors")
    except (OSError, safetensors.SafetensorError, TypeError, LookupError):  # a dtype that NumPy lacks
        return None
    return sample if _can_be_drawn(sample) else None


def _can_be_drawn(sample: Sample) -> bool:
    """Whether the arrays have the shapes that ``Run.save_sample`` documents, and are finite."""
    points = sample.get("representations")
    if points is not None and (points.ndim != 2 or min(points.shape) < 2):
        return False
    if points is not None and "labels" in sample and sample["labels"].shape != points.shape[:1]:
        return False
    cosines = [sample[name].ndim for name in ("positives", "negatives") if name in sample]
    return cosines in ([], [1, 1]) and all(np.isfinite(value).all() for value in sample.values())


def score_against(axis: Literal["beta", "epochs"], rows: pd.DataFrame, title: str) -> Figure | None:
    """A score against hardness or the length of training: a point for each seed, a line through their means.

    ``rows`` are of one dataset and metric. There is a line for each family, tau_plus and version, as
    ``tables.label_versions`` gives it; against epochs one for each beta too. Dashed lines are the untrained
    encoders of the versions. None if all scores are at one place of the axis.
    """
    if rows[axis].nunique() < 2:
        return None
    if axis == "epochs":
        version, numbers = "version_at_any_length", ["beta", "tau_plus"]
    else:
        version, numbers = "version", ["tau_plus"]
    figure, axes = _axes(title, axis, "percent")
    for (_, line), style in zip(rows.groupby(["family", *numbers, version]), cycle(STYLES)):
        first = line.iloc[0]
        settings = [f"{number} {first[number]:g}" for number in numbers]
        name = ", ".join(filter(None, [*settings, first["family"], first[version]]))
        means = line.groupby(axis)["value"].mean()
        colour, mark = style["color"], style["marker"]
        axes.plot(line[axis], 100 * line["value"], mark, color=colour, alpha=0.35, markersize=4)
        axes.plot(means.index, 100 * means, mark, linestyle="-", color=colour, label=name)
    for parts, group in rows.dropna(subset="untrained").groupby(["encoder", version]):
        name = ", ".join(filter(None, ["untrained encoder", *parts]))
        by_seed = group.groupby("seed")["untrained"].mean()
        axes.axhline(100 * by_seed.mean(), color="0.4", linestyle="--", label=name)
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted(rows[axis].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.legend(frameon=False, fontsize=8)
    return figure


def training_curves(folders: Mapping[str, Path], title: str) -> Figure | None:
    """The loss of runs over their epochs; the scale of a loss depends on its objective."""
    figure, axes = _axes(title, "epoch", "loss")
    for label, folder in folders.items():
        try:
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            points = [(float(line["epoch"]), float(line["loss"])) for line in lines if "loss" in line]
        except (OSError, ValueError, OverflowError, LookupError, TypeError, RecursionError):
            continue
        if points:
            every = max(1, len(points) // 10)
            axes.plot(*zip(*points, strict=True), label=label, markersize=4, markevery=every)
    if not axes.lines:
        return None
    axes.legend(frameon=False, fontsize=8)
    return figure


def similarity_histograms(samples: Mapping[str, Sample], title: str) -> Figure | None:
    """Histograms of the cosines of positives and negatives, with a panel for each objective."""
    drawn = {label: sample for label, sample in samples.items() if "positives" in sample}
    if not drawn:
        return None
    figure = Figure(figsize=(SIZE[0], 1.1 + 1.15 * len(drawn)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(drawn), 1, sharex=True))
    edges = np.linspace(-1, 1, 61)
    for axes, (label, sample) in zip(panels, drawn.items(), strict=True):
        for name, colour, hatch in (("negatives", COLOURS[1], "//"), ("positives", COLOURS[0], "")):
            values = sample[name].astype(float)
            weights = np.full(len(values), 1 / max(len(values), 1))
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.6, hatch=hatch, label=name)
        axes.set_title(label, fontsize=8, loc="left")
        axes.set_yticks([])
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    panels[-1].set_xlabel("cosine")
    figure.suptitle(title, fontsize=10)
    return figure


def embedding_map(samples: Mapping[str, Sample], title: str) -> Figure | None:
    """The first two principal components of representations by class, with a panel for each objective.

    Without labels all have one colour.
    """
    drawn = {label: sample for label, sample in samples.items() if "representations" in sample}
    if not drawn:
        return None
    figure = Figure(figsize=(2.6 * len(drawn), 2.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(drawn)))
    for axes, (label, sample) in zip(panels, drawn.items(), strict=True):
        points = PCA(2).fit_transform(sample["representations"].astype(float))
        labels = sample.get("labels", np.zeros(len(points)))
        for i, class_ in enumerate(np.unique(labels)):
            chosen = points[labels == class_]
            # Once all colours have been used, they repeat with other marks.
            colour, mark = COLOURS[i % len(COLOURS)], MARKS[(i + i // len(COLOURS)) % len(MARKS)]
            axes.scatter(*chosen.T, s=8, color=colour, marker=mark, linewidths=0, alpha=0.7)
        axes.set_title(label, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.suptitle(title, fontsize=10)
    return figure


def alignment_against_uniformity(records: pd.DataFrame, title: str) -> Figure | None:
    """Alignment against uniformity, a point for each run; lower is better for both."""
    keys = ["label", "seed", "path"]
    table = records.pivot_table(index=keys, columns="metric", values="value").reset_index()
    if not {"alignment", "uniformity"} <= set(table.columns):
        return None
    figure, axes = _axes(title, "uniformity", "alignment")
    for label, rows in table.groupby("label", sort=False):
        axes.plot(rows["uniformity"], rows["alignment"], linestyle="", label=label)
    axes.legend(frameon=False, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as PNG and SVG, the same bytes for the same figure; ``path`` has no suffix."""
    paths = {kind: path.with_suffix(f".{kind}") for kind in ("png", "svg")}
    with rc_context({"svg.hashsalt": path.name}):
        for kind, written in paths.items():
            metadata = {"Date": None} if kind == "svg" else None
            write_atomically(written, partial(figure.savefig, format=kind, dpi=200, metadata=metadata))
    return list(paths.values())


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(STYLES)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes
