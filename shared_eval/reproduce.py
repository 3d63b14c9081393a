"""Run what is missing of a table's cells and print it: ``python -m shared_eval.reproduce demo``.

A cell that is finished is not run again, one that was cut short is resumed, one that fails does not stop the
others.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from core import interruption
from core.config import parse
from core.errors import InputError, TrainingError, command
from core.training import progress_bar
from shared_eval.cells import Cell, Launch, Outcome, launches, run_here, run_on_ray
from shared_eval.recipes import load_recipes
from shared_eval.records import find_records, name_failures, read_records
from shared_eval.report import write_report
from shared_eval.tables import scores, summarise, to_csv, to_latex, to_markdown, to_terminal

TITLE = "accuracy in percent, mean ± standard deviation (seeds)"
WRITERS = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex}


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Run what is missing of a table's cells, then print the table."""

    table: Annotated[str, tyro.conf.Positional]
    """demo, images, graphs, sentences, all, or a recipe: its name or its file."""
    datasets: tuple[str, ...] = ()
    """Datasets instead of the recipe's."""
    objectives: tuple[str, ...] = ()
    """Objectives to keep, by name: simclr, infograph, quickthought, debiased, hard."""
    betas: tuple[float, ...] = ()
    """Hardnesses instead of the recipe's; 0 is the debiased objective."""
    seeds: int | None = None
    """How many seeds, from 0, instead of the recipe's."""
    jobs: int = 1
    """Processes at a time on this machine; each gets its share of the cores."""
    together: int = 5
    """Seeds of a graph run that one process trains at once."""
    launcher: Literal["here", "ray"] = "here"
    """ray: hand the cells to a Ray cluster, that of RAY_ADDRESS or one on this machine."""
    cpus: float = 1.0
    """CPUs that a process declares to Ray."""
    gpus: float = 0.0
    """GPUs that a process declares to Ray."""
    dry_run: bool = False
    """Print the cells, whether they are done, and how long the rest may take; run nothing."""
    mix: bool = False
    """Average records of different code or settings, which else get rows of their own."""
    output: tuple[Path, ...] = ()
    """Write the table there as well: .md, .csv or .tex."""

    def checked(self) -> "ReproduceConfig":
        """Return the config; raise InputError if a setting is off."""
        for name in ("jobs", "seeds", "together"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.cpus <= 0 or self.gpus < 0:
            raise InputError(f"--cpus is {self.cpus} and --gpus {self.gpus}; some CPU is needed")
        for path in self.output:
            if path.suffix not in WRITERS:
                raise InputError(f"--output {path}: its ending must be one of {', '.join(WRITERS)}")
        return self


def estimated_seconds(cells: Sequence[Cell]) -> tuple[float, int]:
    """How long cells may take one after the other, by earlier records; and how many have none to go by."""
    roots = {Path(cell.root) for cell in cells}
    records = read_records(find_records(root for root in roots if root.exists()))
    records = records.drop_duplicates("path")
    total, unknown = 0.0, 0
    for cell in cells:
        like = records[(records["modality"] == cell.modality) & (records["dataset"] == cell.dataset)]
        if like.empty:
            unknown += 1
        else:
            an_epoch = (like["train_seconds"] / like["epochs"]).mean()
            total += an_epoch * cell.epochs + 2 * like["eval_seconds"].mean()
    return total, unknown


def run_cells(cells: Sequence[Cell], config: ReproduceConfig) -> list[Outcome]:
    """Run the cells under one live view; return those that failed."""
    planned = launches(cells, config.together)
    failed: list[Outcome] = []
    running: list[Launch] = []

    def view() -> str:
        last = running[-1].cells[0] if running else None
        what = f", on {last.modality}/{last.dataset}" if last else ""
        return f"{len(running)} running, {len(failed)} failed{what}"

    with progress_bar() as progress:
        task = progress.add_task("cells", total=len(cells))

        def started(launch: Launch) -> None:
            running.append(launch)
            progress.update(task, description=view())

        if config.launcher == "ray":
            outcomes = run_on_ray(planned, config.cpus, config.gpus, started)
        else:
            outcomes = run_here(planned, config.jobs, started)
        for outcome in outcomes:
            running.remove(outcome.launch)
            if outcome.exit_code:
                failed.append(outcome)
            progress.update(task, advance=len(outcome.launch.cells), description=view())
            if progress.disable:
                how = "failed" if outcome.exit_code else "done"
                print(f"{how}: {outcome.launch}", file=sys.stderr, flush=True)
    return failed


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReproduceConfig, argv, "python -m shared_eval.reproduce").checked()
    recipes = load_recipes(config.table)
    narrowed = (config.datasets, config.objectives, config.betas, config.seeds)
    cells = list(dict.fromkeys(cell for recipe in recipes for cell in recipe.cells(*narrowed)))
    if not cells:
        raise InputError(
            f"--objectives {' '.join(config.objectives)} leaves nothing of {config.table} to run"
        )
    missing = [cell for cell in cells if not cell.is_finished()]
    if config.dry_run:
        for cell in cells:
            print("to run" if cell in missing else "done  ", cell)
        seconds, unknown = estimated_seconds(missing)
        of_unknown = f"; {unknown} have no earlier record to go by" if unknown else ""
        print(f"{len(missing)} of {len(cells)} to run: about {seconds / 60:.0f} min{of_unknown}")
        return
    with interruption.handled(go_on="the same command"):
        failed = run_cells(missing, config) if missing else []
    name_failures(cell.folder for cell in cells)
    published = {key: value for recipe in recipes for key, value in recipe.published_figures().items()}
    finished = [cell.folder / "result.json" for cell in cells if cell.is_finished()]
    if finished:
        records = read_records(finished)
        table = summarise(scores(records), published, config.mix)
        Console(highlight=False).print(to_terminal(table, TITLE))
        for path in config.output:
            path.write_text(WRITERS[path.suffix](table))
        report = write_report(records, Path(cells[0].root) / "report.html", published, config.mix)
        print(f"report: {report}")
    if failed:
        count = sum(len(outcome.launch.cells) for outcome in failed)
        raise TrainingError(f"{count} of {len(cells)} cells failed:\n" + "\n".join(map(str, failed)))


if __name__ == "__main__":
    main()
