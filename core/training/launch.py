"""From a config to finished runs."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from core.distributed import is_main_process, launched_processes, process_group
from core.io.errors import ArgumentError, DivergedError
from core.training import signals
from core.training.checkpointer import group_by_progress
from core.training.config import TrainConfig
from core.training.describe import is_finished
from core.training.loop import fit, record
from core.training.run_folder import Run
from core.training.runtime import choose_device, choose_precision, set_deterministic, threads_for
from core.training.settings import Config
from core.training.task import Task
from core.training.tracking import check_installed

# The class of a task, called with the configs of its runs and the device.
TaskType = Callable[[Sequence[Any], torch.device], Task]


def launch(task_type: TaskType, config: TrainConfig, shows_folder: bool = True) -> None:
    """Train, record and report the runs of ``config``, in all processes that torchrun has started.

    The report names the folder if ``shows_folder``: a temporary one is of no use to the reader.
    A run that diverges does not stop the others; its error is raised at the end. SIGTERM and Ctrl-C save what
    was trained, and exit.
    """
    if launched_processes() > 1 and not config.supports_torchrun:
        raise ArgumentError(f"{config.modality} training runs in one process; start it without torchrun")
    if config.tensorboard:
        check_installed()
    set_deterministic(config.deterministic)
    device = choose_device(config.device)
    errors = []
    with signals.graceful_shutdown(), process_group(device), ExitStack() as stack:
        configs = [
            single if is_finished(single, single.folder()) else with_precision(single, device)
            for single in config.expand()
        ]
        runs = [stack.enter_context(Run.open(single)) for single in configs]
        pending = [run for run in runs if not run.is_finished()]
        finished_before = [run for run in runs if run not in pending]
        while pending:
            group = group_by_progress(pending)[0]
            try:
                train(task_type, group, device)
                pending = [run for run in pending if run not in group]
            except DivergedError as error:
                errors.append(error)
                pending = [run for run in pending if not run.has_diverged]
        for run in runs:
            if is_main_process() and not run.has_diverged:
                run.report(run in finished_before, shows_folder)
    if errors:
        raise errors[0]


def train(task_type: TaskType, runs: Sequence[Run], device: torch.device) -> None:
    """Train a group of runs as one task, then evaluate and record each."""
    task = task_type([run.config for run in runs], device)
    with threads_for(task.step_elements):
        result = fit(task, runs)
        record(task, runs, result)


def with_precision(config: Config, device: torch.device) -> Config:
    """The config with ``precision`` resolved for the device."""
    return replace(config, precision=choose_precision(config.precision, device))
