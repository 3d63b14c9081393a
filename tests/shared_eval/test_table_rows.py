"""Which rows a table has, and their order."""

import pytest

from shared_eval.records import find_records, read_records
from shared_eval.tables import BEST_LENGTH, summarise
from tests.shared_eval.conftest import HARD, write_record


def test_objectives_are_in_the_order_of_family_then_tau_plus_then_beta(tmp_path):
    """Whatever the order of the folders."""
    families = {"plain_family": "", "encoder": None}
    points = [("b", 0.0, 1.0), ("a", 0.5, 1.0), ("a", 0.1, 2.0), ("a", 0.5, 0.0), ("a", 0.1, 10.0)]
    for i, (family, tau_plus, beta) in enumerate(points):
        objective = {"name": "hard", "family": family, "tau_plus": tau_plus, "beta": beta} | families
        label = f"{family} {tau_plus} {beta}"
        write_record(tmp_path / str(i), objective=objective | {"label": label}, untrained_metrics={})
    rows = summarise(read_records(find_records([tmp_path]))).rows
    assert [row.label for row in rows if row.kind == "objective"] == [
        "a 0.1 2.0",
        "a 0.1 10.0",
        "a 0.5 0.0",
        "a 0.5 1.0",
        "b 0.0 1.0",
    ]


def best_lengths(tmp_path):
    """The means of the rows of best epochs, lowest first."""
    rows = summarise(read_records(find_records([tmp_path]))).rows
    return sorted(row.cells["MUTAG svm_accuracy"].mean for row in rows if BEST_LENGTH in row.label)


def write_lengths(folder, evaluation, *scores_by_epochs):
    for epochs, score in scores_by_epochs:
        changes = {"epochs": epochs, "evaluation": evaluation, "metrics": {"svm_accuracy": score}}
        write_record(folder / f"{evaluation}-{epochs}", objective=HARD, **changes)


def test_best_epochs_are_chosen_among_scores_by_the_same_rules(tmp_path):
    write_lengths(tmp_path, "one", (5, 0.6), (20, 0.5))
    write_lengths(tmp_path, "two", (5, 0.7), (20, 0.8))
    assert best_lengths(tmp_path) == pytest.approx([0.6, 0.8])


def test_lengths_by_different_rules_are_no_choice_of_epochs(tmp_path):
    write_lengths(tmp_path, "one", (5, 0.6))
    write_lengths(tmp_path, "two", (20, 0.8))
    assert best_lengths(tmp_path) == []
