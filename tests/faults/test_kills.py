"""SIGKILL at any moment: a run goes on, and ends in what an uninterrupted one ends in, bit for bit."""

import random
import shutil
import time

import pytest

from tests.faults.tiny import check_is_as, check_is_consistent
from tests.processes import changes_of


def test_killed_at_random_moments(tiny, whole_runs, tmp_path):
    whole, folder = whole_runs(tiny.modality), tmp_path / "run"
    began = time.monotonic()
    tiny.run(tmp_path / "timed")
    duration = time.monotonic() - began
    draw, kills = random.Random(0), 0
    while kills < 3:
        trainer = tiny.start(folder, "--resume")
        if trainer.wait(draw.uniform(0.2, 0.9) * duration) is None:
            trainer.process.kill()
            trainer.wait()
            check_is_consistent(folder)
            kills += 1
            continue
        assert trainer.wait() == 0, trainer.said()
        if kills:
            break
        duration /= 2  # the machine has become faster: begin anew, and kill sooner
        shutil.rmtree(folder)
    last = tiny.run(folder, "--resume")
    assert last.wait() == 0, last.said()
    check_is_as(whole, tiny, folder)


@pytest.mark.parametrize("where", ["start", "steps", "end"])
def test_killed_before_a_change_on_disk(tiny, whole_runs, tmp_path, where):
    """Just before a file is written, renamed or removed: whatever is there then is enough."""
    whole = whole_runs(tiny.modality)
    changes = changes_of(tiny.module, tiny.flags(tmp_path / "counted"), tmp_path / "counted.log")
    assert changes > 30
    places = {"start": range(1, 8, 3), "steps": range(15, 19), "end": range(changes - 12, changes, 3)}
    for die_at in places[where]:
        folder = tmp_path / f"run{die_at}"
        assert tiny.start(folder, die_at=die_at).wait(60) == -9
        check_is_consistent(folder)
        last = tiny.run(folder, "--resume")
        assert last.wait() == 0, last.said()
        check_is_as(whole, tiny, folder)
