"""``--resume`` with more epochs: the run goes on; its record is replaced when the longer one is complete."""

import json
import shutil

import pytest

from core.training import divergence
from core.training.checkpoints import Checkpoints
from core.training.records import check_files, read_record
from tests.faults.tiny import TinyCommand, assert_consistent, assert_same_run, damage, truncate
from tests.processes import count_changes
from tests.runs import failure_of, interrupted_before_step, metrics_of

LONGER = ("--epochs", "5")


@pytest.fixture(scope="session")
def longer_runs(tiny_data, tmp_path_factory):
    """A function from a modality to the folder of an uninterrupted run of five epochs."""
    folders = {}

    def finished(modality):
        if modality not in folders:
            folders[modality] = tmp_path_factory.mktemp("longer") / modality
            TinyCommand(modality, tiny_data).run_inline(folders[modality], *LONGER)
        return folders[modality]

    return finished


@pytest.fixture
def folder(tiny, finished_runs, tmp_path):
    """A copy of a finished run of two or three epochs."""
    return shutil.copytree(finished_runs(tiny.modality), tmp_path / "run")


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_unchanged(folder, before):
    """Everything that was there before is as it was; ``metrics.jsonl`` and checkpoints may have gone on."""
    after = files_of(folder)
    kept = {path for path in before if path.name != "metrics.jsonl" and path.parts[0] != "checkpoint"}
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


def test_finished_run_goes_on_and_equals_one_from_the_start(tiny, folder, longer_runs):
    tiny.run_inline(folder, *LONGER, "--resume")
    assert_same_run(longer_runs(tiny.modality), tiny, folder)
    record = read_record(folder / "result.json")
    assert record["epochs"] == 5
    assert json.loads((folder / "config.json").read_text())["epochs"] == 5
    check_files(folder)


def test_unfinished_run_goes_on_to_another_end(tiny, longer_runs, tmp_path):
    """Begun with 100 epochs, then with 5, both more than it has trained."""
    folder = tmp_path / "run"
    with interrupted_before_step(4):
        tiny.run_inline(folder, "--epochs", "100")
    tiny.run_inline(folder, *LONGER, "--resume")
    assert_same_run(longer_runs(tiny.modality), tiny, folder)


def test_interrupted_on_its_way_the_shorter_run_stays_intact(tiny, folder, longer_runs, capsys):
    """Its record, encoder and settings; the shorter command reports it, the longer one resumes."""
    before = files_of(folder)
    with interrupted_before_step(2):
        tiny.run_inline(folder, *LONGER, "--resume")
    assert_unchanged(folder, before)
    check_files(folder)
    capsys.readouterr()
    tiny.run_inline(folder)
    assert "(finished before: nothing was trained)" in capsys.readouterr().out
    assert_unchanged(folder, before)
    tiny.run_inline(folder, *LONGER, "--resume")
    assert_same_run(longer_runs(tiny.modality), tiny, folder)


@pytest.mark.faults
def test_killed_before_any_change_of_its_end_nothing_is_lost(tiny, folder, longer_runs, tmp_path):
    """There is an intact record of the shorter or the longer run, or none and the longer one resumes."""
    counted = shutil.copytree(folder, tmp_path / "counted")
    changes = count_changes(tiny.module, tiny.flags(counted, *LONGER, "--resume"), tmp_path / "counted.log")
    for die_at in range(changes - 16, changes):
        run = shutil.copytree(folder, tmp_path / f"run{die_at}")
        assert tiny.start(run, *LONGER, "--resume", die_at=die_at).wait(60) == -9
        assert_consistent(run)
        if (run / "result.json").exists():
            check_files(run)
            epochs = json.loads((run / "config.json").read_text())["epochs"]
            assert read_record(run / "result.json")["epochs"] == epochs
        tiny.finish(run, *LONGER, "--resume")
        assert_same_run(longer_runs(tiny.modality), tiny, run)


def test_without_resume_a_longer_run_is_refused(tiny_graph, finished_runs, capsys):
    message = failure_of(tiny_graph.main, capsys, [finished_runs("graph"), *LONGER])[-1]
    assert (
        "holds a run of other settings (epochs 3 there, 5 now); add --resume to train it to 5 epochs, or"
        in message
    )


def test_a_shorter_run_is_refused_without_advice_to_resume(tiny_graph, finished_runs, capsys):
    message = failure_of(tiny_graph.main, capsys, [finished_runs("graph"), "--epochs", "1"])[-1]
    assert message.endswith("now); a run cannot be shortened; choose another --output-dir")


