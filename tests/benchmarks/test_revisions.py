"""The comparison of two checkouts runs each command in both, and says which one failed."""

import pytest

from benchmarks import revisions
from benchmarks.revisions import Command, main

WAIT = "import time, pathlib; time.sleep(float(pathlib.Path('seconds').read_text()))"


@pytest.fixture
def checkouts(tmp_path):
    for name, seconds in (("old", 0.4), ("new", 0.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seconds").write_text(str(seconds))
    return [str(tmp_path / "old"), str(tmp_path / "new")]


def test_table_has_the_ratio_of_each_command(checkouts, tmp_path, monkeypatch):
    """Beside a busy process too."""
    commands = [Command("wait", ("-c", WAIT), busy=True), Command("fail", ("-c", "exit(2)"), status=2)]
    monkeypatch.setattr(revisions, "COMMANDS", commands)
    page = tmp_path / "page.md"
    main([*checkouts, "--rounds", "1", "--output", str(page)])
    rows = [line.split(" | ") for line in page.read_text().splitlines()[2:]]
    assert [row[0] for row in rows] == ["| wait", "| wait, busy", "| fail"]
    assert float(rows[0][3].rstrip(" |")) < 0.7


def test_command_that_fails_is_named(checkouts, monkeypatch, capsys):
    monkeypatch.setattr(revisions, "COMMANDS", [Command("wrong", ("-c", "raise ValueError('no data')"))])
    with pytest.raises(SystemExit) as exit_:
        main([*checkouts, "--rounds", "1"])
    assert exit_.value.code == 1
    assert f"error: wrong ended with 1 in {checkouts[0]}: ValueError: no data" in capsys.readouterr().err
