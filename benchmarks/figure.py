"""Time and memory over batch sizes, one line per subject."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from shared_eval.figures import COLOURS, MARKS, save

LINES = tuple(colour for colour in COLOURS if colour != "#F0E442")  # yellow lines vanish on white
PANELS = (
    ("median_seconds", 1, "seconds, forward and backward"),
    ("peak_bytes", 2**20, "peak memory without the embeddings, MiB"),
)


def write_figure(folder: Path, record: dict[str, Any]) -> str | None:
    """Write PART.png and PART.svg and return PART, or None if the part has no batch sizes."""
    comparisons = [comparison for comparison in record["comparisons"] if "batch" in comparison]
    if not comparisons:
        return None
    save(over_batches(comparisons, record), folder / record["part"])
    return record["part"]


def over_batches(comparisons: list[dict[str, Any]], record: dict[str, Any]) -> Figure:
    """A log-log panel for each measured quantity, with a line for each subject."""
    names = list(dict.fromkeys(name for comparison in comparisons for name in comparison["subjects"]))
    drawn = [panel for panel in PANELS if any(points_of(comparisons, name, panel[0]) for name in names)]
    figure = Figure(figsize=(4.8 * max(len(drawn), 1), 4.6), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(1, max(len(drawn), 1)))
    for axes, (key, unit, label) in zip(all_axes, drawn, strict=False):
        for i, name in enumerate(names):
            points = points_of(comparisons, name, key)
            x, y = [batch for batch, _ in points], [value / unit for _, value in points]
            axes.plot(x, y, MARKS[i % len(MARKS)], linestyle="-", color=LINES[i % len(LINES)], label=name)
        batches = [comparison["batch"] for comparison in comparisons]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(batches, [f"{batch:,}" for batch in batches], rotation=45, fontsize=8)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("batch size")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    handles = all_axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2 * len(all_axes), fontsize=8, frameon=False)
    where = record["environment"]
    figure.suptitle(f"{record['title']}: {where['device_name']}, {where['threads']} threads", fontsize=10)
    return figure


def points_of(comparisons: list[dict[str, Any]], name: str, key: str) -> list[tuple[int, float]]:
    """The batch sizes at which a subject was measured, with the values."""
    return [
        (comparison["batch"], comparison["subjects"][name][key])
        for comparison in comparisons
        if comparison["subjects"].get(name, {}).get(key)
    ]
