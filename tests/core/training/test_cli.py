"""Errors of a command: one line on stderr and an exit code, or a traceback for bugs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.io.errors import InputError, Interrupted, TrainingError
from core.training.cli import command, parse_config
from image.config import ImageConfig, defaults_for

ROOT = Path(__file__).parents[3]
MANY_LINES = "for number in range(100_000): print('line', number)"


def run_command(body: str, folder: Path = ROOT, **options) -> subprocess.Popen:
    """Start a process with a command that does ``body``; its stderr is read as text."""
    code = f"from core.training.cli import command\ndef main():\n    {body}\ncommand(main)()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def exit_code_of(error: BaseException) -> int:
    """The code with which a command ends that raises the error."""

    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


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
    assert exit_code_of(error) == code
    assert capsys.readouterr().err == line


def test_every_process_reports_bad_input(capsys, monkeypatch):
    """One machine of several may lack the data; the first process then knows nothing of it."""
    monkeypatch.setenv("RANK", "1")

    @command
    def main():
        raise InputError("`data_root` x does not exist")

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error in process 1: --data-root x does not exist\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
@pytest.mark.parametrize(("error", "code"), [(TrainingError("x"), 1), (Interrupted(signal.SIGTERM), 143)])
def test_what_all_processes_know_is_said_by_the_first(capsys, monkeypatch, rank, lines, error, code):
    monkeypatch.setenv("RANK", rank)

    assert exit_code_of(error) == code
    assert len(capsys.readouterr().err.splitlines()) == lines


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("flags", "known_to_all"),
    [
        (["--bathc-size", "4"], True),
        (["--batch-size", "1"], True),
        (["--epochs", "3", "--warmup", "5"], True),
        (["--dataset", "cifar11"], True),
        (["--seeds", "0-3"], True),
        (["--init", "nowhere"], False),
    ],
)
def test_wrong_flag_is_said_by_the_first_process(capsys, monkeypatch, rank, flags, known_to_all):
    """One file may be missing on one machine; a flag is wrong everywhere."""
    monkeypatch.setenv("RANK", str(rank))
    with pytest.raises(SystemExit) as exit_:
        command(lambda: parse_config(ImageConfig, defaults_for, flags, "image.train"))()
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == (0 if rank and known_to_all else 1)


def test_command_gives_the_signals_back():
    before = signal.getsignal(signal.SIGINT)
    command(lambda: None)()
    assert signal.getsignal(signal.SIGINT) is before


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


@pytest.mark.parametrize("body", [MANY_LINES, "print('lines', end='')"], ids=["many", "few"])
def test_command_ends_quietly_when_its_reader_has_left(body):
    """As ``| head`` does, before all is written or before anything is; the exit code is that of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    process = run_command(body, stdout=writer)
    os.close(writer)
    assert process.communicate()[1] == ""
    assert process.returncode == 141


def test_broken_pipe_of_something_else_keeps_its_traceback():
    process = run_command("raise BrokenPipeError", stdout=subprocess.DEVNULL)
    assert "BrokenPipeError" in process.communicate()[1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("body", [MANY_LINES, "print('lines', end='')"], ids=["many", "few"])
def test_full_disk_behind_stdout_is_one_line(body):
    with open("/dev/full", "w") as full:
        process = run_command(body, stdout=full)
    assert process.communicate()[1] == "error: the output cannot be written: No space left on device\n"
    assert process.returncode == 1


def test_terminal_that_takes_ascii_alone_gets_escapes():
    process = run_command("print('\\xe9 \\u2502')", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert process.communicate() == ("\\xe9 \\u2502\n", "")
    assert process.returncode == 0


def test_closed_streams_are_no_error(tmp_path):
    """As under a scheduler that gives a job no output."""
    command = ["sh", "-c", 'exec "$0" -m shared_eval.records "$1" >&- 2>&-', sys.executable, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_ctrl_c_during_an_import_ends_the_process_at_once(tmp_path):
    """Also if what is imported would turn the interrupt into an error of its own, as NumPy does."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException:\n"
        "    raise ImportError('cannot load module more than once per process')\n"
    )
    process = run_command("import slow", folder=tmp_path)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130


def test_ctrl_c_before_a_command_begins_shows_no_traceback(tmp_path):
    """While ``python -m`` still imports what defines it."""
    (tmp_path / "tyro.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    answer = subprocess.run(
        [sys.executable, "-m", "graph.train"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stderr) == (130, "interrupted\n")


def test_flag_with_underscores_selects_the_defaults_of_its_own():
    """tyro takes both spellings."""
    written = [
        parse_config(ImageConfig, defaults_for, [flag, "224"], "image.train")
        for flag in ("--view-size", "--view_size")
    ]
    assert written[0] == written[1]
    assert written[0].stem == "imagenet"
