"""The command: run what is missing of a table, then print it.

A finished run is not run again, an interrupted one is resumed, and one that fails does not stop the others.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.io.errors import InputError, TrainingError
from core.training import signals
from core.training.cli import command, parse
from core.training.settings import MAX_FLOAT, check_ranges
from shared_eval.outputs import check_output, show
from shared_eval.records import warn_failed_runs
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.plan import (
    describe_estimate,
    describe_power,
    longest_first,
    plan_specs,
    select_objectives,
)
from shared_eval.reproduce.recipes import load_recipes
from shared_eval.reproduce.run import Outcome, run_here, run_on_ray, share_cores
from shared_eval.reproduce.spec import Job, RunSpec, group_jobs

SUFFIXES = (".md", ".csv", ".tex")


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Run what is missing of a table, then print the table."""

    table: Annotated[str, tyro.conf.Positional]
    """demo, images, graphs, sentences, all, or a recipe: its name or its file."""
    datasets: tuple[str, ...] = ()
    """Datasets instead of the recipe's."""
    objectives: tuple[str, ...] = ()
    """Objectives to select, by name, such as debiased and hard."""
    betas: tuple[float, ...] = ()
    """Hardnesses instead of the recipe's; 0 is the debiased objective."""
    seeds: int | None = None
    """Number of seeds, from 0, instead of the recipe's."""
    jobs: int = 1
    """Processes at a time on this machine; each gets its share of the cores, and no more start than cores."""
    together: int = 5
    """Seeds that one process trains at once, in a modality whose trainer can do that."""
    launcher: Literal["here", "ray"] = "here"
    """ray: run on a Ray cluster, that of RAY_ADDRESS or one on this machine."""
    cpus: float | None = None
    """CPUs that a process declares to Ray; by default 1."""
    gpus: float | None = None
    """GPUs that a process declares to Ray; by default none."""
    dry_run: bool = False
    """Print the runs, whether they are done (other: the folder holds another run), and how long the rest may
    take; run nothing."""
    mix: bool = False
    """Average records of different code, settings or epochs, which otherwise get rows of their own."""
    output: tuple[Path, ...] = ()
    """Write the table to these files as well: .md, .csv or .tex."""

    def checked(self) -> "ReproduceConfig":
        """Return the config; raise InputError if a setting is not valid."""
        check_ranges(vars(self), dict.fromkeys(("jobs", "seeds", "together"), 1))
        if self.cpus is not None and not self.cpus > 0:
            raise InputError(f"`cpus` is {self.cpus}; it must be above 0")
        if self.gpus is not None and not self.gpus >= 0:
            raise InputError(f"`gpus` is {self.gpus}; it must be at least 0")
        for name in ("cpus", "gpus"):
            if getattr(self, name) is not None and self.launcher != "ray":
                raise InputError(f"`{name}` is for `launcher` ray; on this machine `jobs` shares the cores")
        for beta in self.betas:
            if not 0 <= beta <= MAX_FLOAT:
                raise InputError(f"`betas` has {beta}; each must be at least 0 and at most {MAX_FLOAT}")
        for path in self.output:
            check_output(path, overwrite=True, suffixes=SUFFIXES)
        return self


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReproduceConfig, argv, "python -m shared_eval.reproduce").checked()
    recipes = load_recipes(config.table)
    specs = locate(plan_specs(recipes, config.datasets, config.betas, config.seeds))
    specs = select_objectives(specs, config.objectives)
    missing = [spec for spec in specs if not (spec.finished or spec.conflict)]
    if config.dry_run:
        for spec in specs:
            show(f"{'done  ' if spec.finished else 'other ' if spec.conflict else 'to run'} {spec}")
        planned = {spec.dataset for spec in specs}
        for line in describe_power((r for r in recipes if planned & set(r.datasets)), config.seeds):
            print(line)
        print(f"{len(missing)} of {len(specs)} to run: {describe_plan(missing, config)}")
        return
    failed: list[Outcome] = []
    if missing:
        with signals.graceful_shutdown(resume_with="the same command"):
            failed = run_specs(missing, config)
        specs = locate(specs)
    warn_failed_runs(spec.folder for spec in specs)
    finished = [spec.folder / "result.json" for spec in specs if spec.finished]
    if finished:
        # Imported here because matplotlib and SciPy are slow, and help, errors and runs do not need them.
        from shared_eval.reproduce.results import write_results

        page = Path(specs[0].root) / f"report-{Path(config.table).stem}.html"
        is_whole = not (config.objectives or config.betas)
        write_results(recipes, finished, page, config.output, config.mix, is_whole)
    reasons = [str(outcome) for outcome in failed]
    explained = {spec for outcome in failed for spec in outcome.job.specs}
    for spec in specs:
        if spec.conflict:
            where = f"{spec.folder} holds a run of other settings ({spec.conflict})"
            reasons.append(f"{where}; move it, or give the recipe another folder")
        elif not spec.finished and spec not in explained:
            reasons.append(f"{spec} left no record of these settings in {spec.folder}")
    if reasons:
        count = sum(not spec.finished for spec in specs) or len(explained)
        raise TrainingError(f"{count} of {len(specs)} runs failed:\n" + "\n".join(reasons))


def describe_plan(specs: Sequence[RunSpec], config: ReproduceConfig) -> str:
    """How many processes and threads would run some runs here, and for how long."""
    if config.launcher == "ray" or not specs:
        return describe_estimate(specs, config.jobs)
    processes, threads = share_cores(config.jobs)
    shares = [(processes, "process", "es"), (threads, "thread", "s")]
    text = " x ".join(f"{count} {unit}{plural if count > 1 else ''}" for count, unit, plural in shares)
    return describe_estimate(specs, processes, how=f" with {text}")


def run_specs(specs: Sequence[RunSpec], config: ReproduceConfig) -> list[Outcome]:
    """Run them under one progress bar; return the outcomes of those that failed."""
    from rich.markup import escape

    from core.training.progress import progress_bar

    jobs = longest_first(group_jobs(specs, config.together))
    failed: list[Outcome] = []
    running: list[Job] = []

    def description() -> str:
        last = running[-1].specs[0] if running else None
        latest = f", on {last.modality}/{last.dataset}" if last else ""
        return escape(f"{len(running)} running, {len(failed)} failed{latest}")

    with progress_bar() as progress:
        task = progress.add_task("runs", total=len(specs))

        def on_start(job: Job) -> None:
            running.append(job)
            progress.update(task, description=description())

        if config.launcher == "ray":
            outcomes = run_on_ray(jobs, config.cpus or 1.0, config.gpus or 0.0, on_start)
        else:
            outcomes = run_here(jobs, config.jobs, on_start)
        for outcome in outcomes:
            running.remove(outcome.job)
            status = "failed" if outcome.has_failed else "done"
            if status == "failed":
                failed.append(outcome)
            progress.update(task, advance=len(outcome.job.specs), description=description())
            if progress.disable:
                print(f"{status}: {outcome.job}", file=sys.stderr, flush=True)
    return failed
