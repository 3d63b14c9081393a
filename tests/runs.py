"""What tests of all modalities' commands ask: how bad input ends, and what a run has written."""

import json

import pytest


def failure_of(main, capsys, flags):
    """The lines that a command with bad input prints on stderr, the last its error; its exit code is 2."""
    with pytest.raises(SystemExit) as exit_:
        main(list(flags))
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
