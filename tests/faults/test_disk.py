"""A disk that is full, read-only or removed, and a clock set back: one line of error, and nothing lost."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

import core.training.loop
from core.training.records import read_record
from core.training.run_folder import Run
from tests.faults.tiny import assert_consistent, assert_same_run, has_trained, wait_for
from tests.runs import metrics_of

LONG = ("--epochs", "40")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Use up every byte of a disk."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.faults
def test_full_disk_ends_the_run_and_it_resumes(tiny, small_disk, tmp_path):
    tiny.finish(tmp_path / "expected", *LONG)
    folder = small_disk / "run"
    process = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    fill(small_disk)
    assert process.wait(120) == 1
    [error] = [line for line in process.output().splitlines() if line.startswith("error: ")]
    assert "cannot be written: No space left on device; every file that is there is intact" in error
    assert "Traceback" not in process.output()
    assert_consistent(folder)
    (small_disk / "filler").unlink()
    tiny.finish(folder, *LONG, "--resume")
    assert_same_run(tmp_path / "expected", tiny, folder)


@pytest.mark.faults
def test_read_only_disk_refuses_a_new_run_and_reports_a_finished_one(tiny, finished_runs, small_disk):
    shutil.copytree(finished_runs(tiny.modality), small_disk / "finished")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    process = tiny.run(small_disk / "run")
    assert process.wait() == 2
    lines = process.output().splitlines()
    assert lines == [f"error: --output-dir {small_disk / 'run'} cannot be written: Read-only file system"]
    assert "run folder:" in tiny.finish(small_disk / "finished").output()


@pytest.mark.faults
@pytest.mark.parametrize("how", ["moved", "removed"])
def test_run_whose_folder_disappears_ends_and_makes_no_new_one(tiny, tmp_path, how):
    """A folder that was moved resumes at its new path."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    process = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    folder.rename(elsewhere)
    if how == "removed":
        shutil.rmtree(elsewhere)
    assert process.wait(60) == 1
    assert "cannot be written: the run's folder was removed or replaced" in process.output()
    assert "Traceback" not in process.output()
    assert not folder.exists()
    if how == "moved":
        assert_consistent(elsewhere)
        tiny.finish(elsewhere, *LONG, "--resume")
        tiny.finish(tmp_path / "expected", *LONG)
        assert_same_run(tmp_path / "expected", tiny, elsewhere)


def test_run_writes_nothing_into_a_folder_that_was_replaced(tiny_graph, tmp_path, monkeypatch, capsys):
    folder, calls, optimizer_step = tmp_path / "run", [], core.training.loop.optimizer_step

    def replace_folder(*arguments):
        calls.append(1)
        if len(calls) == 5:
            folder.rename(tmp_path / "elsewhere")
            (folder / "checkpoint").mkdir(parents=True)
            (folder / ".lock").touch()
        return optimizer_step(*arguments)

    monkeypatch.setattr(core.training.loop, "optimizer_step", replace_folder)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.run_inline(folder)
    assert exit_.value.code == 1
    assert "the run's folder was removed or replaced during training" in capsys.readouterr().err
    assert sorted(path.name for path in folder.rglob("*")) == [".lock", "checkpoint"]
    assert_consistent(tmp_path / "elsewhere")


@pytest.mark.faults
def test_data_root_that_disappears_stops_only_new_runs(tiny, tmp_path):
    """A running command has all it needs; one started later says so and leaves its folder as it is."""
    data = shutil.copytree(tiny.data, tmp_path / "data")
    tiny, folder = replace(tiny, data=data), tmp_path / "run"
    process = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    data.rename(tmp_path / "away")
    assert process.wait(120) == 0, process.output()
    assert [line["epoch"] for line in metrics_of(folder)] == list(range(int(LONG[1]) + 1))

    (folder / "result.json").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    before.pop(folder / "config.json")  # it records that the last start had --resume
    resumed = tiny.run(folder, *LONG, "--resume")
    assert resumed.wait() == 2
    assert resumed.output().splitlines()[-1].startswith("error: ")
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert not changed


def test_clock_set_back_does_not_change_durations(tiny, tmp_path, monkeypatch):
    """Durations come from a monotonic clock."""
    hours = itertools.count(1_700_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    tiny.run_inline(tmp_path / "run")
    result = read_record(tmp_path / "run" / "result.json")
    assert 0 < result["train_seconds"] < 300
    assert 0 < result["eval_seconds"] < 300
    assert all(line["samples_per_second"] > 0 for line in metrics_of(tmp_path / "run")[1:])


@pytest.mark.parametrize("flags", [(), ("--seeds", "0,1")], ids=["one-run", "two-seeds"])
def test_metrics_removed_during_a_run_are_written_again(tiny_graph, tmp_path, monkeypatch, flags):
    append = Run.append_metrics

    def remove_first(self, line):
        (self.folder / "metrics.jsonl").unlink()
        append(self, line)

    monkeypatch.setattr(Run, "append_metrics", remove_first)
    tiny_graph.run_inline(tmp_path / "run", *flags)
    paths = list(tmp_path.rglob("metrics.jsonl"))
    assert len(paths) == (2 if flags else 1)
    for path in paths:
        assert [line["epoch"] for line in metrics_of(path.parent)] == [0, 1, 2, 3]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "printed"),
    [("[red]x[/bold]", "[red]x[/bold]"), ("\udcff", "\\udcff")],
    ids=["markup", "not-unicode"],
)
def test_folder_of_any_name_is_reported(tiny_graph, tmp_path, name, printed):
    output = tiny_graph.finish(tmp_path / name).output()
    assert output.splitlines()[-1] == f"run folder: {tmp_path}/{printed}"


def test_metrics_line_cut_by_a_full_disk_is_written_again(tiny_graph, finished_runs, tmp_path, monkeypatch):
    folder, cut = tmp_path / "run", []

    def fail_once(self, line):
        if line["epoch"] < 2 or cut:
            return append(self, line)
        cut.append(1)
        with self.writing("metrics.jsonl"), open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line)[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    append = Run.append_metrics
    monkeypatch.setattr(Run, "append_metrics", fail_once)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.run_inline(folder)
    assert exit_.value.code == 1
    tiny_graph.run_inline(folder, "--resume")
    assert_same_run(finished_runs("graph"), tiny_graph, folder)
