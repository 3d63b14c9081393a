"""Errors that are for people: one line on stderr and an exit code, never a traceback."""

import functools
import os
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something given was wrong (a flag, a file, a folder): says what, and what would be right."""

    exit_code = 2


class TrainingError(Exception):
    """A run that cannot go on (a loss that is no number): says where, and what to try."""

    exit_code = 1


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Make ``main`` end in one clear line and its exit code where it raises one of our errors."""

    @functools.wraps(main)
    def run(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except (InputError, TrainingError) as error:
            if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
                print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run
