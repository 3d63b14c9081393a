"""The comparison of two checkouts runs each command in both, and says which one failed."""

import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import revisions
from benchmarks.revisions import Command, main

SECONDS = {"old": 0.5, "new": 0.125}


@pytest.fixture
def checkouts(tmp_path):
    for name in SECONDS:
        (tmp_path / name).mkdir()
    return [str(tmp_path / name) for name in SECONDS]


@pytest.fixture
def clock(monkeypatch):
    """A clock on which commands take their checkout's seconds, three times as long beside a busy process."""
    clock = SimpleNamespace(now=100.0, factor=1.0)
    run, resumed = subprocess.run, revisions.BusyProcess.resumed

    def timed_run(arguments, cwd, **options):
        done = run(arguments, cwd=cwd, **options)
        clock.now += SECONDS[Path(cwd).name] * clock.factor
        return done

    @contextmanager
    def slow_while_resumed(process):
        with resumed(process):
            clock.factor = 3.0
            yield
        clock.factor = 1.0

    monkeypatch.setattr(revisions.subprocess, "run", timed_run)
    monkeypatch.setattr(revisions.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(revisions.BusyProcess, "resumed", slow_while_resumed)


def test_table_has_the_ratio_of_each_command(checkouts, clock, tmp_path, monkeypatch):
    """Each command runs in both checkouts, beside a busy process too."""
    note = ("-c", "print('here', file=open('calls', 'a'))")
    commands = [Command("note", note, busy=True), Command("fail", ("-c", "exit(2)"), status=2)]
    monkeypatch.setattr(revisions, "COMMANDS", commands)
    page = tmp_path / "page.md"
    main([*checkouts, "--rounds", "1", "--output", str(page)])
    assert page.read_text().splitlines()[2:] == [
        "| note | 0.5 s | 0.125 s | 0.25 |",
        "| note, busy | 1.5 s | 0.375 s | 0.25 |",
        "| fail | 0.5 s | 0.125 s | 0.25 |",
    ]
    assert [(tmp_path / name / "calls").read_text() for name in SECONDS] == ["here\nhere\n"] * 2


def test_command_that_fails_is_named(checkouts, monkeypatch, capsys):
    monkeypatch.setattr(revisions, "COMMANDS", [Command("wrong", ("-c", "raise ValueError('no data')"))])
    with pytest.raises(SystemExit) as exit_:
        main([*checkouts, "--rounds", "1"])
    assert exit_.value.code == 1
    assert f"error: wrong ended with 1 in {checkouts[0]}: ValueError: no data" in capsys.readouterr().err
