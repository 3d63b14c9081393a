"""Commands of two revisions: each runs in both, with its own code, and one that fails is left out."""

import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import revisions
from benchmarks.measure import ROOT, Findings
from benchmarks.revisions import COMMANDS, NOW, Command
from benchmarks.settings import RevisionSettings
from core.io.errors import InputError

CPU = torch.device("cpu")
SECONDS = {"old": 0.5, "new": 0.125}
RECORD = "import json; json.dump({'train_seconds': 6.0}, open('result.json', 'w'))"


@pytest.fixture
def checkouts(tmp_path, monkeypatch):
    """An older revision and this checkout, as two folders."""
    folders = {name: tmp_path / name for name in SECONDS}
    for folder in folders.values():
        folder.mkdir()

    @contextmanager
    def older(revision):
        assert revision == "old"
        yield str(folders["old"])

    monkeypatch.setattr(revisions, "checkout", older)
    monkeypatch.setattr(revisions, "ROOT", folders["new"])
    return folders


@pytest.fixture
def clock(monkeypatch):
    """A clock on which commands take their checkout's seconds, three times as long beside a busy process."""
    clock = SimpleNamespace(now=100.0, factor=1.0)
    run, resumed = subprocess.run, revisions.BusyProcess.resumed

    def timed_run(arguments, env, **options):
        done = run(arguments, env=env, **options)
        clock.now += SECONDS[Path(env["PYTHONPATH"]).name] * clock.factor
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


def measured(monkeypatch, *commands: Command) -> Findings:
    monkeypatch.setattr(revisions, "COMMANDS", {command.case: command for command in commands})
    findings = Findings()
    revisions.measure(RevisionSettings(old="old", rounds=2), CPU, findings)
    return findings


def test_each_command_runs_in_both_and_is_held_against_its_goals(checkouts, clock, monkeypatch):
    code = "import here"
    for folder in checkouts.values():
        (folder / "here.py").write_text(
            "import os; print('', file=open(f'{os.path.dirname(__file__)}/ran', 'a'))"
        )
    quick = Command("quick", ("-c", code), is_busy=True, at_most=0.1)
    findings = measured(monkeypatch, quick, Command("wrong", ("-c", "exit(2)"), 2, is_long=True))
    cases = {each["case"]: each for each in findings.comparisons}
    assert list(cases) == ["quick", "quick, busy", "wrong"]
    assert cases["quick"]["ratios"] == cases["quick, busy"]["ratios"] == {NOW: 0.25}
    assert [cases[name]["subjects"]["old"]["rounds"] for name in ("quick", "wrong")] == [2, 1]
    assert cases["quick, busy"]["subjects"][NOW]["median_seconds"] == pytest.approx(0.375)
    assert [(each["goal"], each["measured"], each["at_most"]) for each in findings.goals] == [
        ("quick", 0.125, 0.1),
        ("quick, relative to old", 0.25, 1.05),
        ("quick, busy relative to idle", 3.0, 2.5),
        ("wrong, relative to old", 0.25, 1.05),
    ]
    assert [(folder / "ran").read_text() for folder in checkouts.values()] == ["\n" * 4] * 2


def test_seconds_of_training_are_those_of_its_record(checkouts, monkeypatch):
    findings = measured(monkeypatch, Command("training", ("-c", RECORD), epochs=3))
    [comparison] = findings.comparisons
    assert comparison["subjects"][NOW]["median_seconds"] == 2.0


@pytest.mark.parametrize("flags", ["", "w"])
def test_target_of_make_runs_as_its_makefile_has_it(checkouts, monkeypatch, flags):
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("MAKEFLAGS", flags)
    for folder, code in zip(checkouts.values(), ("exit(3)", "exit(4)"), strict=True):
        (folder / "Makefile").write_text(
            f"demo: ready\n\t.venv/bin/python -c '{code}'\nready:\n\ttouch ready\n"
        )
    findings = measured(monkeypatch, Command("demo", ("make", "demo"), status=3))
    assert findings.comparisons == []
    assert findings.notes == [f"Left out: demo ended with 4 in {checkouts['new']}: no message."]
    assert not any((folder / "ready").exists() for folder in checkouts.values())


def test_command_that_fails_is_left_out(checkouts, monkeypatch):
    wrong = Command("wrong", ("-c", "raise ValueError('no data')"))
    findings = measured(monkeypatch, wrong, Command("right", ("-c", "")))
    assert findings.notes == [f"Left out: wrong ended with 1 in {checkouts['old']}: ValueError: no data."]
    assert [each["case"] for each in findings.comparisons] == ["right"]


def test_unknown_commands_and_revisions_are_refused():
    with pytest.raises(InputError, match=r"--revisions.commands has 'demos'; it may have help, flag, "):
        revisions.measure(RevisionSettings(commands=("demos",)), CPU, Findings())
    with pytest.raises(InputError, match=r"git has no files of --revisions.old no-such-revision: "):
        revisions.checkout("no-such-revision")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository's history")
def test_checkout_has_the_files_of_a_revision():
    with revisions.checkout("HEAD") as folder:
        assert (Path(folder) / "core" / "__init__.py").exists()
        assert not (Path(folder) / ".git").exists()
    assert not Path(folder).exists()


def test_every_module_that_commands_import_exists():
    """Else the older import would be measured in its place."""
    for command in COMMANDS.values():
        if command.arguments[0] == "-c":
            module = command.arguments[1].split()[2]
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
