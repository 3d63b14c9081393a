"""What a table is planned to show: its primary comparisons, and published figures beside them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

LEVEL = 0.05  # a corrected p below this is significant

# What an objective is compared with at the same seeds: its counterpart at beta 0, of the same tau_plus, the
# plain objective of its family, and its encoder before training.
Baseline = Literal["beta 0", "plain", "untrained"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


class PublishedScore(NamedTuple):
    """A score of a paper or a repository, as a fraction."""

    value: float
    deviation: float | None = None  # as published: of seeds, or of what its source says


# By (label, column); the label begins with the source.
Published = Mapping[tuple[str, str], PublishedScore]
NO_FIGURES: Published = MappingProxyType({})


class Primary(NamedTuple):
    """A comparison that a recipe names; all others are exploratory."""

    column: str  # dataset and metric
    epochs: int
    family: str
    tau_plus: float
    beta: float
    baseline: Baseline


class Plan(NamedTuple):
    """The primary comparisons that are corrected together, whether all of them were run or not."""

    name: str
    size: int


Planned = Mapping[Primary, Plan]
NO_COMPARISONS: Planned = MappingProxyType({})


def smallest_p(pairs: int) -> float:
    """The two-sided p of Wilcoxon's test of so many pairs that all gain, or all lose."""
    return 2.0 ** (1 - pairs)


def planned_together(name: str, comparisons: Iterable[Primary]) -> dict[Primary, Plan]:
    """Primary comparisons that are one plan."""
    unique = dict.fromkeys(comparisons)
    return dict.fromkeys(unique, Plan(name, len(unique)))
