"""Cells: single runs of a modality's own command, each in a process of its own."""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import flag, objective_slug
from core.errors import InputError
from core.run import default_folder

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
    extra: tuple[tuple[str, Any], ...] = ()
    root: str = "runs"

    @property
    def folder(self) -> Path:
        """Where the run lies: under ``runs``, the folder that the modality's own command would choose."""
        slug = objective_slug(self.objective, self.beta, self.tau_plus)
        variant = [] if self.variant in (None, "corrected") else [self.variant]
        default = default_folder(self.modality, self.dataset, "-".join([slug, *variant]), self.seed)
        return Path(self.root) / default.relative_to("runs")

    @property
    def log(self) -> Path:
        """What the run has said."""
        return Path(self.root) / "logs" / f"{'-'.join(self.folder.relative_to(self.root).parts)}.log"

    def settings(self) -> dict[str, object]:
        names = ("dataset", "objective", "beta", "tau_plus", "variant", "seed", "epochs")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return own | dict(self.extra)

    def command(self) -> list[str]:
        flags = [word for name, value in self.settings().items() for word in (f"--{flag(name)}", f"{value}")]
        where = [] if self.root == "runs" else ["--output-dir", str(self.folder)]
        return [sys.executable, "-m", f"{self.modality}.train", *flags, *where, "--resume"]

    def is_finished(self) -> bool:
        """Whether its folder holds a whole run of the same settings."""
        try:
            json.loads((self.folder / "result.json").read_text())
            held = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError):
            return False
        return all(held.get(name) == value for name, value in self.settings().items())

    def __str__(self) -> str:
        return shlex.join(self.command()[2:])


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: the last lines of what it said where it failed."""

    cell: Cell
    exit_code: int
    last_lines: str

    def __str__(self) -> str:
        return f"{self.cell} ended with exit code {self.exit_code} ({self.cell.log}):\n    {self.last_lines}"


def run_cell(cell: Cell, threads: int) -> Outcome:
    """Run a cell to its end, what it says in its log."""
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with open(cell.log, "w") as log:
        answer = subprocess.run(cell.command(), stdout=log, stderr=subprocess.STDOUT, env=environment)
    last = cell.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return Outcome(cell, answer.returncode, "\n    ".join(last))


def run_here(
    cells: Iterable[Cell], jobs: int, started: Callable[[Cell], None] = lambda cell: None
) -> Iterator[Outcome]:
    """Run cells on this machine, ``jobs`` at a time, each with its share of the cores; as they end."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    lock = threading.Lock()

    def run(cell: Cell) -> Outcome:
        with lock:
            started(cell)
        return run_cell(cell, threads)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, cell) for cell in cells]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def run_on_ray(
    cells: Iterable[Cell], cpus: float, gpus: float, started: Callable[[Cell], None] = lambda cell: None
) -> Iterator[Outcome]:
    """Hand cells to a Ray cluster, each with the CPUs and GPUs it declares; as they end.

    The cluster is that of ``RAY_ADDRESS``, else one on this machine; its machines share this folder.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--launcher ray needs Ray: pip install 'hard-negatives[cluster]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, runtime_env={"working_dir": None})
    here = os.getcwd()

    @ray.remote(num_cpus=cpus, num_gpus=gpus)
    def run(cell: Cell) -> Outcome:
        os.chdir(here)
        return run_cell(cell, max(1, int(cpus)))

    waiting = {}
    for cell in cells:
        started(cell)
        waiting[run.remote(cell)] = cell
    while waiting:
        (done, *_), _ = ray.wait(list(waiting))
        waiting.pop(done)
        yield ray.get(done)
