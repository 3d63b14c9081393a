"""The bar that shows how far a command is."""

import os

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(*, of_bytes: bool = False, any_rank: bool = False) -> Progress:
    """A bar with the time left on stderr; silent if that is not a terminal.

    Of several processes the first shows it; with ``any_rank`` the one that works while the others wait.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if of_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal and (any_rank or os.environ.get("RANK", "0") == "0")),
    )
