"""Cached folders: killed processes, concurrent processes, and failures."""

import fcntl
import threading

import pytest

from core.io.cache import build_once, locked


def write_one(folder):
    (folder / "one.bin").write_bytes(b"one")
    return {"count": 1}


def test_folders_of_killed_processes_are_removed_and_locked_ones_are_not(tmp_path):
    abandoned, busy = (tmp_path / f".building-{name}" for name in ("abandoned", "busy"))
    for folder in (abandoned, busy, tmp_path / ".building-own"):
        folder.mkdir()
        (folder / "half.bin").write_bytes(b"half")
    with locked(tmp_path / "busy"):
        assert build_once(tmp_path / "own", write_one)["count"] == 1
    assert [path.name for path in tmp_path.glob(".building-*")] == [busy.name]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["manifest.json", "one.bin"]


def test_one_thread_builds_and_the_others_wait(tmp_path):
    built, results, began, may_end = [], [], threading.Event(), threading.Event()

    def build(folder):
        built.append(folder)
        began.set()
        assert may_end.wait(10)
        return write_one(folder)

    threads = [
        threading.Thread(target=lambda: results.append(build_once(tmp_path / "a", build))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    with pytest.raises(BlockingIOError), locked(tmp_path / "a", fcntl.LOCK_NB):
        pass
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert len(built) == 1
    assert [values["count"] for values in results] == [1, 1, 1]


def test_interrupted_build_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "a"
    build_once(folder, write_one)
    (folder / "one.bin").write_bytes(b"two")

    def fails(scratch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(folder, fails)
    assert (folder / "one.bin").read_bytes() == b"two"
    assert not list(tmp_path.glob(".building-*"))
