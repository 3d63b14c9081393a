"""A table's comparisons as CSV, compared with values by hand."""

import io

import pandas as pd
import pytest
from scipy import stats

from shared_eval.planned import Plan, Primary
from shared_eval.records import find_records, read_records
from shared_eval.table_formats import to_csv
from shared_eval.tables import summarise
from tests.shared_eval.conftest import HARD, PLAIN, write_record


def test_csv_has_the_interval_and_both_p_of_a_comparison(tmp_path):
    """Six seeds that all gain: p is 2/2^6, and twice that where two comparisons are planned."""
    gains = [0.01, 0.03, 0.02, 0.06, 0.05, 0.07]
    for seed, gain in enumerate(gains):
        for objective, value in ((PLAIN, 0.8), (HARD, 0.8 + gain)):
            folder = tmp_path / objective["name"] / str(seed)
            write_record(folder, seed=seed, objective=objective, metrics={"svm_accuracy": value})
    primary = {Primary("MUTAG svm_accuracy", 200, "", 0.1, 1.0, "plain"): Plan("two", 2)}
    table = summarise(read_records(find_records([tmp_path])), primary=primary)
    lines = pd.read_csv(io.StringIO(to_csv(table)))
    [line] = lines[lines["primary"] == True].to_dict("records")  # noqa: E712  (empty without a comparison)
    low, high = stats.t.interval(0.95, 5, loc=0.04, scale=stats.sem(gains))
    expected = {"difference": 0.04, "low": low, "high": high, "p": 0.03125, "corrected_p": 0.0625}
    assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (line["objective"], line["baseline"]) == ("hard, beta 1, tau_plus 0.1", "plain")
