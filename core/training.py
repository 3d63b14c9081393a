"""The one training loop: epochs, metrics, checkpoints, resuming."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from core.distributed import is_first, mean_over_processes
from core.environment import autocast, random_states, set_random_states
from core.errors import TrainingError
from core.run import Run, Trained

CHECKPOINT_SECONDS = 30.0

Batch = TypeVar("Batch")


def fit(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[[Batch], Tensor],
    score: Callable[[int], dict[str, float]],
    *,
    steps: int,
    device: torch.device,
    samples_per_epoch: int,
    lr_factor: Callable[[float], float] = lambda epochs: 1.0,
) -> Trained:
    """Train ``model`` for the run's epochs, from its checkpoint where there is one.

    Args:
        batches: The batches of an epoch, counted from 1; they depend on seed and epoch alone.
        loss_of: A batch's loss, a scalar.
        steps: Batches of an epoch.
        samples_per_epoch: Of all processes together.
        score: Scores of the model after so many epochs, 0 before the first step; empty where none are due.
            Must leave no trace in the model and the random states.
        lr_factor: What the learning rate is multiplied by after that many epochs, fractions included.

    Raises:
        TrainingError: A loss is not finite; the checkpoint before it is kept.
    """
    config = run.config
    state = run.load_checkpoint(device)
    if state is None:
        epoch, seconds = 0, 0.0
        run.keep_metrics(-1)
        run.log_metrics(0, **(score(0) if is_first() else {}))
    else:
        epoch, seconds = state["epoch"], state["seconds"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        set_random_states(state["random"])
        run.keep_metrics(epoch)

    saved_at = time.perf_counter()
    with progress_bar() as progress:
        task = progress.add_task("training", total=config.epochs, completed=epoch)
        while epoch < config.epochs:
            epoch += 1
            started = time.perf_counter()
            losses = train_epoch(
                model,
                optimizer,
                batches(epoch),
                loss_of,
                device=device,
                precision=config.precision,
                lr_at=lambda step, epoch=epoch: config.lr * lr_factor(epoch - 1 + step / steps),
            )
            losses = mean_over_processes(losses)
            check_finite(losses, epoch, run)  # the epoch's one synchronisation with the device
            epoch_seconds = time.perf_counter() - started
            seconds += epoch_seconds
            run.log_metrics(
                epoch,
                loss=losses.mean().item(),
                learning_rate=optimizer.param_groups[0]["lr"],
                samples_per_second=round(samples_per_epoch / epoch_seconds, 1),
                **(score(epoch) if is_first() else {}),
            )
            progress.advance(task)
            if epoch == config.epochs or time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                run.save_checkpoint(
                    {
                        "epoch": epoch,
                        "seconds": seconds,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "random": random_states(),
                    }
                )
                saved_at = time.perf_counter()

    untrained_metrics = {name: value for name, value in run.read_metrics()[0].items() if name != "epoch"}
    return Trained(untrained_metrics, seconds, samples_per_epoch * config.epochs / seconds)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], Tensor],
    *,
    device: torch.device,
    precision: str,
    lr_at: Callable[[int], float],
) -> Tensor:
    """One step a batch; returns the losses, on the device: [steps]."""
    model.train()
    losses = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        with autocast(device, precision):
            loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def check_finite(losses: Tensor, epoch: int, run: Run) -> None:
    """Raise TrainingError, naming epoch, step and what to try, if a loss of the epoch is not finite."""
    finite = losses.isfinite()
    if finite.all():
        return
    step = int(finite.int().argmin()) + 1
    raise TrainingError(
        f"the loss became {losses[step - 1].item()} in epoch {epoch}, step {step}; the checkpoint before it, "
        f"if any, is kept in {run.folder}; try a smaller --lr than {run.config.lr:g}, a smaller --beta than "
        f"{run.config.beta:g} or --precision float32"
    )


def progress_bar() -> Progress:
    """A bar with the time left on stderr; silent where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal and is_first()),
    )
