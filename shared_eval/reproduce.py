"""Run what is missing of a table's cells and print it: ``python -m shared_eval.reproduce demo``.

A cell that is finished is not run again, one that was cut short is resumed, one that fails does not stop the
others.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.markup import escape

from core.io.errors import InputError, TrainingError
from core.io.files import write_atomically
from core.training import signals
from core.training.cli import command, parse
from core.training.config import MAX_FLOAT, check_not_too_large
from core.training.loop import progress_bar
from shared_eval.cells import Cell, Launch, Outcome, launches, run_here, run_on_ray
from shared_eval.outputs import fits, show, writing
from shared_eval.recipes import Recipe, load_recipes, published_by
from shared_eval.records import find_records, name_failures, read_records
from shared_eval.report import write_report
from shared_eval.tables import ResultTable, scores, summarise, to_csv, to_latex, to_markdown, to_terminal

TITLE = "accuracy in percent, mean ± standard deviation (seeds)"
DIFFERENCES = "difference to beta 0 at the same seeds: points [95 % interval], Wilcoxon's p corrected by Holm"
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
        if not (self.cpus > 0 and self.gpus >= 0):
            raise InputError(f"--cpus is {self.cpus} and --gpus {self.gpus}; some CPU is needed")
        for beta in self.betas:
            if not 0 <= beta <= MAX_FLOAT:
                raise InputError(f"--betas has {beta}; each must be at least 0 and at most {MAX_FLOAT}")
        check_not_too_large(vars(self))
        for path in self.output:
            if path.suffix not in WRITERS:
                raise InputError(f"--output {path}: its ending must be one of {', '.join(WRITERS)}")
        return self


def planned_cells(recipes: Sequence[Recipe], config: ReproduceConfig) -> list[Cell]:
    """The cells of some recipes as ``config`` narrows them, each once.

    A recipe alone takes any datasets; of several, each those of its own that are named. Raises InputError
    where nothing is left.
    """
    cells: dict[Cell, None] = {}
    for recipe in recipes:
        own = [name for name in config.datasets if len(recipes) == 1 or name in recipe.datasets]
        if own or not config.datasets:
            cells |= dict.fromkeys(recipe.cells(own, config.objectives, config.betas, config.seeds))
    if not cells:
        narrowed = {"--datasets": config.datasets, "--objectives": config.objectives}
        given = " ".join(" ".join([flag, *names]) for flag, names in narrowed.items() if names)
        raise InputError(f"{given} leaves nothing of {config.table} to run")
    return list(cells)


def estimated_seconds(cells: Sequence[Cell]) -> tuple[float, int]:
    """How long cells may take one after the other, by earlier records; and how many have none to go by.

    Records are those of the same dataset below the same root.
    """
    total, unknown = 0.0, 0
    alike = Counter((cell.folder.parents[1], cell.epochs) for cell in cells)
    for (folder, epochs), count in alike.items():
        records = read_records(find_records([folder])).drop_duplicates("path")
        if records.empty:
            unknown += count
        else:
            an_epoch = (records["train_seconds"] / records["epochs"].clip(lower=1)).mean()
            total += count * (an_epoch * epochs + 2 * records["eval_seconds"].mean())
    return total, unknown


def estimate(missing: Sequence[Cell], jobs: int) -> str:
    """What is known of the time that cells will take, ``jobs`` at a time."""
    seconds, unknown = estimated_seconds(missing)
    known = f"about {seconds / 60 / jobs:.0f} min" if unknown < len(missing) else ""
    of_unknown = f"{unknown} have no earlier record to go by" if unknown else ""
    return "; ".join(filter(None, [known, of_unknown])) or "nothing"


def run_cells(cells: Sequence[Cell], config: ReproduceConfig) -> list[Outcome]:
    """Run the cells under one live view; return those that failed."""
    planned = launches(cells, config.together)
    failed: list[Outcome] = []
    running: list[Launch] = []

    def view() -> str:
        last = running[-1].cells[0] if running else None
        what = f", on {last.modality}/{last.dataset}" if last else ""
        return escape(f"{len(running)} running, {len(failed)} failed{what}")

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


def show_table(table: ResultTable) -> None:
    """Print a table, then its differences if they say anything; by dataset where a terminal is too narrow."""
    shown = {"text": TITLE} | ({"difference_text": DIFFERENCES} if table.has_tests else {})
    for what, title in shown.items():
        drawn = [to_terminal(table, title, what)]
        if not fits(drawn[0]):
            drawn = [to_terminal(of, f"{name}: {title}", what) for name, of in table.by_dataset().items()]
        for part in drawn:
            show(part)


def written(table: ResultTable, ending: str) -> str:
    """The table as a file with that ending holds it; a CSV's lines hold the differences themselves."""
    write = WRITERS[ending]
    if ending == ".csv" or not table.has_tests:
        return write(table)
    return write(table) + "\n" + write(table, "difference_text")


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReproduceConfig, argv, "python -m shared_eval.reproduce").checked()
    recipes = load_recipes(config.table)
    is_done = {cell: cell.is_finished() for cell in planned_cells(recipes, config)}
    cells, missing = list(is_done), [cell for cell, done in is_done.items() if not done]
    if config.dry_run:
        for cell, done in is_done.items():
            show(f"{'done  ' if done else 'to run'} {cell}")
        print(f"{len(missing)} of {len(cells)} to run: {estimate(missing, config.jobs)}")
        return
    with signals.graceful_shutdown(go_on="the same command"):
        failed = run_cells(missing, config) if missing else []
    name_failures(cell.folder for cell in cells)
    published = published_by(recipes)
    finished = [cell.folder / "result.json" for cell in cells if cell.is_finished()]
    if finished:
        records = read_records(finished)
        table = summarise(scores(records), published, config.mix)
        show_table(table)
        for path in config.output:
            with writing(path):
                write_atomically(path, written(table, path.suffix))
        report = write_report(records, Path(cells[0].root) / "report.html", published, config.mix)
        show(f"report: {report}")
    if failed:
        count = sum(len(outcome.launch.cells) for outcome in failed)
        raise TrainingError(f"{count} of {len(cells)} cells failed:\n" + "\n".join(map(str, failed)))


if __name__ == "__main__":
    main()
