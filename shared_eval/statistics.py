"""Paired differences between two objectives at the same seeds: intervals, tests, and what they can show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from shared_eval.planned import LEVEL

POWER = 0.8
FLIPS = 10_000  # of the seeds' signs, in a test of many intervals together
MARGIN = 0.01  # differences within one point are equivalent
DIGITS = 7  # of a difference: 0.9 - 0.8 and 0.3 - 0.2 are a tie, also where scores are float32 of old records


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with its 95 % interval and Wilcoxon's signed-rank p."""

    mean: float
    low: float  # nan, like the two below, if there is only one pair
    high: float
    p: float
    differences: tuple[float, ...] = field(repr=False)  # one for each pair

    @property
    def pairs(self) -> int:
        return len(self.differences)

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the differences; nan for one pair."""
        return float(np.std(self.differences, ddof=1)) if self.pairs > 1 else np.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval does."""
        return self.low > 0 or self.high < 0

    @property
    def narrower(self) -> tuple[float, float]:
        """The mean's 90 % interval, by which equivalence is decided; nan for one pair."""
        return t_interval(self.differences, 1 - 2 * LEVEL)

    @property
    def is_equivalent(self) -> bool:
        """Whether the mean's 90 % interval lies within a point: two one-sided t-tests (TOST) at 5 %."""
        low, high = self.narrower
        return max(-low, high) < MARGIN

    @property
    def detectable(self) -> float:
        """The smallest true difference that so many pairs show four times in five; nan for one pair."""
        return smallest_detectable(self.deviation, self.pairs)


def paired_difference(values: ArrayLike, baseline: ArrayLike) -> Difference:
    """The differences ``values - baseline``, pair by pair, tested two-sided: [n], [n].

    The smallest p of five pairs is 0.0625: fewer than six are never significant at 0.05. Raises ValueError
    unless there is a pair, and all are finite.
    """
    ours, theirs = np.asarray(values, float), np.asarray(baseline, float)
    if ours.ndim != 1 or ours.shape != theirs.shape or not len(ours):
        shapes = f"{list(ours.shape)} and {list(theirs.shape)}"
        raise ValueError(f"the scores have shapes {shapes}; both must be [n], with one pair or more")
    differences = (ours - theirs).round(DIGITS)
    if not np.isfinite(differences).all():
        raise ValueError("the scores are not all finite")
    mean, count = float(differences.mean()), len(differences)
    if count == 1:
        return Difference(mean, np.nan, np.nan, np.nan, (mean,))
    low, high = t_interval(differences, 1 - LEVEL)
    return Difference(mean, low, high, signed_rank_p(differences), tuple(differences.tolist()))


def t_interval(values: ArrayLike, level: float) -> tuple[float, float]:
    """The interval of the mean by the t distribution: [n] -> low, high; nan for one value.

    A bootstrap's 95 % interval of eight values covers the mean 90 times in 100, this one 95 times.
    """
    from scipy.stats import t  # slow to import

    values = np.asarray(values, float)
    if len(values) == 1:
        return np.nan, np.nan
    reach = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def signed_rank_p(differences: np.ndarray) -> float:
    """The two-sided p of Wilcoxon's signed-rank test (1945): exact, also with ties; zeros are left out."""
    from scipy.stats import rankdata

    nonzero = differences[differences != 0]
    ranks = (2 * rankdata(abs(nonzero))).astype(int)  # twice each rank: an integer also where some share it
    # The share of all combinations of signs that have each sum of the gains' ranks.
    shares = np.zeros(ranks.sum() + 1)
    shares[0] = 1
    for rank in ranks:
        shares = (shares + np.concatenate([np.zeros(rank), shares[:-rank]])) / 2
    gains = ranks[nonzero > 0].sum()
    return float(min(1, 2 * min(shares[: gains + 1].sum(), shares[gains:].sum())))


