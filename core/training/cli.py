"""From a command line to settings, and from errors to one line and an exit code."""

import argparse
import contextlib
import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from core.io.errors import InputError, Interrupted, TrainingError, is_out_of_memory
from core.training.config import Config, flag


def parse_config(
    config_type: type[Config], recipe: Callable[..., Config], argv: Sequence[str] | None, prog: str
) -> Config:
    """Parse ``argv`` over the defaults that ``recipe`` gives for the names in it.

    ``recipe`` takes by keyword what selects defaults (``dataset``, ``objective``, ...), each with its own
    default; flags then override what it returns. Raises InputError for anything ``argv`` has wrong.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    names = inspect.signature(recipe).parameters
    selector = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        selector.add_argument(f"--{flag(name)}", nargs="?", default=argparse.SUPPRESS)
    chosen = {name: value for name, value in vars(selector.parse_known_args(argv)[0]).items() if value}
    return parse(config_type, argv, prog, default=recipe(**chosen)).checked()


Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], argv: Sequence[str] | None, prog: str, default: Parsed | None = None) -> Parsed:
    """Parse ``argv`` to a dataclass with tyro, its boxed errors made InputErrors of one line."""
    options = {} if default is None else {"default": default}
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                kind,
                args=sys.argv[1:] if argv is None else list(argv),
                prog=prog,
                config=(tyro.conf.FlagCreatePairsOff,),
                **options,
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise InputError(f"{_first_part_of_box(message.getvalue())}; see {prog} --help") from None


def _first_part_of_box(text: str) -> str:
    lines = []
    for line in (line.strip().strip("│").strip() for line in text.splitlines()[1:]):
        if line.startswith(("─", "╰")):
            break
        lines.append(line)
    return " ".join(lines).rstrip(".")


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
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"error: {_out_of_memory(error)}", file=sys.stderr)  # of several processes, any may be it
            sys.exit(1)

    return run


def _out_of_memory(error: MemoryError | RuntimeError) -> str:
    wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
    how_much = f": {wanted[1]} more were asked for" if wanted else ""
    tries = "a smaller --batch-size, a smaller encoder or, where there is one, --cache-chunk"
    return f"out of memory{how_much}; try {tries}"
