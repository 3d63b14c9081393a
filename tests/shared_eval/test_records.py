"""Records: reading, labels, settings, listing."""

import errno
import json
import math
import os
from pathlib import Path

import pandas as pd
import pytest

from core.io.errors import DamagedFileError, InputError
from core.training.records import label_older_objective, read_record, record_text
from graph.config import GraphConfig
from shared_eval.records import (
    COLUMNS,
    find_records,
    find_records_and_exports,
    main,
    read_export,
    read_records,
    settings_fingerprint,
    warn_repeated_seeds,
)
from tests.shared_eval.conftest import HARD, PLAIN, write_record


def test_each_metric_has_a_row(tmp_path):
    write_record(tmp_path / "a", metrics={"accuracy": 0.5, "f1": 0.25}, untrained_metrics={"accuracy": 0.1})
    rows = read_records(find_records([tmp_path]))
    assert rows["metric"].tolist() == ["accuracy", "f1"]
    assert rows["value"].tolist() == [0.5, 0.25]
    assert rows["untrained"].tolist()[0] == 0.1
    assert rows["untrained"].isna().tolist() == [False, True]


def test_damaged_records_are_skipped_with_a_warning(tmp_path, capsys):
    write_record(tmp_path / "good")
    write_record(tmp_path / "newer", schema=99)
    write_record(tmp_path / "odd", metrics=None)
    write_record(tmp_path / "untyped", objective=HARD | {"tau_plus": "0.1"})
    write_record(tmp_path / "cut")
    (tmp_path / "cut" / "result.json").write_text('{"schema": 1, "moda')
    write_record(tmp_path / "unset")
    (tmp_path / "unset" / "config.json").write_text('{"modality": "gr')
    rows = read_records(find_records([tmp_path]))
    assert len(rows) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("newer", "odd", "untyped", "cut", "its config.json is damaged"))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"lr": 0.1}, False),
        ({"seed": 5}, True),
        ({"strict": True}, True),
        ({"device": "cuda"}, True),
        ({"beta": 3.0}, True),
        ({"variant": "released"}, True),
        ({"margin": 0.2}, False),
        ({"margin": 0.2, "objective_fields": ["margin"]}, True),
        ({"variant": "released", "objective_fields": ["margin"]}, False),
    ],
)
def test_fingerprint_ignores_objective_seed_and_machine(tmp_path, change, same):
    """``objective_fields`` names the objective's settings; older runs have those of their time."""
    settings = {"dataset": "MUTAG", "seed": 0, "beta": 1.0, "lr": 0.01, "device": "cpu", "hidden": 32}
    for name, content in (("a", settings), ("b", settings | change)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
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
            "hard, beta 1, tau_plus 0.1, bow, normalized, window 2",
        ),
        (HARD | {"denominator": "all", "encoder": None}, "hard, beta 1, tau_plus 0.1, denominator all"),
        ({"name": "simclr", "beta": 0, "tau_plus": 0}, "simclr"),
        (PLAIN | {"variant": "released"}, "infograph"),
        (HARD | {"variant": "released", "tau_plus": 0.0}, "hard, beta 1, released"),
    ],
)
def test_older_objective_gets_a_label(objective, label):
    assert label_older_objective(objective)["label"] == label


@pytest.mark.parametrize("option", [{}, {"variant": "released"}, {"stop_gradient": True}])
def test_older_plain_run_has_the_family_that_its_config_gives(option):
    """Options of the hardness change nothing without it."""
    names = ("label", "family", "plain_family")
    older, now = label_older_objective(PLAIN | option), GraphConfig(beta=0.0, tau_plus=0.0, **option)
    assert [older[name] for name in names] == [now.checked().objective_record()[name] for name in names]


def test_older_record_gets_label_and_families(tmp_path):
    """One as runs wrote it, its checksum included; what it holds stays."""
    objective = HARD | {"variant": "released", "stop_gradient": True, "temperature": None}
    path = write_record(tmp_path / "a", objective=objective)
    path.write_text(record_text(json.loads(path.read_text())))
    assert read_record(path)["objective"] == objective | {
        "encoder": None,
        "label": "hard, beta 1, tau_plus 0.1, released, weights constant",
        "family": "released, weights constant",
        "plain_family": "",
    }
    path.write_text(path.read_text().replace("released", "corrected"))
    with pytest.raises(DamagedFileError, match="its checksum does not match"):
        read_record(path)


def test_label_of_a_record_is_kept(tmp_path):
    families = {"label": "mine", "family": "a", "plain_family": "b", "encoder": "bow", "slug": "mine"}
    [row] = read_records([write_record(tmp_path / "a", objective=HARD | families)]).to_dict("records")
    assert {name: row[name] for name in ("label", "family", "plain_family", "encoder")} == {
        name: families[name] for name in ("label", "family", "plain_family", "encoder")
    }


@pytest.fixture
def three(tmp_path):
    write_record(tmp_path / "a", environment={"revision": "abc1234-dirty"})
    write_record(tmp_path / "b", objective=HARD, seed=1)
    write_record(tmp_path / "c", dataset="DD", environment={"revision": None})
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "selected"),
    [
        ((), "abc"),
        (("--dataset", "MUTAG"), "ab"),
        (("--objective", "hard"), "b"),
        (("--seed", "0"), "ac"),
        (("--clean",), "b"),
        (("--revision", "abc1234-dirty"), "a"),
        (("--revision", "abc12345678-dirty"), "a"),
    ],
)
def test_records_are_selected_listed_and_exported(three, flags, selected, capsys):
    csv, parquet = three / "out.csv", three / "out.parquet"
    main([str(three), *flags, "--csv", str(csv), "--parquet", str(parquet)])
    assert f"{len(selected)} records" in capsys.readouterr().out
    exported = pd.read_csv(csv)
    assert sorted(Path(path).parent.name for path in exported["path"]) == list(selected)
    assert pd.read_parquet(parquet)["path"].tolist() == exported["path"].tolist()


