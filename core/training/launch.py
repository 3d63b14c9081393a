"""From configs to finished runs."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from core.distributed import is_main_process, process_group
from core.io.errors import DivergedError
from core.training import signals
from core.training.config import Config, TrainConfig
from core.training.group import RunGroup, by_progress
from core.training.run_folder import Run
from core.training.runtime import choose_device, choose_precision, set_deterministic


def launch(modality: str, train: Callable[[Run, Config, torch.device], None], config: Config) -> None:
    """Carry out and report the run that ``config`` describes, in all the processes that torchrun has started.

    SIGTERM and Ctrl-C end it with what was trained kept.
    """
    with signals.graceful_shutdown(), process_group(choose_device(config.device)):
        run = run_training(modality, train, config)
        if is_main_process():
            run.report()


def run_training(modality: str, train: Callable[[Run, Config, torch.device], None], config: Config) -> Run:
    """Have ``train`` train, evaluate and record the run that ``config`` describes, or find it done."""
    config, device = resolve_runtime(config)
    with Run.open(modality, config) as run:
        if not run.is_finished():
            train(run, config, device)
    return run


def resolve_runtime(config: Config) -> tuple[Config, torch.device]:
    """The config with its precision resolved for its device, and that device, ready as the config asks."""
    set_deterministic(config.deterministic)
    device = choose_device(config.device)
    return replace(config, precision=choose_precision(config.precision, device)), device


def launch_together(
    modality: str, train: Callable[[RunGroup, torch.device], None], configs: Sequence[TrainConfig]
) -> None:
    """Carry out and report the runs that ``configs`` describe, those that are not finished, together.

    One that diverges is recorded as that and does not stop the others; its error is raised in the end.
    SIGTERM and Ctrl-C end all with what was trained kept.
    """
    errors = []
    with signals.graceful_shutdown(), ExitStack() as stack:
        settled = [resolve_runtime(config) for config in configs]
        runs = [stack.enter_context(Run.open(modality, config)) for config, _ in settled]
        while pending := [run for run in runs if not run.is_finished() and not run.has_failed()]:
            try:
                train(by_progress(pending)[0], settled[0][1])
            except DivergedError as error:
                errors.append(error)
        for run in runs:
            if run.is_finished():
                run.report()
    if errors:
        raise errors[0]
