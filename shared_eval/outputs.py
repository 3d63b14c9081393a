"""What commands print and write: text and tables on stdout, and files. No name in them can break it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core.io.errors import InputError
from core.io.files import readable, write_atomically

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED_WIDTH = 100_000  # columns


def console(width: int | None = None) -> "Console":
    """A console for stdout, as wide as the terminal; unlimited if stdout is not one. Markup is off."""
    from rich.console import Console

    if width is None and not sys.stdout.isatty():
        width = UNLIMITED_WIDTH
    return Console(markup=False, emoji=False, highlight=False, width=width)


def fits(table: "Table") -> bool:
    """Whether stdout is wide enough to print the table without breaking words."""
    return console(UNLIMITED_WIDTH).measure(table).minimum <= console().width


def show_scores(scores: Mapping[str, float]) -> None:
    """Print scores, one a line."""
    for name, value in scores.items():
        print(f"{name} {value:.4f}")


def show(content: "str | Table") -> None:
    """Print a text or a table on stdout; characters that it cannot encode are escaped."""
    if not isinstance(content, str):
        stdout = console()
        with stdout.capture() as captured:
            stdout.print(content)
        content = captured.get().removesuffix("\n")
    print(readable(content, sys.stdout.encoding or "utf-8"))


def text_table(head: Iterable[str], rows: Iterable[Iterable[str]], title: str | None = None) -> "Table":
    """Texts as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def check_output(path: Path, overwrite: bool, suffixes: Sequence[str], name: str = "output") -> None:
    """Raise InputError unless a file of these suffixes can be written to ``path``, the argument ``name``."""
    if path.suffix.lower() not in suffixes:
        allowed = f"one of {', '.join(suffixes)}" if len(suffixes) > 1 else suffixes[0]
        raise InputError(f"`{name}` is {path}; its suffix must be {allowed}")
    if path.exists() and not path.is_file():
        raise InputError(f"`{name}` is {path}, which is not a regular file; choose another path")
    if path.exists() and not overwrite:
        raise InputError(f"`{name}` {path} exists; set `overwrite` to replace it, or choose another path")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of ``path``; an OSError inside becomes an InputError that names the path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another path") from error


def write_output(path: Path, content: str | bytes | Callable[[BinaryIO], Any]) -> None:
    """``write_atomically``, with the folder made first; InputError that names the path if it fails."""
    with writing(path):
        write_atomically(path, content)
