"""Differences and corrections compared with SciPy and with values computed by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared_eval.statistics import (
    chance_of_as_many,
    holm,
    mean_over_datasets,
    mean_ranks,
    paired_difference,
    smallest_detectable,
    t_interval,
)


def test_difference_equals_scipy():
    draw = np.random.default_rng(0)
    baseline, gains = draw.normal(0.8, 0.02, 10).round(4), draw.normal(0.01, 0.01, 10).round(4)
    values = baseline + gains
    difference = paired_difference(values, baseline)
    assert difference.mean == pytest.approx((values - baseline).mean())
    assert difference.p == pytest.approx(stats.wilcoxon(values, baseline).pvalue)
    interval = stats.ttest_1samp(values - baseline, 0).confidence_interval(0.95)
    assert (difference.low, difference.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def p_by_enumeration(differences):
    """Wilcoxon's p from all 2^n combinations of signs; zeros are left out."""
    nonzero = np.array([d for d in differences if d])
    ranks = stats.rankdata(abs(nonzero))
    sums = np.array([ranks @ signs for signs in product((0, 1), repeat=len(ranks))])
    gains = ranks[nonzero > 0].sum()
    return min(1.0, 2 * min((sums <= gains).mean(), (sums >= gains).mean()))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 188), st.integers(0, 188)), min_size=2, max_size=9))
def test_p_is_exact_and_fractions_tie_where_their_counts_do(pairs):
    """Fractions of 188 graphs, whose last digits differ by rounding."""
    expected = p_by_enumeration([first - second for first, second in pairs])
    values, baseline = (np.array(counts) / 188 for counts in zip(*pairs, strict=True))
    assert paired_difference(values, baseline).p == pytest.approx(expected)


@settings(max_examples=25)
@given(st.lists(st.integers(-1000, 1000).filter(bool), min_size=20, max_size=40, unique_by=abs))
def test_p_of_many_seeds_is_that_of_scipy_s_exact_test(differences):
    exact = stats.wilcoxon(differences, method="exact").pvalue
    assert paired_difference(differences, np.zeros(len(differences))).p == pytest.approx(exact)


def test_zeros_do_not_make_few_gains_significant():
    assert paired_difference([0.0] * 15 + [0.1, 0.2, 0.3, 0.4, 0.5], [0.0] * 20).p == pytest.approx(0.0625)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.01, 0.02, (2000, 8))
    lows, highs = zip(*(t_interval(draw, 0.95) for draw in draws), strict=True)
    covered = (np.array(lows) < 0.01) & (np.array(highs) > 0.01)
    assert covered.mean() == pytest.approx(0.95, abs=0.015)


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
    for values, baseline in (([], []), ([0.1, 0.2, 0.3], [0.1]), (0.1, 0.1)):
        with pytest.raises(ValueError, match="both must be \\[n\\], with one pair or more"):
            paired_difference(values, baseline)
    with pytest.raises(ValueError, match="not all finite"):
        paired_difference([0.1, np.nan], [0.1, 0.2])


def test_float32_scores_of_equal_differences_tie():
    """Counts of 1,000 images whose gains tie, and whose float32 shares differ by 1e-8."""
    gains = np.array([7, 10, -4, 7, -20, 11, 5, -10])
    counts = np.array([283, 248, 249, 246, 244, 292, 245, 245])
    values, baseline = (np.float32(count / 1000).astype(float) for count in (counts + gains, counts))
    assert len(set(abs(values - baseline).round(9))) == 8
    assert paired_difference(values, baseline).p == p_by_enumeration(gains)


