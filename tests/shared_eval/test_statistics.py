"""Differences and corrections compared with SciPy and with values computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared_eval.statistics import holm, paired_difference


def test_difference_equals_scipy():
    draw = np.random.default_rng(0)
    baseline = draw.normal(0.8, 0.02, 10)
    values = baseline + draw.normal(0.01, 0.01, 10)
    difference = paired_difference(values, baseline)
    assert difference.mean == pytest.approx((values - baseline).mean())
    assert difference.p == stats.wilcoxon(values, baseline).pvalue
    # The percentile interval of the mean is near its normal one.
    error = (values - baseline).std(ddof=1) / np.sqrt(10)
    assert difference.low == pytest.approx(difference.mean - 1.96 * error, abs=0.4 * error)
    assert difference.high == pytest.approx(difference.mean + 1.96 * error, abs=0.4 * error)
    assert difference == paired_difference(values, baseline)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 188), st.integers(0, 188)), min_size=6, max_size=12))
def test_fractions_tie_where_their_counts_do(pairs):
    """Fractions of 188 graphs, whose last digits differ by rounding."""
    differences = [first - second for first, second in pairs]
    expected = stats.wilcoxon(differences).pvalue if any(differences) else 1.0
    values, baseline = (np.array(counts) / 188 for counts in zip(*pairs, strict=True))
    assert paired_difference(values, baseline).p == pytest.approx(expected)


def test_smallest_p_of_few_seeds():
    assert paired_difference([2, 3, 4, 5, 6], [1] * 5).p == pytest.approx(0.0625)
    assert paired_difference([2, 3, 4, 5, 6, 7], [1] * 6).p == pytest.approx(0.03125)


def test_one_pair_equal_pairs_and_none():
    one = paired_difference([0.9], [0.8])
    assert (one.mean, one.pairs) == (pytest.approx(0.1), 1)
    assert np.isnan([one.low, one.high, one.p]).all()
    same = paired_difference([0.8, 0.9], [0.8, 0.9])
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    constant = paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (constant.low, constant.high) == (1, 1)
    with pytest.raises(ValueError, match="at least one pair"):
        paired_difference([], [])


def test_holm_equals_values_by_hand():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, neither below the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_none_and_bonferroni(p):
    corrected = holm(p)
    assert (corrected >= np.array(p) - 1e-12).all()
    assert (corrected <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()
