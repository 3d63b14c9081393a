"""Comparing two runs, and two folders of runs."""

import json

import pytest
from scipy import stats

from shared_eval.compare import main as compare_main
from shared_eval.comparison import compare_scores, different_settings
from shared_eval.records import find_records, read_records
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, write_record


def write_set(root, gain, objective=HARD, seeds=6, lr=0.1):
    for seed in range(seeds):
        folder = root / str(seed)
        write_record(
            folder, seed=seed, objective=objective, metrics={"svm_accuracy": 0.8 + seed / 100 + gain}
        )
        settings = {"lr": lr, "hidden": 32, "output_dir": str(folder), "resume": seed > 0}
        (folder / "config.json").write_text(json.dumps(settings))
    return root


def test_two_runs_show_scores_and_different_settings(tmp_path, capsys):
    first = write_set(tmp_path / "a", 0.0, seeds=1)
    second = write_set(
        tmp_path / "b", 0.05, objective={"name": "infograph", "beta": 0, "tau_plus": 0}, seeds=1, lr=0.2
    )
    compare_main([str(first / "0"), str(second / "0")])
    said = capsys.readouterr().out
    for expected in ("0.8000", "0.8500", "+0.0500", "lr", "0.1", "0.2"):
        assert expected in said
    for same_or_without_effect in ("hidden", "output_dir"):
        assert same_or_without_effect not in said


def test_two_folders_are_paired_by_seed(tmp_path):
    first = write_set(tmp_path / "a", 0.0)
    second = write_set(tmp_path / "b", 0.05, seeds=8)
    paths = [find_records([root]) for root in (first, second)]
    [row] = compare_scores(*map(read_records, paths)).to_dict("records")
    assert row["first"] == pytest.approx(0.825)
    assert row["second"] == pytest.approx(0.875)  # without its seeds 6 and 7
    assert row["mean"] == pytest.approx(0.05)
    assert row["seeds"] == 6
    assert row["p"] == pytest.approx(0.03125)
    assert different_settings(*paths) == {}


def test_interval_of_the_difference_is_printed_from_low_to_high(tmp_path, capsys):
    gains = [0.01, 0.03, 0.02, 0.06]
    for seed, gain in enumerate(gains):
        write_record(tmp_path / "a" / str(seed), seed=seed, metrics={"svm_accuracy": 0.8})
        write_record(tmp_path / "b" / str(seed), seed=seed, metrics={"svm_accuracy": 0.8 + gain})
    compare_main([str(tmp_path / "a"), str(tmp_path / "b")])
    [line] = [line for line in capsys.readouterr().out.splitlines() if "svm_accuracy" in line]
    low, high = stats.t.interval(0.95, 3, loc=0.03, scale=stats.sem(gains))
    assert low < 0 < high
    assert f" {low:+.4f} to {high:+.4f} " in line


def test_code_machine_and_determinism_that_differ_are_listed(tmp_path):
    """They can change scores; where a run was written, and what differs in nothing, is left out."""
    environment = {
        "revision": "abc1234",
        "torch": "2.1",
        "device": "cpu",
        "device_name": "a CPU",
        "python": "3",
    }
    changed = {"revision": "def5678", "torch": "2.2", "device": "cuda", "device_name": "a GPU", "python": "4"}
    for name, found_environment, deterministic in (("a", environment, True), ("b", changed, False)):
        write_record(tmp_path / name, environment=found_environment)
        settings = {
            "deterministic": deterministic,
            "hidden": 32,
            "output_dir": name,
            "download": deterministic,
        }
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
    paths = [find_records([tmp_path / name]) for name in "ab"]
    assert different_settings(*paths) == {
        "deterministic": (["true"], ["false"]),
        "device": (['"cpu"'], ['"cuda"']),
        "device_name": (['"a CPU"'], ['"a GPU"']),
        "revision": (['"abc1234"'], ['"def5678"']),
        "torch": (['"2.1"'], ['"2.2"']),
    }


def test_one_commit_from_two_clones_is_no_difference(tmp_path):
    """Git abbreviates a commit to more digits in a clone with more objects."""
    for name, revision in (("a", "abc1234"), ("b", "abc123456")):
        write_record(tmp_path / name, environment={"revision": revision})
    assert different_settings(*(find_records([tmp_path / name]) for name in "ab")) == {}


def test_folders_without_a_common_seed_have_their_means_alone(tmp_path, capsys):
    write_record(tmp_path / "a" / "0", metrics={"svm_accuracy": 0.8})
    write_record(tmp_path / "b" / "1", seed=1, metrics={"svm_accuracy": 0.9})
    compare_main([str(tmp_path / "a"), str(tmp_path / "b")])
    [line] = [line for line in capsys.readouterr().out.splitlines() if "svm_accuracy" in line]
    assert [word for word in line.split() if word[0].isdigit()] == ["0.8000", "0.9000", "0"]