def test_holm_equals_values_by_hand():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, neither below the one before."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_holm_of_fewer_tests_than_planned_counts_the_missing_ones():
    """As if the missing p were 1: the same as correcting all six, and never smaller than without them."""
    p = [0.01, 0.02, 0.2]
    assert holm(p, planned=6) == pytest.approx(holm([*p, 1, 1, 1])[:3])
    assert holm(p, planned=2) == pytest.approx(holm(p))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_none_and_bonferroni(p):
    corrected = holm(p)
    assert (corrected >= np.array(p) - 1e-12).all()
    assert (corrected <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


@pytest.mark.parametrize("pairs", [3, 5, 10, 20, 30])
def test_smallest_detectable_difference_has_its_power(pairs):
    """By SciPy's noncentral t distribution, and in 20,000 simulated experiments."""
    shift = smallest_detectable(0.02, pairs)
    critical = stats.t.ppf(0.975, pairs - 1)
    assert stats.nct.sf(critical, pairs - 1, shift / 0.02 * np.sqrt(pairs)) == pytest.approx(0.8, abs=1e-6)
    draws = np.random.default_rng(0).normal(shift, 0.02, (20_000, pairs))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_smallest_detectable_difference_of_one_pair_is_unknown():
    assert np.isnan(paired_difference([0.9], [0.8]).detectable)
    assert not paired_difference([0.9], [0.9]).is_equivalent
    assert smallest_detectable(1, 10) == pytest.approx(0.996, abs=1e-3)  # d of a paired t-test (G*Power)


@pytest.mark.parametrize("mean", [0.0, 0.003, -0.006, 0.02])
def test_equivalence_is_two_one_sided_t_tests(mean):
    values = np.random.default_rng(1).normal(0, 0.006, 12)
    difference = paired_difference(values - values.mean() + mean, np.zeros(12))
    p = max(
        stats.ttest_1samp(difference.differences, -0.01, alternative="greater").pvalue,
        stats.ttest_1samp(difference.differences, 0.01, alternative="less").pvalue,
    )
    assert difference.is_equivalent == (p < 0.05)


@pytest.mark.parametrize("gain", [0.0, 0.008, -0.02])
def test_chance_of_as_many_intervals_is_that_of_all_signs(gain):
    """Of six seeds all 64 signs can be tried; half the cells repeat others, as in a map."""
    own = np.random.default_rng(3).normal(gain, 0.01, size=(4, 6))
    cells = np.vstack([own, own + 0.001])

    def largest(differences):
        tests = [stats.ttest_1samp(cell, 0) for cell in differences]
        return max(sum(t.pvalue < 0.05 and sign * t.statistic > 0 for t in tests) for sign in (1, -1))

    by_signs = [largest(cells * np.array(signs)) for signs in product((1, -1), repeat=6)]
    expected = np.mean(np.array(by_signs) >= largest(cells))
    assert chance_of_as_many(cells) == pytest.approx(expected, abs=0.02)


def test_mean_over_datasets_covers_what_varies():
    """Far wider where the datasets differ than where only seeds do; of one dataset, that of its seeds."""
    draw = np.random.default_rng(0)
    alike = mean_over_datasets([draw.normal(0.01, 0.01, 20) for _ in range(6)])
    differing = mean_over_datasets([draw.normal(mean, 0.01, 20) for mean in np.linspace(-0.04, 0.06, 6)])
    assert alike.low < alike.estimate < alike.high
    assert differing.high - differing.low > 3 * (alike.high - alike.low)
    # The datasets' means have a deviation of 0.037; the t of five degrees of freedom is 2.571.
    assert differing.high - differing.low == pytest.approx(2 * 2.571 * 0.0374 / np.sqrt(6), rel=0.15)
    one = draw.normal(0.01, 0.02, 50)
    alone = mean_over_datasets([one])
    assert alone.estimate == pytest.approx(one.mean())
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * one.std() / np.sqrt(50), rel=0.1)


@pytest.mark.parametrize("datasets", [2, 3, 6])
def test_interval_over_datasets_covers_their_mean_as_often_as_it_says(datasets):
    """Datasets of a kind whose differences have mean 0.01 and deviation 0.02, with eight noisy seeds each."""
    draw = np.random.default_rng(0)
    means = draw.normal(0.01, 0.02, (1000, datasets, 1))
    experiments = means + draw.normal(0, 0.01, (1000, datasets, 8))
    found = [mean_over_datasets(list(experiment)) for experiment in experiments]
    assert np.mean([gain.low < 0.01 < gain.high for gain in found]) == pytest.approx(0.95, abs=0.02)


def test_mean_ranks_equal_values_by_hand():
    ranks = mean_ranks({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.9], "c": [0.1, 0.1, 0.1]})
    assert ranks.means == {"a": pytest.approx((1 + 1.5 + 2) / 3), "b": pytest.approx(4.5 / 3), "c": 3.0}
    assert ranks.datasets == 3


@pytest.mark.parametrize(("count", "critical"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_that_of_demsar_s_table(count, critical):
    """Table 5(a) of JMLR 2006, and its example: four classifiers on 14 datasets differ by 1.25."""
    ranks = mean_ranks({str(i): [float(i)] * 14 for i in range(count)})
    assert ranks.critical == pytest.approx(critical * np.sqrt(count * (count + 1) / (6 * 14)), rel=1e-3)
    if count == 4:
        assert ranks.critical == pytest.approx(1.25, abs=0.01)
