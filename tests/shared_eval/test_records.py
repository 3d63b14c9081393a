"""Records, read from disk."""

import json
from pathlib import Path

import pandas as pd
import pytest

from shared_eval.records import find_records, main, objective_label, read_records, settings_fingerprint
from tests.shared_eval.conftest import HARD, write_record


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


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"lr": 0.1}, False),
        ({"seed": 5}, True),
        ({"device": "cuda"}, True),
        ({"beta": 3.0}, True),
    ],
)
def test_the_fingerprint_of_settings(tmp_path, change, same):
    """It differs where two runs do that a table would put in one cell."""
    settings = {"dataset": "MUTAG", "seed": 0, "beta": 1.0, "lr": 0.01, "device": "cpu", "hidden": 32}
    for name, held in (("a", settings), ("b", settings | change)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(held))
    assert (settings_fingerprint(tmp_path / "a") == settings_fingerprint(tmp_path / "b")) == same
    assert settings_fingerprint(tmp_path) == ""


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        (HARD, "hard, beta 1, tau_plus 0.1"),
        (HARD | {"variant": "released", "tau_plus": 0.5}, "hard, beta 1, tau_plus 0.5, released"),
        (HARD | {"stop_gradient": True}, "hard, beta 1, tau_plus 0.1, weights constant"),
        (
            HARD | {"positives": "label", "anneal_beta": "down"},
            "hard, beta 1, tau_plus 0.1, annealed, true positives",
        ),
        (
            HARD | {"normalize": True, "window": 2, "encoder": "bow"},
            "hard, beta 1, tau_plus 0.1, normalized, window 2, bow",
        ),
        (HARD | {"denominator": "all", "encoder": None}, "hard, beta 1, tau_plus 0.1, denominator all"),
        ({"name": "simclr", "beta": 0, "tau_plus": 0}, "simclr"),
    ],
)
def test_labels(objective, label):
    assert objective_label(objective) == label


@pytest.fixture
def three(tmp_path):
    write_record(tmp_path / "a", environment={"revision": "abc1234-dirty"})
    write_record(tmp_path / "b", objective=HARD, seed=1)
    write_record(tmp_path / "c", dataset="DD", environment={"revision": None})
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ((), "abc"),
        (("--dataset", "MUTAG"), "ab"),
        (("--objective", "hard"), "b"),
        (("--seed", "0"), "ac"),
        (("--clean",), "b"),
        (("--revision", "abc1234-dirty"), "a"),
        (("--modality", "image"), ""),
    ],
)
def test_listing_and_exporting(three, flags, found, capsys):
    csv, parquet = three / "out.csv", three / "out.parquet"
    main([str(three), *flags, "--csv", str(csv), "--parquet", str(parquet)])
    assert f"{len(found)} records" in capsys.readouterr().out
    exported = pd.read_csv(csv)
    assert sorted(Path(path).parent.name for path in exported["path"]) == list(found)
    assert pd.read_parquet(parquet)["path"].tolist() == exported["path"].tolist()


def test_a_folder_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "nowhere")])
    assert exit_.value.code == 2
    assert "nowhere is no folder" in capsys.readouterr().err
