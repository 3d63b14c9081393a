"""Errors that are for people: one line on stderr and an exit code, never a traceback."""

import signal


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


class NewerSchemaError(DamagedFileError):
    """A file was written by newer code than this."""


class Interrupted(BaseException):
    """A signal asked the process to leave; no Exception, so that nothing that catches those swallows it."""

    def __init__(
        self,
        signum: int,
        where: str = "",
        kept: str = "what was trained is kept",
        go_on: str = "the same command and --resume",
    ) -> None:
        self.signum, self.exit_code = signum, 128 + signum
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(f"interrupted by {name}{where}; {kept}: go on with {go_on}")


def reason_of(error: Exception) -> str:
    """What a library's error says, on one line and no longer than anybody reads."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python's, NumPy's or torch's error of that kind; on CPUs torch has no type for it."""
    signs = ("out of memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
