"""Run jobs as processes: on this machine, or on a Ray cluster."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.io.errors import InputError, reason_of
from core.training import signals
from core.training.threads import available_cores, given_threads
from shared_eval.outputs import writing
from shared_eval.reproduce.spec import Job

LAST_LINES = 5
POLL_SECONDS = 0.2  # between looks at whether a process has ended
SAVE_SECONDS = 60.0  # that processes on Ray have to save and exit

# A child calls this before it runs its command. Linux then sends it SIGTERM when its parent ends, even by
# SIGKILL, and it saves. PyDLL keeps Python's global lock, which a forked child may never get back.
PR_SET_PDEATHSIG = 1  # of prctl(2)
END_WITH_PARENT = None
if sys.platform == "linux":
    END_WITH_PARENT = partial(ctypes.PyDLL(None).prctl, PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))

OnStart = Callable[[Job], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended, with the last lines of its output."""

    job: Job
    exit_code: int
    last_lines: str

    @property
    def has_failed(self) -> bool:
        """Whether its process failed, or left a run without a record."""
        return self.exit_code != 0 or not all(spec.has_record() for spec in self.job.specs)

    def __str__(self) -> str:
        if self.exit_code == 0:
            first = next(spec for spec in self.job.specs if not spec.has_record())
            return f"{self.job} left no record of these settings in {first.folder} ({self.job.log})"
        return f"{self.job} ended with exit code {self.exit_code} ({self.job.log}):\n    {self.last_lines}"


def run_job(job: Job, threads: int, running: set[subprocess.Popen[bytes]] | None = None) -> Outcome:
    """Run a job's process to its end and append its output to its log.

    Args:
        job: What to run.
        threads: Number of threads that the process computes with.
        running: Holds the process while it runs.

    Raises InputError if the log cannot be written.
    """
    with writing(job.log):
        job.log.touch()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    running = set() if running is None else running
    with open(job.log, "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            job.command(), stdout=log, stderr=subprocess.STDOUT, env=environment, preexec_fn=END_WITH_PARENT
        )
        running.add(process)
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:  # how Ray cancels a task, as soon as it runs Python code
            process.terminate()
            process.wait()
            raise
        finally:
            running.remove(process)
    last = job.log.read_bytes()[start:].decode(errors="replace").splitlines()[-LAST_LINES:]
    return Outcome(job, process.returncode, "\n    ".join(last))


def share_cores(num_processes: int) -> tuple[int, int]:
    """How many of ``num_processes`` processes run at a time, and with how many threads each.

    Processes times threads is at most the number of cores that this process may use, so that no thread waits
    for a core. ``$OMP_NUM_THREADS`` sets the threads: weights are the same for any number of jobs only if
    each process has the same number of threads, because sums are split among them.
    """
    cores = available_cores()
    threads = given_threads() or max(1, cores // num_processes)
    return max(1, min(num_processes, cores // threads)), threads


def run_here(
    jobs: Iterable[Job], num_processes: int, on_start: OnStart = lambda job: None
) -> Iterator[Outcome]:
    """Run jobs on this machine, up to ``num_processes`` at a time, and yield their outcomes as they end.

    Each process gets its share of the cores (see ``share_cores``). If the caller is interrupted, the
    processes are terminated; each saves and exits.
    """
    num_processes, threads = share_cores(num_processes)
    lock = threading.Lock()
    running: set[subprocess.Popen[bytes]] = set()

    def run(job: Job) -> Outcome:
        with lock:
            on_start(job)
        return run_job(job, threads, running)

    with ThreadPoolExecutor(num_processes) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                process.terminate()


def run_on_ray(
    jobs: Iterable[Job], cpus: float, gpus: float, on_start: OnStart = lambda job: None
) -> Iterator[Outcome]:
    """Run jobs on a Ray cluster and yield their outcomes as they end.

    The cluster is that of ``RAY_ADDRESS``, else one on this machine; its machines share this folder. If the
    caller is interrupted, the processes are terminated; each saves and exits.

    Raises:
        InputError: Ray is not installed, or the cluster has fewer CPUs or GPUs than one process needs.
    """
    try:
        import ray
    except ImportError:
        raise InputError("`launcher` ray needs Ray: pip install 'hard-negatives[cluster]'") from None
    handlers = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
    ray.init(ignore_reinit_error=True, log_to_driver=False, runtime_env={"working_dir": None})
    for signum, handler in handlers.items():
        signal.signal(signum, handler)  # Ray's own handlers end this process without a message
    folder, threads = os.getcwd(), given_threads() or max(1, int(cpus))

    @ray.remote(num_cpus=cpus, num_gpus=gpus)
    def run(job: Job) -> Outcome:
        os.chdir(folder)
        return run_job(job, threads)

    slots = num_slots(ray.cluster_resources(), cpus, gpus)
    queue, running = deque(jobs), dict[Any, Job]()
    try:
        while queue or running:
            while queue and len(running) < slots:
                job = queue.popleft()
                on_start(job)
                running[run.remote(job)] = job
            with signals.shielded():  # inside Ray a signal's exception is lost
                done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for task in done:
                job = running.pop(task)
                try:
                    outcome = ray.get(task)
                except ray.exceptions.RayError as error:  # a machine was lost, for example
                    outcome = Outcome(job, 1, reason_of(error))
                yield outcome
    finally:
        if running:
            for task in running:
                ray.cancel(task)
            ray.wait(list(running), num_returns=len(running), timeout=SAVE_SECONDS)


def num_slots(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Number of processes that fit a cluster at a time; raises InputError if none does."""
    available = {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}
    needed = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    slots = min(int(available[name] / amount) for name, amount in needed.items())
    if not slots:
        raise InputError(
            f"`cpus` is {cpus:g} and `gpus` {gpus:g}, but the Ray cluster has {available['CPU']:g} CPUs and "
            f"{available['GPU']:g} GPUs"
        )
    return slots