def smallest_detectable(deviation: float, pairs: int) -> float:
    """The true mean difference that a paired t-test finds with 80 % power, two-sided at 5 %.

    ``deviation`` is that of the differences; power is by the noncentral t distribution. nan for one pair.
    """
    from scipy.special import nctdtrinc
    from scipy.stats import t

    if pairs < 2:
        return np.nan
    freedom = pairs - 1
    # The noncentrality at which a share of 1 - POWER of t statistics misses the critical value. Those beyond
    # the opposite one, which the test would find too, are fewer than one in ten thousand.
    shift = nctdtrinc(freedom, 1 - POWER, t.ppf(1 - LEVEL / 2, freedom))
    return float(shift * deviation / np.sqrt(pairs))


def holm(p_values: ArrayLike, planned: int = 0) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down method (1979): [n] -> [n].

    Where more tests are ``planned`` than there are, the missing ones count as having the largest p.
    """
    p = np.asarray(p_values, float)
    order = p.argsort(kind="stable")
    stepped = np.maximum.accumulate(p[order] * (max(planned, len(p)) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = stepped.clip(max=1)
    return corrected


def chance_of_as_many(differences: ArrayLike) -> float:
    """The p of how many of several 95 % intervals lie on one side of 0: [cells, seeds] differences.

    The cells share their seeds, so that one may follow from another. If nothing differs, and differences are
    symmetric, the sign of all differences of a seed is random: it is drawn FLIPS times, and the intervals on
    one side are counted. Raises ValueError below two seeds.
    """
    from scipy.stats import t

    differences = np.asarray(differences, float)
    seeds = differences.shape[1]
    if seeds < 2:
        raise ValueError(f"the differences have {seeds} seeds; two are needed for an interval")
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, seeds))
    means = np.vstack([np.ones(seeds), signs]) @ differences.T / seeds  # the observed ones, then chance's
    variances = (np.mean(differences**2, axis=1) - means**2) * seeds / (seeds - 1)
    reach = t.ppf(1 - LEVEL / 2, seeds - 1) * np.sqrt(variances.clip(min=0) / seeds)
    largest = np.maximum((means > reach).sum(1), (means < -reach).sum(1))
    return float(np.mean(largest >= largest[0]))


@dataclass(frozen=True)
class Interval:
    """An estimate, its 95 % interval, and the number of datasets that it is of."""

    estimate: float
    low: float
    high: float
    datasets: int


def mean_over_datasets(differences: Sequence[ArrayLike]) -> Interval:
    """The mean of datasets' mean differences, [seeds] of each, with its t interval over the datasets.

    The interval is about other datasets of this kind, not about these alone. With one dataset it is that of
    its seeds. A bootstrap over datasets is too narrow: that of two covers the mean 50 times in 100.
    """
    means = [float(np.asarray(values, float).mean()) for values in differences]
    low, high = t_interval(means if len(means) > 1 else differences[0], 1 - LEVEL)
    return Interval(float(np.mean(means)), low, high, len(means))


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of objectives over datasets, 1 the best, and the critical difference between two of them."""

    means: Mapping[str, float]
    datasets: int
    critical: float


def mean_ranks(scores: Mapping[str, Sequence[float]]) -> Ranks:
    """Ranks by the scores of each objective, [datasets]; equal scores share the mean of their ranks.

    Mean ranks that differ by less than the critical difference do not differ at 5 %: Nemenyi's test (Demsar,
    JMLR 2006, section 3.2.2).
    """
    from scipy.stats import rankdata, studentized_range

    matrix = np.array(list(scores.values())).round(DIGITS)  # [objectives, datasets]
    count, datasets = matrix.shape
    means = rankdata(-matrix, axis=0).mean(axis=1)
    quantile = studentized_range.ppf(1 - LEVEL, count, np.inf) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * datasets)))
    return Ranks(dict(zip(scores, map(float, means), strict=True)), datasets, critical)
