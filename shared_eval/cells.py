"""Cells: single runs of a modality's own command, each a process, or several seeds of a graph run in one."""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.io.errors import InputError, reason_of
from core.io.files import read_json
from core.training import signals
from core.training.cli import flag
from core.training.config import objective_slug
from core.training.records import read_record
from core.training.run_folder import default_folder

LAST_LINES = 5
POLL_SECONDS = 0.2  # between looks at whether a process has ended
SAVE_SECONDS = 60.0  # that Ray's processes have to save and leave
PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
# What a child calls before it becomes a cell's process: if this one is killed, it gets SIGTERM and saves.
# It is PyDLL's, which never lets go of Python's global lock: after a fork it could wait for it for ever.
END_WITH_PARENT = (
    partial(ctypes.PyDLL(None).prctl, PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    if sys.platform == "linux"
    else None
)
# Modalities whose command trains several seeds at once.
SEVERAL_SEEDS = {"graph"}


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

    def settings(self) -> dict[str, object]:
        names = ("dataset", "objective", "beta", "tau_plus", "variant", "seed", "epochs")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return own | dict(self.extra)

    def is_finished(self) -> bool:
        """Whether its folder holds a whole run of the same settings."""
        try:
            read_record(self.folder / "result.json")
            held = read_json(self.folder / "config.json")
        except (OSError, ValueError):
            return False
        return isinstance(held, dict) and all(
            held.get(name) == value for name, value in self.settings().items()
        )

    def __str__(self) -> str:
        return str(Launch((self,)))


@dataclass(frozen=True)
class Launch:
    """What one process runs: a cell, or several that differ in their seed alone."""

    cells: tuple[Cell, ...]

    def command(self) -> list[str]:
        first = self.cells[0]
        settings, folder = first.settings(), first.folder
        if len(self.cells) > 1:
            settings.pop("seed")
            settings["seeds"] = ",".join(str(cell.seed) for cell in self.cells)
            folder = folder.parent.parent  # the command adds objective and seed
        flags = [word for name, value in settings.items() for word in (f"--{flag(name)}", f"{value}")]
        where = [] if first.root == "runs" else ["--output-dir", str(folder)]
        return [sys.executable, "-m", f"{first.modality}.train", *flags, *where, "--resume"]

    @property
    def log(self) -> Path:
        """What the process has said."""
        first = self.cells[0]
        return Path(first.root) / "logs" / f"{'-'.join(first.folder.relative_to(first.root).parts)}.log"

    def __str__(self) -> str:
        return shlex.join(self.command()[2:])


def launches(cells: Sequence[Cell], together: int) -> list[Launch]:
    """Cells by the processes that run them: up to ``together`` seeds in one where the modality can."""
    alike: dict[Cell, list[Cell]] = {}
    for cell in cells:
        key = replace(cell, seed=0) if cell.modality in SEVERAL_SEEDS else cell
        alike.setdefault(key, []).append(cell)
    return [
        Launch(tuple(of_one[start : start + together]))
        for of_one in alike.values()
        for start in range(0, len(of_one), together)
    ]


@dataclass(frozen=True)
class Outcome:
    """How a process ended: the last lines of what it said where it failed."""

    launch: Launch
    exit_code: int
    last_lines: str

    def __str__(self) -> str:
        return (
            f"{self.launch} ended with exit code {self.exit_code} ({self.launch.log}):\n    {self.last_lines}"
        )


def run_launch(launch: Launch, threads: int, running: set[subprocess.Popen] | None = None) -> Outcome:
    """Run a process to its end, what it says behind what its log holds; in ``running`` meanwhile."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    running = set() if running is None else running
    with open(launch.log, "ab") as log:
        before = log.tell()
        process = subprocess.Popen(
            launch.command(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=END_WITH_PARENT,
        )
        running.add(process)
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:  # Ray's way to cancel what a worker is at, once it is back in Python
            process.terminate()
            process.wait()
            raise
        finally:
            running.remove(process)
    last = launch.log.read_bytes()[before:].decode(errors="replace").splitlines()[-LAST_LINES:]
    return Outcome(launch, process.returncode, "\n    ".join(last))


def threads_of_a_process(share: int) -> int:
    """``$OMP_NUM_THREADS`` where it is set, else a process's ``share`` of the cores.

    Sums are split among threads: at one number of them weights are the same whatever ``jobs`` is, else not.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if not given:
        return max(1, share)
    if not re.fullmatch(r"[1-9]\d{0,5}", given):
        raise InputError(f"OMP_NUM_THREADS is {given}; it must be a whole number, at least 1, or not be set")
    return int(given)


def run_here(
    launches: Iterable[Launch], jobs: int, started: Callable[[Launch], None] = lambda launch: None
) -> Iterator[Outcome]:
    """Run processes on this machine, ``jobs`` at a time, each with its share of the cores; as they end.

    Where whoever takes the outcomes is interrupted, those under way are told to save and leave.
    """
    threads = threads_of_a_process((os.cpu_count() or 1) // jobs)
    lock = threading.Lock()
    running: set[subprocess.Popen] = set()

    def run(launch: Launch) -> Outcome:
        with lock:
            started(launch)
        return run_launch(launch, threads, running)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, launch) for launch in launches]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                process.terminate()


def run_on_ray(
    launches: Iterable[Launch],
    cpus: float,
    gpus: float,
    started: Callable[[Launch], None] = lambda launch: None,
) -> Iterator[Outcome]:
    """Hand processes to a Ray cluster, each with the CPUs and GPUs it declares; as they end.

    The cluster is that of ``RAY_ADDRESS``, else one on this machine; its machines share this folder. Raises
    InputError where it has not what one process declares. Where whoever takes the outcomes is interrupted,
    those under way are told to save and leave.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--launcher ray needs Ray: pip install 'hard-negatives[cluster]'") from None
    handlers = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
    ray.init(ignore_reinit_error=True, log_to_driver=False, runtime_env={"working_dir": None})
    for signum, handler in handlers.items():
        signal.signal(signum, handler)  # Ray's own ends this process without a word
    here, threads = os.getcwd(), threads_of_a_process(int(cpus))

    @ray.remote(num_cpus=cpus, num_gpus=gpus)
    def run(launch: Launch) -> Outcome:
        os.chdir(here)
        return run_launch(launch, threads)

    places = places_of(ray.cluster_resources(), cpus, gpus)
    pending, waiting = deque(launches), {}
    try:
        while pending or waiting:
            while pending and len(waiting) < places:
                launch = pending.popleft()
                started(launch)
                waiting[run.remote(launch)] = launch
            time.sleep(POLL_SECONDS)
            with signals.shielded():  # inside Ray a signal's exception is lost
                done, _ = ray.wait(list(waiting), timeout=0)
            for answer in done:
                launch = waiting.pop(answer)
                try:
                    outcome = ray.get(answer)
                except ray.exceptions.RayError as error:  # a machine that was lost, say
                    outcome = Outcome(launch, 1, reason_of(error))
                yield outcome
    finally:
        if waiting:
            for answer in waiting:
                ray.cancel(answer)
            ray.wait(list(waiting), num_returns=len(waiting), timeout=SAVE_SECONDS)


def places_of(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many processes that declare so much a cluster holds at a time; raises InputError if none."""
    there = {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}
    needs = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need}
    places = min(int(there[name] / need) for name, need in needs.items())
    if not places:
        raise InputError(
            f"--cpus is {cpus:g} and --gpus {gpus:g}, but the Ray cluster has {there['CPU']:g} CPUs and "
            f"{there['GPU']:g} GPUs"
        )
    return places
