"""Two checkouts of this project, command by command, in one run: what people wait for, before and after.

    python -m benchmarks.revisions OLD NEW --data-root data --output page.md

Each command runs alternately in both, alone and beside a process that keeps a core busy. The page has the
median of the rounds. The machine should be idle otherwise.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.busy import BusyProcess
from core.io.errors import TrainingError
from core.io.files import write_atomically
from core.training.cli import command, parse
from core.training.threads import WAIT_VARIABLES

# Training's imports: before, `train` imported them itself.
IMPORTS = "try:\n import {0}.task\nexcept ImportError:\n import {0}.train"


@dataclass(frozen=True, kw_only=True)
class RevisionsConfig:
    """Compare two checkouts of this project, command by command."""

    old: Annotated[Path, tyro.conf.Positional]
    """Checkout of the older revision."""
    new: Annotated[Path, tyro.conf.Positional]
    """Checkout of the newer revision."""
    data_root: Path = Path("data")
    """Folder with local copies of the datasets."""
    output: Path | None = None
    """Write the page here; by default it is printed."""
    rounds: int = 3
    """Measurements of each command in each checkout."""
    busy: bool = True
    """Also measure beside a process that keeps a core busy."""


@dataclass(frozen=True)
class Command:
    """A command line and what is measured of it."""

    name: str
    arguments: tuple[str, ...]
    epochs: int = 0  # of training, whose seconds an epoch are taken; 0 takes the whole command
    status: int = 0
    busy: bool = False


def training(name: str, modality: str, dataset: str, epochs: int) -> Command:
    arguments = ("-m", f"{modality}.train", "--dataset", dataset, "--epochs", str(epochs))
    return Command(name, arguments, epochs, busy=True)


COMMANDS = [
    Command("`graph.train --help`", ("-m", "graph.train", "--help")),
    Command("`sentence.train`, a wrong flag", ("-m", "sentence.train", "--epcohs", "3"), status=2),
    Command("`image.train`, an unknown dataset", ("-m", "image.train", "--dataset", "imagenot"), status=2),
    Command("`shared_eval.reproduce --help`", ("-m", "shared_eval.reproduce", "--help")),
    *(
        Command(f"imports of training, {modality}", ("-c", IMPORTS.format(modality)))
        for modality in ("graph", "image", "sentence")
    ),
    training("MUTAG, an epoch of 100", "graph", "MUTAG", 100),
    training("REDDIT-BINARY, an epoch", "graph", "REDDIT-BINARY", 2),
    training("DD, an epoch", "graph", "DD", 2),
    training("shapes, an epoch", "image", "shapes", 3),
    training("pydoc, an epoch", "sentence", "pydoc", 1),
]


def seconds(checkout: Path, tested: Command, data_root: Path) -> float:
    """Seconds of the command in a checkout, or of an epoch of its training."""
    # This process has set what waiting threads do: see benchmarks/__init__.py.
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, *tested.arguments]
        if tested.epochs:
            arguments += ["--data-root", str(data_root.resolve()), "--output-dir", f"{folder}/run"]
        started = time.perf_counter()
        done = subprocess.run(
            arguments,
            cwd=checkout,
            env=environment | {"PYTHONPATH": str(checkout.resolve())},
            capture_output=True,
            text=True,
        )
        wall = time.perf_counter() - started
        if done.returncode != tested.status:
            reason = (done.stderr.splitlines() or ["no message"])[-1]
            raise TrainingError(f"{tested.name} ended with {done.returncode} in {checkout}: {reason}")
        if not tested.epochs:
            return wall
        return json.loads(Path(folder, "run", "result.json").read_text())["train_seconds"] / tested.epochs


def compare(config: RevisionsConfig) -> list[str]:
    """The rows of the table."""
    rows = []
    with BusyProcess() as busy_process:
        for tested in COMMANDS:
            for is_busy in (False, True) if config.busy and tested.busy else (False,):
                measured: dict[Path, list[float]] = {config.old: [], config.new: []}
                with busy_process.resumed() if is_busy else nullcontext():
                    for _ in range(config.rounds):
                        for checkout, values in measured.items():
                            values.append(seconds(checkout, tested, config.data_root))
                old, new = (statistics.median(values) for values in measured.values())
                where = ", busy" if is_busy else ""
                rows.append(f"| {tested.name}{where} | {old:.3g} s | {new:.3g} s | {new / old:.2f} |")
                print(rows[-1], file=sys.stderr)
    return rows


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(RevisionsConfig, argv, "python -m benchmarks.revisions")
    table = ["| what | before | after | ratio |", "| --- | --- | --- | --- |", *compare(config)]
    page = "\n".join(table) + "\n"
    if config.output is None:
        print(page, end="")
    else:
        write_atomically(config.output, page)


if __name__ == "__main__":
    main()
