"""Errors of a command: one line on stderr and an exit code, or a traceback for bugs."""

import numpy as np
import pytest
import torch

from core.io.errors import InputError, TrainingError
from core.training.cli import command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("`batch_size` is 1"), 2, "error: --batch-size is 1\n"),
        (TrainingError("the loss became nan"), 1, "error: the loss became nan\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["input", "training", "ctrl-c"],
)
def test_our_errors_end_in_one_line_and_a_code(capsys, error, code, line):
    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    assert capsys.readouterr().err == line


def test_bugs_keep_their_traceback():
    @command
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_other_errors_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="size"):
        command(lambda: torch.ones(2) @ torch.ones(3))()


def fail_on_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...\nSee ...")


def fail_in_python():
    raise MemoryError


@pytest.mark.parametrize(
    ("allocate", "how_much"),
    [
        (lambda: torch.empty(1 << 60, dtype=torch.uint8), f": {1 << 60} bytes more were asked for"),
        (lambda: np.empty(1 << 60, dtype=np.uint8), ": 1.00 EiB more were asked for"),
        (fail_on_gpu, ": 2.50 GiB more were asked for"),
        (fail_in_python, ""),
    ],
    ids=["torch", "numpy", "gpu", "python"],
)
def test_out_of_memory_is_one_line_with_advice(capsys, allocate, how_much):
    with pytest.raises(SystemExit) as exit_:
        command(allocate)()
    assert exit_.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out of memory{how_much}; try a smaller --batch-size")
