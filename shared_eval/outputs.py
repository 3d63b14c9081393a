"""What commands give to people: text and tables on stdout, and files. No name in them can stop it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.io.errors import InputError
from core.io.files import readable

UNBOUNDED = 100_000  # columns


def console(width: int | None = None) -> Console:
    """Of stdout, and of its width: of any where it is no terminal. Brackets and colons are no markup."""
    if width is None and not sys.stdout.isatty():
        width = UNBOUNDED
    return Console(markup=False, emoji=False, highlight=False, width=width)


def fits(table: Table) -> bool:
    """Whether stdout is wide enough for the table without breaking its words."""
    return console(UNBOUNDED).measure(table).minimum <= console().width


def show(shown: str | Table) -> None:
    """Print a text or a table on stdout."""
    if isinstance(shown, Table):
        here = console()
        with here.capture() as captured:
            here.print(shown)
        shown = captured.get().removesuffix("\n")
    print(readable(shown, sys.stdout.encoding or "utf-8"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, ``path`` has a folder; what the disk refuses there is an InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error
