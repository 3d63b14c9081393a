"""Errors that are for people: one line on stderr and an exit code, never a traceback."""

import difflib
import os
import signal
from collections.abc import Collection, Iterable


class InputError(Exception):
    """An argument, a file or a folder is wrong; the message says what was given and what is allowed.

    Arguments are named in backquotes, as in "`batch_size` is 1"; the command line prints them as flags.
    """

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # the name of a file may contain line ends


class ArgumentError(InputError):
    """An argument is wrong whatever files there are: of several processes, all know it and one says it."""


class TrainingError(Exception):
    """A run failed while it trained; the message says where, and what to try."""

    exit_code = 1


class DivergedError(TrainingError):
    """Training diverged or collapsed; ``reason`` says how, ``epoch`` and ``step`` say when."""

    def __init__(self, reason: str, epoch: int, step: int, message: str) -> None:
        self.reason, self.epoch, self.step = reason, epoch, step
        super().__init__(message)


class DamagedFileError(ValueError):
    """A file is damaged, or has a schema that this code does not read."""


class NewerSchemaError(DamagedFileError):
    """A file was written by a newer version of this code."""


class Interrupted(BaseException):
    """A signal stops the process. Not an Exception: no handler for those may swallow it."""

    def __init__(
        self,
        signum: int,
        where: str = "",
        kept: str = "what was trained is kept",
        resume_with: str = "the same command and `resume`",
    ) -> None:
        self.signum, self.exit_code = signum, 128 + signum
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(f"interrupted by {name}{where}; {kept}: resume with {resume_with}")


def reason_of(error: Exception) -> str:
    """The message of a library's error on one line of at most 200 characters, or the error's type."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean cifar10?"`` if a known name is similar, in any case of letters; otherwise empty."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""


def unknown_name(argument: str, name: str, known: Collection[str], more: str = "") -> ArgumentError:
    """The error for a name that is not a known one; ``more`` says what else ``argument`` may be.

    A path that exists gets its prefix suggested where ``folder:PATH`` or ``lines:PATH`` is known.
    """
    listed = ", ".join(known) + more
    prefix = "folder:" if os.path.isdir(name) else "lines:" if os.path.isfile(name) else None
    if prefix and f"{prefix}PATH" in listed:
        hint = f"; did you mean {prefix}{name}?"
    else:
        hint = did_you_mean(name, known) or "."
    return ArgumentError(f"{argument} is {name!r}, which is unknown{hint} Known: {listed}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or torch ran out of memory; on CPUs torch has no error type for it."""
    signs = ("out of memory", "can't allocate memory", "bad_alloc", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
