"""Cached folders: killed processes, concurrent processes, and failures."""

import fcntl
import os
import threading
import time

import pytest

from core.io import cache
from core.io.cache import build_once, locked, read_progress, save_progress
from core.io.digests import file_checksum


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


def test_files_of_a_folder_are_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino) or fsync(handle))
    build_once(tmp_path / "a", write_one)
    assert (tmp_path / "a" / "one.bin").stat().st_ino in flushed


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


def test_lock_that_was_removed_is_held_by_one_at_a_time(tmp_path, monkeypatch):
    """Who has opened its file before takes the new one, as who comes later does."""
    asks, holds, may_end = threading.Event(), threading.Event(), threading.Event()
    flock = fcntl.flock

    def wait():
        with locked(tmp_path / "a", remove=True):
            holds.set()
            assert may_end.wait(10)

    waiting = threading.Thread(target=wait)
    with locked(tmp_path / "a", remove=True):
        monkeypatch.setattr(fcntl, "flock", lambda *arguments: asks.set() or flock(*arguments))
        waiting.start()
        assert asks.wait(10)
    assert holds.wait(10)
    with pytest.raises(BlockingIOError), locked(tmp_path / "a", fcntl.LOCK_NB):
        pass
    may_end.set()
    waiting.join(10)
    assert not list(tmp_path.iterdir())


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


def test_stopped_build_is_resumed_and_a_failed_one_is_not(tmp_path):
    seen = []

    def build(folder, error):
        seen.append(read_progress(folder))
        save_progress(folder, len(seen))
        if error:
            raise error
        return "done"

    for error in (KeyboardInterrupt, OSError):
        with pytest.raises(error):
            build_once(tmp_path / "a", lambda folder, error=error: build(folder, error), resume=True)
    assert build_once(tmp_path / "a", lambda folder: build(folder, None), resume=True) == "done"
    assert seen == [None, 1, None]
    assert read_progress(tmp_path / "a") == 3


def test_changed_file_is_found_though_size_and_time_are_the_old_ones(tmp_path, capsys):
    build_once(tmp_path / "a", write_one)
    status = (tmp_path / "a" / "one.bin").stat()
    time.sleep(0.02)  # the clock of a file system ticks every 10 ms or more often
    (tmp_path / "a" / "one.bin").write_bytes(b"two")
    os.utime(tmp_path / "a" / "one.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert build_once(tmp_path / "a", write_one) == {"count": 1}
    assert "one.bin does not have the checksum" in capsys.readouterr().err
    assert (tmp_path / "a" / "one.bin").read_bytes() == b"one"


def test_file_is_read_again_only_after_its_times_have_changed(tmp_path, monkeypatch):
    read = []
    build_once(tmp_path / "a", write_one)
    monkeypatch.setattr(cache, "file_checksum", lambda path: read.append(path.name) or file_checksum(path))
    for _ in range(2):
        build_once(tmp_path / "a", write_one)
    assert read == []
    os.utime(tmp_path / "a" / "one.bin")  # as after a copy
    for _ in range(2):
        build_once(tmp_path / "a", write_one)
    assert read == ["one.bin"]
