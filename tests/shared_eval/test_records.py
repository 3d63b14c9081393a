"""Records and tables, against figures worked out by hand."""

import json

import pytest

from shared_eval.records import find_records, objective_label, read_records
from shared_eval.tables import PLAIN, UNTRAINED, scores, summarise, to_markdown


def write_record(folder, **changes):
    """A record in ``folder`` with some of its fields changed."""
    record = {
        "schema": 1,
        "modality": "graph",
        "dataset": "MUTAG",
        "objective": {"name": "infograph", "beta": 0.0, "tau_plus": 0.0, "variant": "corrected"},
        "seed": 0,
        "epochs": 200,
        "metrics": {"svm_accuracy": 0.8},
        "untrained_metrics": {"svm_accuracy": 0.7},
        "train_seconds": 1.0,
        "eval_seconds": 1.0,
    } | changes
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(record))


HARD = {"name": "hard", "beta": 1.0, "tau_plus": 0.1, "variant": "corrected"}


def test_a_row_for_each_metric(tmp_path):
    write_record(tmp_path / "a", metrics={"accuracy": 0.5, "f1": 0.25}, untrained_metrics={"accuracy": 0.1})
    rows = read_records(find_records([tmp_path]))
    assert rows["metric"].tolist() == ["accuracy", "f1"]
    assert rows["value"].tolist() == [0.5, 0.25]
    assert rows["untrained"].tolist()[0] == 0.1
    assert rows["untrained"].isna().tolist() == [False, True]


def test_damaged_records_are_named_and_left_out(tmp_path, capsys):
    write_record(tmp_path / "good")
    write_record(tmp_path / "newer", schema=99)
    write_record(tmp_path / "odd", metrics=None)
    write_record(tmp_path / "cut")
    (tmp_path / "cut" / "result.json").write_text('{"schema": 1, "moda')
    rows = read_records(find_records([tmp_path]))
    assert len(rows) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("newer", "odd", "cut"))


def test_mean_deviation_and_seeds_by_hand(tmp_path):
    """0.80, 0.90, 0.85: mean 85, sample deviation 5; the untrained encoder once a seed."""
    for seed, value in enumerate((0.80, 0.90, 0.85)):
        untrained = {"svm_accuracy": (0.7, 0.7, 0.76)[seed]}
        for name, objective in (("infograph", None), ("hard", HARD)):
            changes = {"objective": objective} if objective else {}
            metrics = {"svm_accuracy": value if name == "infograph" else 0.5}
            write_record(
                tmp_path / name / str(seed),
                seed=seed,
                metrics=metrics,
                untrained_metrics=untrained,
                **changes,
            )
    table = summarise(read_records(find_records([tmp_path])))
    assert to_markdown(table) == (
        "| objective | MUTAG svm_accuracy |\n"
        "| --- | --- |\n"
        "| untrained encoder | 72.0 ± 3.5 (3) |\n"
        "| infograph | 85.0 ± 5.0 (3) |\n"
        "| hard, beta 1, tau_plus 0.1 | 50.0 ± 0.0 (3) |\n"
    )


def test_one_seed_has_no_deviation_and_missing_cells_are_empty(tmp_path):
    write_record(tmp_path / "a")
    write_record(tmp_path / "b", dataset="DD", objective=HARD)
    table = summarise(read_records(find_records([tmp_path])))
    assert table.loc["infograph"].tolist() == ["80.0 (1)", ""]
    assert table.loc["hard, beta 1, tau_plus 0.1"].tolist() == ["", "80.0 (1)"]


def test_modalities_side_by_side(tmp_path):
    """Plain objectives share a row; what only describes an embedding is no score."""
    image = {
        "modality": "image",
        "dataset": "shapes",
        "objective": HARD | {"name": "simclr", "beta": 0, "tau_plus": 0},
    }
    scores_of = {"knn_accuracy": 0.5, "linear_top5_accuracy": 0.9, "alignment": 1.5}
    write_record(tmp_path / "image", **image, metrics=scores_of, untrained_metrics={"knn_accuracy": 0.25})
    write_record(tmp_path / "graph")
    table = summarise(scores(read_records(find_records([tmp_path]))))
    assert table.columns.tolist() == ["MUTAG svm_accuracy", "shapes knn_accuracy"]
    assert table.index.tolist() == [UNTRAINED, PLAIN]
    assert table.loc[PLAIN].tolist() == ["80.0 (1)", "50.0 (1)"]


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        (HARD, "hard, beta 1, tau_plus 0.1"),
        (HARD | {"variant": "released", "tau_plus": 0.5}, "hard, beta 1, tau_plus 0.5, released"),
        (HARD | {"stop_gradient": True}, "hard, beta 1, tau_plus 0.1, weights constant"),
        ({"name": "simclr", "beta": 0, "tau_plus": 0}, "simclr"),
    ],
)
def test_labels(objective, label):
    assert objective_label(objective) == label
