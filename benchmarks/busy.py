"""Training and evaluation beside a process that keeps a core busy, compared with the same alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count, islice

import torch

from benchmarks.measure import Findings
from benchmarks.settings import BusySettings
from core.io.errors import InputError
from core.training.launch import with_precision
from core.training.loop import optimizer_step
from core.training.runtime import autocast, threads_for
from core.training.task import Task
from graph.config import defaults_for as graph_defaults
from graph.task import GraphTask
from image.config import defaults_for as image_defaults
from image.task import ImageTask
from sentence.config import defaults_for as sentence_defaults
from sentence.task import SentenceTask

TITLE = "Beside a busy process"
ABOUT = (
    "Training steps, and the evaluation of the encoder, with the settings that a dataset's name brings: "
    "alone, and beside another process that keeps one core busy. Both alternate. Two threads on two cores "
    "then get two thirds of the time there is and take 1.5 times as long at best; threads that spin while "
    "they wait for each other take many times as long. The machine should be idle otherwise: the settings "
    "below have its load average at the start."
)
MAX_RATIO = 2.5
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with its parent

TASKS = {
    "image": (image_defaults, ImageTask),
    "graph": (lambda dataset: replace(graph_defaults(), dataset=dataset), GraphTask),  # the same for all
    "sentence": (sentence_defaults, SentenceTask),
}


class BusyProcess:
    """A process that keeps a core busy while it is resumed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SPIN])
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> "BusyProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def measure(settings: BusySettings, device: torch.device, findings: Findings) -> None:
    """Measure steps and evaluation of each modality on each of its datasets that is there."""
    findings.settings["load_average"] = round(os.getloadavg()[0], 1)
    with BusyProcess() as process:
        for modality, (defaults_for, task_type) in TASKS.items():
            for dataset in getattr(settings, modality):
                config = with_precision(defaults_for(dataset), device)
                if settings.batch_size is not None:
                    config = replace(config, batch_size=settings.batch_size)
                try:
                    task = task_type([config], device)
                except InputError as error:
                    findings.notes.append(f"Left out: {error}.")
                    continue
                with threads_for(task.step_elements):
                    name = f"{modality}, {config.dataset}"
                    steps = training_steps(task, config.precision, config.lr, settings.steps)
                    compare(f"{name}, {settings.steps} steps", steps, process, settings.rounds, findings)
                    if settings.evaluation:
                        compare(f"{name}, evaluation", task.evaluate, process, settings.rounds, findings)


def training_steps(task: Task, precision: str, lr: float, steps: int) -> Callable[[], None]:
    """A function that takes so many training steps, as ``core.training.loop.fit`` does."""
    batches = chain.from_iterable(map(task.batches, count(1)))

    def take() -> None:
        task.model.train()
        for batch in islice(batches, steps):
            with autocast(task.device, precision):
                losses, _ = task.training_step(batch)
            optimizer_step(task, losses, lr)
        losses.tolist()  # waits for the device

    return take


def compare(
    case: str, work: Callable[[], object], process: BusyProcess, rounds: int, findings: Findings
) -> None:
    """Time ``work`` alone and beside the process, and hold the ratio against MAX_RATIO."""

    def busy() -> None:
        with process.resumed():
            work()

    ratio = findings.compare(case, {"alone": work, "busy": busy}, rounds)["ratios"]["busy"]
    findings.goal(f"{case}, busy relative to alone", ratio, MAX_RATIO)
    verdict = f"more than {MAX_RATIO}" if ratio > MAX_RATIO else f"at most {MAX_RATIO}"
    print(f"{case}: {ratio:g} times as long beside a busy process, {verdict}", flush=True)