def test_shared_objectives_are_compared_with_themselves(tmp_path):
    for name, gain in (("a", 0.0), ("b", 0.1)):
        write_set(tmp_path / name / "hard", gain, seeds=2)
        write_set(tmp_path / name / "harder", 2 * gain, objective=HARD | {"beta": 2.0}, seeds=2)
    rows = compare_scores(*(read_records(find_records([tmp_path / name])) for name in "ab"))
    assert rows.set_index("label")["mean"].round(6).to_dict() == {
        "hard, beta 1, tau_plus 0.1": 0.1,
        "hard, beta 2, tau_plus 0.1": 0.2,
    }


def test_p_is_corrected_for_the_number_of_rows(tmp_path):
    for name, gain in (("a", 0.0), ("b", 0.1)):
        write_set(tmp_path / name / "hard", gain)
        write_set(tmp_path / name / "harder", gain, objective=HARD | {"beta": 2.0})
    rows = compare_scores(*(read_records(find_records([tmp_path / name])) for name in "ab"))
    assert rows["p"].tolist() == pytest.approx([0.0625, 0.0625])


def test_several_runs_of_one_seed_are_refused(tmp_path, capsys):
    """One plain objective against two betas: each seed would count twice."""
    write_set(tmp_path / "a", 0.0, objective={"name": "infograph", "beta": 0, "tau_plus": 0}, seeds=3)
    for beta in (1.0, 2.0):
        write_set(tmp_path / "b" / f"{beta}", 0.1, objective=HARD | {"beta": beta}, seeds=3)
    [line] = failure_of(compare_main, capsys, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert "the second folder has several runs of one seed" in line


def test_folders_that_share_nothing_are_refused(tmp_path, capsys):
    write_set(tmp_path / "a", 0.0, seeds=1)
    write_record(tmp_path / "b" / "0", dataset="DD")
    (tmp_path / "c").mkdir()
    for second, said in (("c", "no result.json at or below"), ("b", "share no dataset and metric")):
        with pytest.raises(SystemExit) as exit_:
            compare_main([str(tmp_path / "a"), str(tmp_path / second)])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err


def test_scores_by_different_rules_are_named(tmp_path, capsys):
    write_set(tmp_path / "a", 0.0, seeds=1)
    write_record(tmp_path / "b" / "0", objective=HARD, evaluation="senteval-2")
    compare_main([str(tmp_path / "a"), str(tmp_path / "b")])
    said = capsys.readouterr()
    warning = "warning: the first was evaluated by other rules (not recorded) than the second (senteval-2)"
    assert warning in said.err
    assert "evaluation" in said.out
    compare_main([str(tmp_path / "b"), str(tmp_path / "b")])
    said = capsys.readouterr()
    assert said.err == ""
    assert "evaluation" not in said.out


def test_folder_of_several_objectives_is_refused_where_none_is_shared(tmp_path, capsys):
    write_set(tmp_path / "a" / "one", 0.0, seeds=1)
    write_record(tmp_path / "a" / "two", seed=1, objective=HARD | {"beta": 2.0})
    write_set(tmp_path / "b", 0.0, objective=HARD | {"beta": 3.0}, seeds=1)
    [error] = failure_of(compare_main, capsys, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert "share no objective, and the first has several (hard, beta 1, tau_plus 0.1; hard, beta 2," in error


def test_runs_of_several_revisions_or_rules_in_one_folder_are_a_warning(tmp_path, capsys):
    """Else each pair may compare other code, though both folders have the same two revisions."""
    for name, revisions in (("a", ("aaaaaaa", "bbbbbbb")), ("b", ("bbbbbbb", "aaaaaaa"))):
        for seed, revision in enumerate(revisions):
            environment, rules = {"revision": revision}, f"rules of {revision}"
            write_record(tmp_path / name / str(seed), seed=seed, environment=environment, evaluation=rules)
    compare_main([str(tmp_path / "a"), str(tmp_path / "b")])
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "warning: the first has runs of several revisions (aaaaaaa, bbbbbbb)",
        "warning: the first has runs of several rules of evaluation (rules of aaaaaaa, rules of bbbbbbb)",
        "warning: the second has runs of several revisions (bbbbbbb, aaaaaaa)",
        "warning: the second has runs of several rules of evaluation (rules of bbbbbbb, rules of aaaaaaa)",
    ]


def test_failed_runs_are_named(tmp_path, capsys):
    first, second = write_set(tmp_path / "a", 0.0), write_set(tmp_path / "b", 0.1, seeds=5)
    (second / "5").mkdir()
    (second / "5" / "failure.json").write_text(json.dumps({"schema": 1, "message": "the loss is not finite"}))
    compare_main([str(first), str(second)])
    assert f"warning: {second / '5'} has no record: the loss is not finite" in capsys.readouterr().err
