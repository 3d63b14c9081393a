"""A disk that is full, read-only or gone, and a clock that goes backwards: one line, and nothing lost."""

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
from tests.faults.test_signals import has_trained, wait_for
from tests.faults.tiny import check_is_as, check_is_consistent
from tests.runs import metrics_of

LONG = ("--epochs", "80")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Leave no byte of a disk."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_full_disk(tiny, small_disk, tmp_path):
    tiny.run(tmp_path / "whole", *LONG)
    folder = small_disk / "run"
    trainer = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    fill(small_disk)
    assert trainer.wait(120) == 1
    [error] = [line for line in trainer.said().splitlines() if line.startswith("error: ")]
    assert "cannot be written: No space left on device; what is there is whole" in error
    assert "Traceback" not in trainer.said()
    check_is_consistent(folder)
    (small_disk / "filler").unlink()
    resumed = tiny.run(folder, *LONG, "--resume")
    assert resumed.wait() == 0, resumed.said()
    check_is_as(tmp_path / "whole", tiny, folder)


def test_a_read_only_disk(tiny, whole_runs, small_disk):
    """A run cannot be begun there; one that is finished is reported."""
    shutil.copytree(whole_runs(tiny.modality), small_disk / "finished")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    trainer = tiny.run(small_disk / "run")
    assert trainer.wait() == 2
    said = trainer.said().splitlines()
    assert said == [f"error: --output-dir {small_disk / 'run'} cannot be written: Read-only file system"]
    finished = tiny.run(small_disk / "finished")
    assert finished.wait() == 0
    assert "run folder:" in finished.said()


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_folder_that_is_gone(tiny, tmp_path, how):
    """The run ends and makes no new one; a folder that was moved goes on where it is."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    trainer = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    folder.rename(elsewhere)
    if how == "removed":
        shutil.rmtree(elsewhere)
    assert trainer.wait(60) == 1
    assert "cannot be written: the run's folder was removed or replaced" in trainer.said()
    assert "Traceback" not in trainer.said()
    assert not folder.exists()
    if how == "moved":
        check_is_consistent(elsewhere)
        resumed = tiny.run(elsewhere, *LONG, "--resume")
        assert resumed.wait() == 0, resumed.said()
        tiny.run(tmp_path / "whole", *LONG)
        check_is_as(tmp_path / "whole", tiny, elsewhere)


def test_a_folder_of_another_run(tiny_graph, tmp_path, monkeypatch, capsys):
    """Removed and begun anew by somebody else: nothing is written into it."""
    folder, taken, optimizer_step = tmp_path / "run", [], core.training.loop.optimizer_step

    def replace_folder(*arguments):
        taken.append(1)
        if len(taken) == 5:
            folder.rename(tmp_path / "elsewhere")
            (folder / "checkpoint").mkdir(parents=True)
            (folder / ".lock").touch()
        return optimizer_step(*arguments)

    monkeypatch.setattr(core.training.loop, "optimizer_step", replace_folder)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.here(folder)
    assert exit_.value.code == 1
    assert "the run's folder was removed or replaced while it ran" in capsys.readouterr().err
    assert sorted(path.name for path in folder.rglob("*")) == [".lock", "checkpoint"]
    check_is_consistent(tmp_path / "elsewhere")


def test_a_data_root_that_is_gone(tiny, tmp_path):
    """What has begun has all it needs; what is begun without it says so, and its folder stays as it was."""
    data = shutil.copytree(tiny.data, tmp_path / "data")
    tiny, folder = replace(tiny, data=data), tmp_path / "run"
    trainer = tiny.start(folder, *LONG)
    wait_for(lambda: has_trained(folder))
    data.rename(tmp_path / "away")
    assert trainer.wait(120) == 0, trainer.said()
    assert [line["epoch"] for line in metrics_of(folder)] == list(range(81))

    (folder / "result.json").unlink()
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    kept.pop(folder / "config.json")  # it says that the last start had --resume
    resumed = tiny.run(folder, *LONG, "--resume")
    assert resumed.wait() == 2
    assert resumed.said().splitlines()[-1].startswith("error: ")
    changed = {path for path, content in kept.items() if path.read_bytes() != content}
    assert not changed


def test_a_clock_that_goes_backwards(tiny, tmp_path, monkeypatch):
    """Seconds are those of a clock that cannot be set."""
    hours = itertools.count(1_700_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    tiny.here(tmp_path / "run")
    result = read_record(tmp_path / "run" / "result.json")
    assert 0 < result["train_seconds"] < 300
    assert 0 < result["eval_seconds"] < 300
    assert all(line["samples_per_second"] > 0 for line in metrics_of(tmp_path / "run")[1:])


@pytest.mark.parametrize("flags", [(), ("--seeds", "0,1")])
def test_metrics_that_are_removed_meanwhile(tiny_graph, tmp_path, monkeypatch, flags):
    """All lines are there in the end."""
    append = Run.append_metrics

    def remove_first(self, line):
        (self.folder / "metrics.jsonl").unlink()
        append(self, line)

    monkeypatch.setattr(Run, "append_metrics", remove_first)
    tiny_graph.here(tmp_path / "run", *flags)
    found = list(tmp_path.rglob("metrics.jsonl"))
    assert len(found) == (2 if flags else 1)
    for path in found:
        assert [line["epoch"] for line in metrics_of(path.parent)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "shown"), [("[red]x[/bold]", "[red]x[/bold]"), ("\udcff", "\\udcff")])
def test_a_folder_of_any_name_is_reported(tiny_graph, tmp_path, name, shown):
    trainer = tiny_graph.run(tmp_path / name)
    assert trainer.wait() == 0, trainer.said()
    assert trainer.said().splitlines()[-1] == f"run folder: {tmp_path}/{shown}"


def test_an_append_that_fails_halfway(tiny_graph, whole_runs, tmp_path, monkeypatch):
    """A line of metrics.jsonl cut short is not read, and written anew."""
    folder, cut = tmp_path / "run", []

    def fail(self, line):
        if line["epoch"] < 2 or cut:
            return append(self, line)
        cut.append(1)
        with self._writing("metrics.jsonl"), open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line)[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    append = Run.append_metrics
    monkeypatch.setattr(Run, "append_metrics", fail)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.here(folder)
    assert exit_.value.code == 1
    tiny_graph.here(folder, "--resume")
    check_is_as(whole_runs("graph"), tiny_graph, folder)
