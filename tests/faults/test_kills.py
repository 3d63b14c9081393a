"""SIGKILL at any moment: the resumed run equals an uninterrupted one, bit for bit."""

import random
import shutil
import time

import pytest

from tests.faults.tiny import assert_consistent, assert_same_run
from tests.processes import count_changes

pytestmark = pytest.mark.faults


def test_kills_at_random_moments_lose_nothing(tiny, finished_runs, tmp_path):
    expected, folder = finished_runs(tiny.modality), tmp_path / "run"
    started = time.monotonic()
    tiny.run(tmp_path / "timed")
    duration = time.monotonic() - started
    draw, kills = random.Random(0), 0
    while kills < 3:
        process = tiny.start(folder, "--resume")
        if process.wait(draw.uniform(0.2, 0.9) * duration) is None:
            process.process.kill()
            process.wait()
            assert_consistent(folder)
            kills += 1
            continue
        assert process.wait() == 0, process.output()
        if kills:
            break
        duration /= 2  # the machine is faster now: start over, and kill sooner
        shutil.rmtree(folder)
    tiny.finish(folder, "--resume")
    assert_same_run(expected, tiny, folder)


@pytest.mark.parametrize("where", ["start", "steps", "end"])
def test_kill_before_a_change_on_disk_loses_nothing(tiny, finished_runs, tmp_path, where):
    """Killed just before a file is written, renamed or removed, a run still resumes."""
    expected = finished_runs(tiny.modality)
    changes = count_changes(tiny.module, tiny.flags(tmp_path / "counted"), tmp_path / "counted.log")
    assert changes > 30
    numbers = {"start": range(1, 8, 3), "steps": range(15, 19), "end": range(changes - 12, changes, 3)}
    for die_at in numbers[where]:
        folder = tmp_path / f"run{die_at}"
        assert tiny.start(folder, die_at=die_at).wait(60) == -9
        assert_consistent(folder)
        tiny.finish(folder, "--resume")
        assert_same_run(expected, tiny, folder)
