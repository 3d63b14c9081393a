"""Processes for tests, forked from a server that has imported everything: they start in milliseconds."""

import contextlib
import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from core.distributed import process_group

# This module, and what commands import after their command line is checked.
PRELOADED = (__name__, "core.training.launch", "graph.task", "image.task", "sentence.task")
PRELOADED += ("sentence.quick_thought", "shared_eval.svm_folds", "shared_eval.reproduce.results")
# Audit events (PEP 578) that announce a change on disk.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")

# Importing torch and the rest takes seconds, a fork none.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


@dataclass
class TrainProcess:
    """A modality's training command in its own process."""

    process: multiprocessing.context.ForkServerProcess
    log: Path

    @classmethod
    def start(cls, module: str, flags: list[str], log: Path, die_at: int | None = None) -> "TrainProcess":
        """Start ``python -m module flags`` with its output in ``log``.

        With ``die_at=n`` the process kills itself just before change n, counted from 0, below
        ``--output-dir``.
        """
        process = _context.Process(target=_run_command, args=(module, flags, log, die_at))
        process.start()
        return cls(process, log)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, negative for a signal; None if the process still runs after ``seconds``."""
        self.process.join(seconds)
        return self.process.exitcode

    def signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def count_changes(module: str, flags: list[str], log: Path) -> int:
    """Number of changes on disk below ``--output-dir`` that a run makes from start to end."""
    process = TrainProcess.start(module, flags, log, die_at=-1)
    if process.wait():
        raise RuntimeError(process.output())
    return int(process.output().splitlines()[-1])


def _run_command(module: str, flags: list[str], log: Path, die_at: int | None) -> None:
    with open(log, "wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    changes = [0]
    if die_at is not None:
        _watch_changes(Path(flags[flags.index("--output-dir") + 1]), changes, die_at)
    try:
        importlib.import_module(module).main(flags)
    finally:
        if die_at is not None:
            print(changes[0], flush=True)


def _watch_changes(folder: Path, changes: list[int], die_at: int) -> None:
    """Count changes below ``folder`` and kill this process before change ``die_at``."""

    def hook(event: str, arguments: tuple) -> None:
        is_write = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not (is_write or event in CHANGES):
            return
        if any(isinstance(name, str | Path) and str(name).startswith(str(folder)) for name in arguments):
            if changes[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            changes[0] += 1

    sys.addaudithook(hook)


def in_processes(count: int, body: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``body(*arguments)`` on ``count`` ranks joined by gloo and return their results in rank order.

    Raises ProcessExitedException, which names the rank, if one dies.
    """
    answers = _context.SimpleQueue()
    launched = torch.multiprocessing.start_processes(
        _run_rank,
        (count, free_port(), answers, body, arguments),
        nprocs=count,
        join=False,
        start_method="forkserver",
    )
    results = dict(_next_answer(answers, launched) for _ in range(count))
    launched.join()
    failures = [error for _, error in results.values() if error]
    assert not failures, failures[0]
    return [results[rank][0] for rank in range(count)]


def _next_answer(answers: Any, launched: torch.multiprocessing.ProcessContext) -> tuple[int, Any]:
    while answers.empty():
        if launched.join(timeout=0.02) and answers.empty():
            raise RuntimeError("the ranks have ended, one without an answer")
    return answers.get()


def free_port() -> int:
    """A free port below 32768; from there on Linux may give a port to any other connection meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20000, 32768)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _run_rank(rank: int, count: int, port: int, answers: Any, body: Callable, arguments: tuple) -> None:
    environment = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in environment.items()}
    torch.set_num_threads(1)
    try:
        with process_group(torch.device("cpu")):
            answers.put((rank, (body(*arguments), None)))
            dist.barrier()
    except Exception:
        answers.put((rank, (None, traceback.format_exc())))
