"""Trainers as real processes that can be killed, forked from one that has imported everything already."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

MODULES = ("graph.train", "image.train", "sentence.train")
# Audit events (PEP 578) that announce a change on disk.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")

# An import of torch and all else takes seconds, a fork none.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(MODULES))


@dataclass
class Trainer:
    """A modality's command in a process of its own."""

    process: multiprocessing.Process
    output: Path

    @classmethod
    def start(cls, module: str, flags: list[str], output: Path, die_at: int | None = None) -> "Trainer":
        """Start ``python -m module flags``; what it says goes to ``output``.

        With ``die_at`` the process kills itself just before its so-manieth change below ``--output-dir``,
        counted from 0.
        """
        process = _context.Process(target=_main, args=(module, flags, output, die_at))
        process.start()
        return cls(process, output)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, a signal's number negative; None where it still runs after so many seconds."""
        self.process.join(seconds)
        return self.process.exitcode

    def signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)

    def said(self) -> str:
        return self.output.read_text(errors="replace")


def changes_of(module: str, flags: list[str], output: Path) -> int:
    """How many changes below its ``--output-dir`` a run makes from its start to its end."""
    if Trainer.start(module, flags, output, die_at=-1).wait():
        raise RuntimeError(output.read_text())
    return int(output.read_text().splitlines()[-1])


def _main(module: str, flags: list[str], output: Path, die_at: int | None) -> None:
    with open(output, "wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    counted = [0]
    if die_at is not None:
        _count_changes(Path(flags[flags.index("--output-dir") + 1]), counted, die_at)
    try:
        importlib.import_module(module).main(flags)
    finally:
        if die_at is not None:
            print(counted[0], flush=True)


def _count_changes(folder: Path, counted: list[int], die_at: int) -> None:
    def hook(event: str, arguments: tuple) -> None:
        is_write = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not (is_write or event in CHANGES):
            return
        if any(isinstance(name, str | Path) and str(name).startswith(str(folder)) for name in arguments):
            if counted[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            counted[0] += 1

    sys.addaudithook(hook)
