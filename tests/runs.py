"""Helpers for tests of commands: how they end with bad input, how to interrupt them, what a run wrote."""

import json
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import core.training.loop
from core.training.checkpoints import Checkpoints


def failure_of(main: Callable, capsys: pytest.CaptureFixture, flags: Sequence[str | Path]) -> list[str]:
    """The lines on stderr of a command with bad input, the error last; asserts exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(list(flags))
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines


def forget_data(folder: Path, name: str) -> None:
    """Have a run's checkpoint lack a part of what it knows of its data, as those of earlier versions do."""
    checkpoints = Checkpoints(folder / "checkpoint")
    state = checkpoints.load()
    assert state["data"].pop(name)
    checkpoints.save(state)


def as_command(module: str) -> Callable[[Sequence[str]], None]:
    """``python -m module`` as a function of its flags, in this process: a new one takes seconds to import."""

    def main(flags: Sequence[str]) -> None:
        with mock.patch.object(sys, "argv", [module, *flags]), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported already
            runpy.run_module(module, run_name="__main__")

    return main


def printed_scores(
    main: Callable, capsys: pytest.CaptureFixture, flags: Sequence[str | Path]
) -> dict[str, str]:
    """The scores that a command prints, by name."""
    capsys.readouterr()
    main([str(flag) for flag in flags])
    return dict(line.split() for line in capsys.readouterr().out.splitlines())


def as_printed(metrics: dict[str, float]) -> dict[str, str]:
    """Scores of a record as ``printed_scores`` returns them."""
    return {name: f"{value:.4f}" for name, value in metrics.items()}


@contextmanager
def interrupted_before_step(step: int) -> Iterator[None]:
    """Interrupt the training inside, as Ctrl-C does, before this optimizer step; steps count from 1."""
    effects = [*[mock.DEFAULT] * (step - 1), KeyboardInterrupt]
    optimizer_step = core.training.loop.optimizer_step
    with (
        mock.patch.object(core.training.loop, "optimizer_step", side_effect=effects, wraps=optimizer_step),
        pytest.raises(SystemExit) as exit_,
    ):
        yield
    assert exit_.value.code == 130


@contextmanager
def counted_steps() -> Iterator[mock.Mock]:
    """Yield a mock that counts in ``call_count`` the optimizer steps of the training inside."""
    optimizer_step = core.training.loop.optimizer_step
    with mock.patch.object(core.training.loop, "optimizer_step", wraps=optimizer_step) as counter:
        yield counter


def result_of(folder: Path) -> dict[str, Any]:
    """The record of a finished run."""
    return json.loads((folder / "result.json").read_text())


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses_of(folder: Path) -> list[float]:
    """A run's loss in each epoch."""
    return [line["loss"] for line in metrics_of(folder)[1:]]


def epochs_and_losses(folder: Path) -> list[tuple[int, float | None]]:
    """Epoch and loss of each line of ``metrics.jsonl``; epoch 0 has no loss."""
    return [(line["epoch"], line.get("loss")) for line in metrics_of(folder)]
