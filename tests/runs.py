"""Helpers for tests of commands: how bad input ends, and what a run has written."""

import json
import runpy
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


def failure_of(main: Callable, capsys: pytest.CaptureFixture, flags: Sequence[str | Path]) -> list[str]:
    """The lines on stderr of a command with bad input, the error last; asserts exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(list(flags))
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines


def as_command(module: str) -> Callable[[Sequence[str]], None]:
    """``python -m module`` as a function of its flags, in this process: a new one takes seconds to import."""

    def main(flags: Sequence[str]) -> None:
        with mock.patch.object(sys, "argv", [module, *flags]), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported already
            runpy.run_module(module, run_name="__main__")

    return main


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
