"""From a command line to settings, and from an error to one line and an exit code."""

import argparse
import contextlib
import errno
import functools
import inspect
import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, takewhile
from typing import Any, TypeVar

import tyro

from core.io.errors import ArgumentError, InputError, Interrupted, TrainingError, is_out_of_memory
from core.training import signals
from core.training.config import GroupConfig
from core.training.describe import is_finished
from core.training.settings import Config
from core.training.threads import let_waiting_threads_sleep

Parsed = TypeVar("Parsed")
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
OF_A_DATASET = "Defaults are those of --dataset {}; give --dataset NAME before --help for another's."
# In what a collective of gloo or NCCL raises when a process has ended.
SIGNS_OF_LOST_PROCESS = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
BOX_DRAWING = re.compile(r"[\u2500-\u257f]+")


def flag(name: str) -> str:
    """A setting's name as its flag."""
    return f"--{name.replace('_', '-')}"


def with_dashes(word: str) -> str:
    """A word of a command line, with dashes in the name of a flag: tyro takes ``--view_size`` too."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def with_flags(message: str) -> str:
    """A message with every ``argument`` in backquotes written as its flag."""
    return re.sub(r"`([A-Za-z_]\w*)`", lambda match: flag(match[1]), message)


def parse_config(
    config_type: type[Config], defaults_for: Callable[..., Config], argv: Sequence[str] | None, prog: str
) -> Config:
    """Parse ``argv`` over the defaults that ``defaults_for`` returns.

    ``defaults_for`` takes by keyword what selects defaults (``dataset``, ``objective``, ...), each with a
    default of its own. Raises InputError for anything that is wrong in ``argv``; an ArgumentError unless that
    depends on files.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    wants_group = any(re.match("--(seeds|betas)(=|$)", word) for word in argv)
    if wants_group and not issubclass(config_type, GroupConfig):
        raise ArgumentError(
            f"{config_type.modality} training does not support `seeds` and `betas`: a process trains one "
            "run; start one for each `seed`, or use python -m shared_eval.reproduce"
        )
    selector = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in inspect.signature(defaults_for).parameters:
        selector.add_argument(flag(name), nargs="?", default=argparse.SUPPRESS)
    dashed = [with_dashes(word) for word in argv]
    selected = {name: value for name, value in vars(selector.parse_known_args(dashed)[0]).items() if value}
    with known_to_all_processes():
        default = defaults_for(**selected)
        about = inspect.getdoc(config_type) or ""
        if "dataset" in inspect.signature(defaults_for).parameters:
            about += f" {OF_A_DATASET.format(default.dataset)}"
        config = parse(config_type, argv, prog, default=default, description=about).checked()
    try:
        with known_to_all_processes():
            config.check_effects()
        config.check_dataset()
    except InputError:
        # A finished run is reported as such also where its data have been removed.
        if not all(is_finished(run, run.folder()) for run in config.expand()):
            raise
    return config


@contextlib.contextmanager
def known_to_all_processes() -> Iterator[None]:
    """Inside, an InputError becomes an ArgumentError."""
    try:
        yield
    except InputError as error:
        raise ArgumentError(str(error)) from error


def parse(
    kind: type[Parsed],
    argv: Sequence[str] | None,
    prog: str,
    default: Parsed | None = None,
    description: str | None = None,
) -> Parsed:
    """Parse ``argv`` to a dataclass with tyro; what tyro reports becomes an ArgumentError of one line.

    Help begins with the ``description``, by default the dataclass's docstring.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                kind,
                args=sys.argv[1:] if argv is None else list(argv),
                prog=prog,
                description=description,
                **options,
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise ArgumentError(f"{first_paragraph(message.getvalue())}; see {prog} --help") from None


def first_paragraph(text: str) -> str:
    """The first paragraph of a text, on one line, without the title and the lines of a box around it."""
    lines = [BOX_DRAWING.sub(" ", line).strip() for line in text.splitlines()]
    body = lines[1:] if len(lines) > 1 else lines
    return " ".join(takewhile(bool, dropwhile(lambda line: not line, body))).rstrip(".")


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Make ``main`` end in one line on stderr and an exit code if it raises one of our errors."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        let_waiting_threads_sleep()
        _prepare_streams()
        try:
            try:
                with signals.leave_during_imports():
                    _exit_on_errors(main, *args, **kwargs)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _reader_has_left():
                sys.exit(BROKEN_PIPE)
            if error.errno != errno.ENOSPC:
                raise
            _discard(1)
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(1)

    return run


def _prepare_streams() -> None:
    """Have stdout and stderr take any text: a terminal may take ASCII alone, and they may be closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- as long as the process runs
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _exit_on_errors(main: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    rank = os.environ.get("RANK", "0")
    is_main = rank == "0"  # of several processes one reports what all of them know
    try:
        main(*args, **kwargs)
    except InputError as error:
        if is_main or not isinstance(error, ArgumentError):  # any process may lack data or a GPU
            where = "" if is_main else f" in process {rank}"
            print(f"error{where}: {with_flags(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TrainingError as error:
        if is_main:
            print(f"error: {with_flags(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted as interruption:
        if is_main:
            print(with_flags(str(interruption)), file=sys.stderr)
        sys.exit(interruption.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            print(f"error: {with_flags(_out_of_memory(error))}", file=sys.stderr)  # any rank may be the one
        elif "RANK" in os.environ and any(sign in str(error) for sign in SIGNS_OF_LOST_PROCESS):
            print(f"error in process {rank}: another process has ended, for its own error", file=sys.stderr)
        else:
            raise
        sys.exit(1)


def _reader_has_left() -> bool:
    """Whether stdout or stderr is a pipe without a reader, as after ``| head``; discard what it holds."""
    closed = []
    for stream in (1, 2):
        poll = select.poll()
        poll.register(stream, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            closed.append(stream)
            _discard(stream)
    return bool(closed)


def _discard(stream: int) -> None:
    """Send what a stream still holds to /dev/null: Python writes it at exit, and reports if it cannot."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _out_of_memory(error: MemoryError | RuntimeError) -> str:
    wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
    how_much = f": {wanted[1]} more were asked for" if wanted else ""
    tries = "a smaller `batch_size`, a smaller encoder or, where there is one, `cache_chunk`"
    return f"out of memory{how_much}; try {tries}"