def test_one_metric_of_a_record_is_selected(tmp_path, capsys):
    write_record(tmp_path / "a", metrics={"accuracy": 0.5, "f1": 0.25}, untrained_metrics={})
    main([str(tmp_path), "--metric", "f1", "--csv", str(tmp_path / "out.csv")])
    exported = pd.read_csv(tmp_path / "out.csv")
    assert exported[["metric", "value"]].to_numpy().tolist() == [["f1", 0.25]]
    assert "accuracy" not in capsys.readouterr().out


def test_folder_that_cannot_be_read_is_skipped_with_a_warning(tmp_path, monkeypatch, capsys):
    good = write_record(tmp_path / "runs" / "a")
    write_record(tmp_path / "runs" / "private" / "b")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "private":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the permissions of a folder do not bind root
    main([str(tmp_path), "--csv", str(tmp_path / "out.csv")])
    assert pd.read_csv(tmp_path / "out.csv")["path"].tolist() == [str(good)]
    private = tmp_path / "runs" / "private"
    warning = f"warning: {private} cannot be searched for runs and is skipped (Permission denied)\n"
    assert capsys.readouterr().err == warning


def test_record_is_found_once_and_by_a_link_only_if_there_is_no_other_way(tmp_path):
    there = write_record(tmp_path / "runs" / "z")
    outside = write_record(tmp_path / "disk" / "b").parent
    write_record(tmp_path / "runs" / ".old" / "c")
    for name, target in (("latest", "z"), ("moved", outside), ("up", tmp_path), ("same", outside)):
        (tmp_path / "runs" / name).symlink_to(target)
    moved = tmp_path / "runs" / "moved" / "result.json"
    assert find_records([tmp_path / "runs"]) == [moved, there]
    assert find_records([tmp_path / "runs" / "latest"]) == [tmp_path / "runs" / "latest" / "result.json"]


def test_missing_folder_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "nowhere")])
    assert exit_.value.code == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"svm_accuracy": math.nan}}, "its scores are not all finite"),
        ({"metrics": {"svm_accuracy": True}}, "its svm_accuracy is True"),
        ({"environment": {}}, "is skipped (it has no revision)"),
        ({"objective": PLAIN | {"beta": None}}, "its beta is None"),
    ],
)
def test_record_that_no_table_can_hold_is_skipped(tmp_path, changes, said, capsys):
    write_record(tmp_path / "good")
    write_record(tmp_path / "bad", **changes)
    assert list(read_records(find_records([tmp_path]))["path"]) == [str(tmp_path / "good" / "result.json")]
    assert said in capsys.readouterr().err


def test_seeds_with_several_runs_are_named(tmp_path, capsys):
    paths = [str(write_record(tmp_path / name, seed=1)) for name in "abc"]
    write_record(tmp_path / "other", seed=2)
    warn_repeated_seeds(read_records(find_records([tmp_path])))
    named = f"{paths[0]}, {paths[1]}, ..."
    assert capsys.readouterr().err == (
        f"warning: 1 seed with several runs, which count as their mean: {named}\n"
    )


def test_export_has_the_rows_of_its_records(tmp_path):
    """To the last bit, whatever the texts; one run has no score before training, one no revision."""
    write_record(tmp_path / "a", metrics={"accuracy": 0.1 + 0.2, "f1": 1 / 3}, untrained_metrics={"f1": 0.1})
    write_record(tmp_path / "b", dataset="NA", environment={"revision": None})
    main([str(tmp_path), "--csv", str(tmp_path / "records.csv")])
    _, [export] = find_records_and_exports([tmp_path])
    rows = read_records(find_records([tmp_path]))
    pd.testing.assert_frame_equal(read_export(export), rows.assign(path=str(export)), check_dtype=False)


def of_other_values(tmp_path, **values):
    """An export of one run with other values."""
    write_record(tmp_path / "run")
    main([str(tmp_path / "run"), "--csv", str(tmp_path / "records.csv")])
    rows = pd.read_csv(tmp_path / "records.csv", dtype=str)
    rows.assign(**values).to_csv(tmp_path / "records.csv", index=False)


def broken_exports(tmp_path):
    path = tmp_path / "records.csv"
    return {
        "empty": lambda: path.write_text(""),
        "other": lambda: path.write_text("name,value\nmine,3\n"),
        "bytes": lambda: path.write_bytes(b"\xff\xfe\x00"),
        "head": lambda: path.write_text(",".join(COLUMNS) + "\n"),
        "pipe": lambda: os.mkfifo(path),
        "large": lambda: of_other_values(tmp_path, seed="9" * 20),
        "infinite": lambda: of_other_values(tmp_path, value="inf"),
        "untrained": lambda: of_other_values(tmp_path, untrained="-inf"),
        "missing": lambda: of_other_values(tmp_path, value=""),
    }


@pytest.mark.parametrize("kind", broken_exports(Path()))
def test_other_file_is_no_export(tmp_path, kind):
    broken_exports(tmp_path)[kind]()
    with pytest.raises(
        InputError, match=r"records\.csv is not what python -m shared_eval\.records --csv writes"
    ):
        read_export(tmp_path / "records.csv")
