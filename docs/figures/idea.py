"""Draw docs/figures/idea.svg: an anchor, its positive, and how much each negative weighs.

Run ``python docs/figures/idea.py`` in the checkout.
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

TEMPERATURE = 0.5
ANCHOR, POSITIVE = 90, 65  # angles in degrees
NEGATIVES = np.array([120, 148, 172, 200, 230, 262, 300, 335, 20])
BETAS = (0.0, 1.0, 2.0)
BLUE, GREEN, RED, GREY = "#2f7df0", "#2b9348", "#e5484d", "#7d8590"  # legible on white and on black


def point(angle: float, radius: float = 1.0) -> np.ndarray:
    return radius * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def weights(beta: float) -> np.ndarray:
    """The weights of the negatives, with mean 1 (Robinson et al., 2021, eq. 4)."""
    raw = np.exp(beta * np.cos(np.radians(NEGATIVES - ANCHOR)) / TEMPERATURE)
    return raw / raw.mean()


def draw(axes: plt.Axes, beta: float) -> None:
    axes.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY, linewidth=1))
    for angle, weight in zip(NEGATIVES, weights(beta), strict=True):
        x, y = point(angle)
        axes.scatter(x, y, s=150 * weight, color=RED, alpha=0.75, linewidth=0, zorder=3)
    for angle, color in ((POSITIVE, GREEN), (ANCHOR, BLUE)):
        axes.scatter(*point(angle), s=150, color=color, zorder=4)
    axes.text(*point(ANCHOR, 1.26), "anchor", color=BLUE, ha="center", va="center")
    axes.text(*point(POSITIVE - 12, 1.42), "positive", color=GREEN, ha="center", va="center")
    axes.text(*point(270, 0.55), "negatives", color=RED, ha="center", va="center")
    axes.set_title("plain: all weigh the same" if beta == 0 else f"hard, beta {beta:g}", pad=14, color=GREY)
    axes.set(xlim=(-1.4, 1.6), ylim=(-1.15, 1.4), aspect="equal")
    axes.axis("off")


def main() -> None:
    plt.rcParams.update({"font.size": 12, "svg.fonttype": "none", "svg.hashsalt": "idea"})
    figure, rows = plt.subplots(1, len(BETAS), figsize=(10, 3.3))
    for axes, beta in zip(rows, BETAS, strict=True):
        draw(axes, beta)
    figure.tight_layout()
    path = Path(__file__).with_suffix(".svg")
    figure.savefig(path, transparent=True, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main()
