"""Run the cells of a table and print it: ``python -m shared_eval.reproduce demo``.

A cell is one run of a modality's own command, in a process of its own. One that is finished is not run
again, one that was cut short is resumed.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from core.config import flag, objective_slug, parse
from core.errors import InputError, TrainingError, command
from core.run import default_folder
from core.training import progress_bar
from shared_eval.records import read_records
from shared_eval.tables import scores, summarise, to_markdown, to_terminal

LAST_LINES = 5


@dataclass(frozen=True)
class Cell:
    """One run: a modality, and the settings that its command is given."""

    modality: str
    dataset: str
    objective: str
    beta: float
    tau_plus: float
    seed: int
    epochs: int
    variant: str | None = None

    @property
    def folder(self) -> Path:
        """The folder that the modality's own command would choose."""
        slug = objective_slug(self.objective, self.beta, self.tau_plus)
        variant = [] if self.variant in (None, "corrected") else [self.variant]
        return default_folder(self.modality, self.dataset, "-".join([slug, *variant]), self.seed)

    def settings(self) -> dict[str, object]:
        names = ("dataset", "objective", "beta", "tau_plus", "variant", "seed", "epochs")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def command(self) -> list[str]:
        flags = [word for name, value in self.settings().items() for word in (f"--{flag(name)}", f"{value}")]
        return [sys.executable, "-m", f"{self.modality}.train", *flags, "--resume"]

    def is_finished(self) -> bool:
        """Whether its folder holds a whole run of the same settings."""
        if not (self.folder / "result.json").exists():
            return False
        held = json.loads((self.folder / "config.json").read_text())
        return all(held.get(name) == value for name, value in self.settings().items())


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Run what is missing of a table's cells, then print the table."""

    table: Annotated[Literal["demo", "graphs"], tyro.conf.Positional]
    """demo: every modality on its embedded data, three objectives. graphs: InfoGraph, debiased and hard
    in both variants on TUDatasets."""
    datasets: tuple[str, ...] = ("MUTAG",)
    """Datasets of the graphs table."""
    betas: tuple[float, ...] = (0.0, 1.0, 2.0, 10.0)
    """Hardnesses of the graphs table; 0 is the debiased objective."""
    seeds: int = 10
    """How many seeds of the graphs table, from 0."""
    jobs: int = 1
    """Cells run at a time; each gets its share of the cores."""
    dry_run: bool = False
    """Print the cells and whether they are done; run nothing."""
    markdown: Path | None = None
    """Write the table there as well, in Markdown."""


def demo_cells() -> list[Cell]:
    """All modalities on their embedded data at the three objectives, one seed."""
    points = (("plain", 0.0, 0.0), ("debiased", 0.0, 0.1), ("hard", 1.0, 0.1))
    modalities = (
        ("image", "shapes", "simclr", 12),
        ("graph", "motifs", "infograph", 100),
        ("sentence", "pydoc", "quickthought", 30),
    )
    return [
        Cell(modality, dataset, plain if name == "plain" else name, *numbers, seed=0, epochs=epochs)
        for modality, dataset, plain, epochs in modalities
        for name, *numbers in points
    ]


def graph_cells(config: ReproduceConfig) -> list[Cell]:
    """InfoGraph, and every beta in both variants: corrected at tau_plus 0.1, released at its 0.5."""
    points = [("infograph", 0.0, 0.0, "corrected")]
    for variant, tau_plus in (("corrected", 0.1), ("released", 0.5)):
        points += [("hard" if beta else "debiased", beta, tau_plus, variant) for beta in config.betas]
    return [
        Cell("graph", dataset, *numbers, seed=seed, epochs=200, variant=variant)
        for dataset in config.datasets
        for seed in range(config.seeds)
        for *numbers, variant in points
    ]


def run_cells(cells: list[Cell], jobs: int) -> list[str]:
    """Run the cells, ``jobs`` at a time; return a line for each that failed."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def run(cell: Cell) -> str | None:
        answer = subprocess.run(cell.command(), capture_output=True, text=True, env=environment)
        progress.advance(task)
        if not progress.disable:
            return _failure(cell, answer)
        done = "failed" if answer.returncode else "done"
        print(f"{done}: {shlex.join(cell.command()[2:])}", file=sys.stderr, flush=True)
        return _failure(cell, answer)

    with progress_bar() as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("cells", total=len(cells))
        return [failure for failure in pool.map(run, cells) if failure]


def _failure(cell: Cell, answer: subprocess.CompletedProcess) -> str | None:
    if answer.returncode == 0:
        return None
    said = "\n    ".join(answer.stderr.splitlines()[-LAST_LINES:])
    return f"{shlex.join(cell.command()[1:])} ended with exit code {answer.returncode}:\n    {said}"


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReproduceConfig, argv, "python -m shared_eval.reproduce")
    if config.jobs < 1 or config.seeds < 1:
        raise InputError(f"--jobs is {config.jobs} and --seeds {config.seeds}; both must be at least 1")
    cells = demo_cells() if config.table == "demo" else graph_cells(config)
    missing = [cell for cell in cells if not cell.is_finished()]
    if config.dry_run:
        for cell in cells:
            print("to run" if cell in missing else "done  ", shlex.join(cell.command()[1:]))
        return
    failures = run_cells(missing, config.jobs) if missing else []
    finished = [cell.folder / "result.json" for cell in cells if cell.is_finished()]
    if finished:
        table = summarise(scores(read_records(finished)))
        Console(highlight=False).print(to_terminal(table, "percent, mean ± standard deviation (seeds)"))
        if config.markdown:
            config.markdown.write_text(to_markdown(table))
    if failures:
        raise TrainingError(f"{len(failures)} of {len(cells)} cells failed:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
