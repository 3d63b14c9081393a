"""Paired differences between two objectives at the same seeds, and their significance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 9999
LEVEL = 0.05  # a corrected p below this is significant
DIGITS = 9  # of a difference: 0.9 - 0.8 and 0.3 - 0.2 are a tie, though their 17th digits differ


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, with its 95 % bootstrap interval and Wilcoxon's signed-rank p."""

    mean: float
    low: float  # nan, like the two below, if there is only one pair
    high: float
    p: float
    pairs: int


def paired_difference(values: ArrayLike, baseline: ArrayLike) -> Difference:
    """The differences ``values - baseline``, pair by pair, tested two-sided: [n], [n].

    The smallest p of five pairs is 0.0625: fewer than six are never significant at 0.05.
    """
    from scipy.stats import bootstrap, wilcoxon  # slow to import

    differences = (np.asarray(values, float) - np.asarray(baseline, float)).round(DIGITS)
    if differences.ndim != 1 or not len(differences):
        raise ValueError(f"the differences have shape {list(differences.shape)}; at least one pair is needed")
    mean, count = float(differences.mean()), len(differences)
    if count == 1:
        return Difference(mean, np.nan, np.nan, np.nan, 1)
    if np.ptp(differences) == 0:
        low = high = mean  # nothing to resample
    else:
        interval = bootstrap((differences,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
        low, high = map(float, interval.confidence_interval)
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Difference(mean, low, high, p, count)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down method (1979): [n] -> [n]."""
    p = np.asarray(p_values, float)
    order = p.argsort(kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = stepped.clip(max=1)
    return corrected
