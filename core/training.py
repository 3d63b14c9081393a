"""The one training loop: epochs, metrics, checkpoints, resuming."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
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
    clip_norm: float | None = None,
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
        clip_norm: The norm that a step's gradient is cut to, if it is larger.

    Raises:
        TrainingError: A loss is not finite; the checkpoint before it is kept.
    """
    config = run.config
    state = run.load_checkpoint(device)
    if state is None:
        run.keep_metrics(-1)
        run.log_metrics(0, **(score(0) if is_first() else {}))
        first, seconds = 1, 0.0
    else:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["epoch"], state["seconds"]
        run.keep_metrics(first - 1)

    def save(epoch: int, losses: list[Tensor], epoch_seconds: float, seconds: float) -> None:
        """Keep what is needed to go on in ``epoch`` after the steps that ``losses`` are of."""
        kept = torch.stack(losses) if losses else torch.empty(0)
        place = {"epoch": epoch, "losses": kept, "epoch_seconds": epoch_seconds, "seconds": seconds}
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random_states()}
        run.save_checkpoint(place | states)

    saved_at = time.perf_counter()
    with progress_bar() as progress:
        task = progress.add_task("training", total=config.epochs * steps)
        for epoch in range(first, config.epochs + 1):
            losses, before = (list(state["losses"]), state["epoch_seconds"]) if state else ([], 0.0)
            of_epoch = islice(batches(epoch), len(losses), None)
            progress.update(task, completed=(epoch - 1) * steps + len(losses))
            if state:
                set_random_states(state["random"])
                state = None
            model.train()
            started = time.perf_counter()
            for batch in of_epoch:
                rate = config.lr * lr_factor(epoch - 1 + len(losses) / steps)
                with autocast(device, config.precision):
                    loss = loss_of(batch)
                take_step(model, optimizer, loss, rate, clip_norm)
                losses.append(loss.detach())
                progress.advance(task)
                now = time.perf_counter()
                if now - saved_at > CHECKPOINT_SECONDS and len(losses) < steps:
                    check_finite(torch.stack(losses), epoch, run)
                    save(epoch, losses, before + now - started, seconds)
                    saved_at = time.perf_counter()
            mean_losses = mean_over_processes(torch.stack(losses))
            check_finite(mean_losses, epoch, run)
            epoch_seconds = before + time.perf_counter() - started
            seconds += epoch_seconds
            run.log_metrics(
                epoch,
                loss=mean_losses.mean().item(),
                learning_rate=optimizer.param_groups[0]["lr"],
                samples_per_second=round(samples_per_epoch / epoch_seconds, 1),
                **(score(epoch) if is_first() else {}),
            )
            if epoch == config.epochs or time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                save(epoch + 1, [], 0.0, seconds)
                saved_at = time.perf_counter()

    untrained_metrics = {name: value for name, value in run.read_metrics()[0].items() if name != "epoch"}
    return Trained(untrained_metrics, seconds, samples_per_epoch * config.epochs / seconds)


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip_norm: float | None
) -> None:
    """One optimizer step down the gradient of ``loss``; nothing here waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside: batch norm's statistics do not move; no gradient is kept."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def check_finite(losses: Tensor, epoch: int, run: Run) -> None:
    """Raise TrainingError, naming epoch, step and what to try, if a loss of the epoch is not finite.

    Reading the losses is a synchronisation with the device: once an epoch and before a checkpoint.
    """
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