def test_another_setting_is_refused_also_with_resume(tiny_graph, finished_runs, capsys):
    folder = finished_runs("graph")
    message = failure_of(tiny_graph.main, capsys, [folder, *LONGER, "--lr", "0.5", "--resume"])[-1]
    assert "other settings (lr 0.001 there, 0.5 now); choose another --output-dir" in message


def test_fewer_epochs_than_trained_are_refused(tiny, folder, capsys):
    before = files_of(folder)
    message = failure_of(tiny.main, capsys, [folder, "--epochs", "1", "--resume"])[-1]
    trained = len(metrics_of(folder)) - 1
    assert f"--epochs is 1, but the run in {folder} is in epoch {trained}; it cannot be shortened" in message
    assert files_of(folder) == before


@pytest.mark.parametrize("is_lost", [False, True], ids=["damaged", "lost"])
def test_shorter_record_that_was_lost_is_not_written_of_the_longer_run(
    tiny_graph, finished_runs, tmp_path, capsys, is_lost
):
    """Its settings are still the shorter run's, but its checkpoint is not."""
    folder = shutil.copytree(finished_runs("graph"), tmp_path / "run")
    with interrupted_before_step(4):
        tiny_graph.run_inline(folder, *LONGER, "--resume")
    damage(folder / "result.json", truncate)
    if is_lost:
        (folder / "result.json").unlink()
    before = files_of(folder)
    message = failure_of(tiny_graph.main, capsys, [folder, "--resume"])[-1]
    assert f"--epochs is 3, but the run in {folder} is in epoch" in message
    assert files_of(folder) == before


def test_finished_run_without_its_checkpoint_is_not_begun_again(tiny_graph, finished_runs, tmp_path, capsys):
    folder = shutil.copytree(finished_runs("graph"), tmp_path / "run")
    shutil.rmtree(folder / "checkpoint")
    before = files_of(folder)
    message = failure_of(tiny_graph.main, capsys, [folder, *LONGER, "--resume"])[-1]
    assert "holds a finished run of 3 epochs without its checkpoint, so it cannot be trained on" in message
    assert files_of(folder) == before


def test_damaged_record_of_a_shorter_run_is_replaced(tiny_graph, finished_runs, longer_runs, tmp_path):
    folder = shutil.copytree(finished_runs("graph"), tmp_path / "run")
    damage(folder / "result.json", truncate)
    tiny_graph.run_inline(folder, *LONGER, "--resume")
    assert_same_run(longer_runs("graph"), tiny_graph, folder)


def test_several_seeds_go_on_together_and_equal_those_from_the_start(tiny_graph, tmp_path):
    seeds = ("--seeds", "0,1")
    tiny_graph.run_inline(tmp_path / "{seed}", *seeds)
    tiny_graph.run_inline(tmp_path / "{seed}", *seeds, *LONGER, "--resume")
    tiny_graph.run_inline(tmp_path / "expected-{seed}", *seeds, *LONGER)
    for seed in "01":
        assert_same_run(tmp_path / f"expected-{seed}", tiny_graph, tmp_path / seed)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(("--schedule", "cosine"), "--schedule cosine"), (("--anneal-beta", "down"), "--anneal-beta down")],
    ids=["rate", "hardness"],
)
def test_run_whose_schedule_depends_on_the_end_is_refused(tiny_data, tmp_path, capsys, flags, reason):
    tiny, folder = TinyCommand("image", tiny_data), tmp_path / "run"
    tiny.run_inline(folder, *flags)
    before = files_of(folder)
    message = failure_of(tiny.main, capsys, [folder, *flags, *LONGER, "--resume"])[-1]
    assert f"was begun with 2, and {reason} depends on it; start a new run from its weights with" in message
    assert files_of(folder) == before
    tiny.run_inline(tmp_path / "new", *LONGER, "--init", str(folder))
    assert read_record(tmp_path / "new" / "result.json")["epochs"] == 5


def test_divergence_on_the_way_leaves_the_shorter_record(tiny_graph, finished_runs, tmp_path, monkeypatch):
    folder = shutil.copytree(finished_runs("graph"), tmp_path / "run")
    before = files_of(folder)
    monkeypatch.setattr(divergence, "MAX_LOSS", 1e-9)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.run_inline(folder, *LONGER, "--resume")
    assert exit_.value.code == 1
    assert_unchanged(folder, before)
    assert not (folder / "failure.json").exists()
    assert len(Checkpoints(folder / "checkpoint").load()["progress"]["history"]) == 3
