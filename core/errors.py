"""Errors that are for people: one line on stderr and an exit code, never a traceback."""

import functools
import os
import signal
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something given was wrong (a flag, a file, a folder): says what, and what would be right."""

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # a file's name may have line ends in it


class TrainingError(Exception):
    """A run that cannot go on (a loss that is no number): says where, and what to try."""

    exit_code = 1


class DivergedError(TrainingError):
    """Training has left what can be computed, or what is worth computing: why, and from which step on."""

    def __init__(self, reason: str, epoch: int, step: int, message: str) -> None:
        self.reason, self.epoch, self.step = reason, epoch, step
        super().__init__(message)


class DamagedFileError(ValueError):
    """A file is not what was written, or of a schema that this code does not read."""


class Interrupted(BaseException):
    """A signal asked the process to leave; no Exception, so that nothing that catches those swallows it."""

    def __init__(self, signum: int, where: str = "", go_on: str = "the same command and --resume") -> None:
        self.signum, self.exit_code = signum, 128 + signum
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(f"interrupted by {name}{where}; what was trained is kept: go on with {go_on}")


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Make ``main`` end in one clear line and its exit code where it raises one of our errors."""

    @functools.wraps(main)
    def run(*args, **kwargs) -> None:
        speaks = os.environ.get("RANK", "0") == "0"  # of several processes, one
        try:
            main(*args, **kwargs)
        except (InputError, TrainingError) as error:
            if speaks:
                print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except Interrupted as interruption:
            if speaks:
                print(interruption, file=sys.stderr)
            sys.exit(interruption.exit_code)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run
