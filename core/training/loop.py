"""The one training loop: epochs, steps, metrics."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
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

from core.distributed import all_reduce_mean, is_main_process
from core.training import divergence, signals
from core.training.checkpointer import Checkpointer, TrainState, Watch
from core.training.group import RunGroup
from core.training.run_folder import Run, Trained
from core.training.runtime import autocast

Batch = TypeVar("Batch")


def fit(
    run: Run | RunGroup,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[[Batch], tuple[Tensor, Tensor]],
    score: Callable[[int], dict[str, float]],
    represent: Callable[[], Tensor],
    *,
    data: Mapping[str, int | str],
    steps: int,
    device: torch.device,
    samples_per_epoch: int,
    lr_factor: Callable[[float], float] = lambda epochs: 1.0,
    clip_norm: float | None = None,
) -> Trained:
    """Train ``model`` for the run's epochs, from its checkpoint where there is one.

    Of a group of runs, ``model`` holds the weights of all; losses, embeddings and scores are then one for
    each: a dimension in front, or a list.

    Args:
        batches: The batches of an epoch, counted from 1; they depend on seed and epoch alone.
        loss_of: A batch's loss, a scalar, and the embeddings [B, D] that are watched for collapse.
        score: Scores of the model after so many epochs, 0 before the first step; empty where none are due.
            Must leave no trace in the model and the random states.
        represent: Representations [N, D] of some samples in eval mode, which in the end are not to be
            constant; like ``score`` it leaves no trace.
        data: A fingerprint of what is trained on, counts and digests by their names: the run goes on from
            its checkpoint with the same data alone.
        steps: Batches of an epoch.
        samples_per_epoch: Of all processes together, for one run.
        lr_factor: What the learning rate is multiplied by after that many epochs, fractions included.
        clip_norm: The norm that a step's gradient is cut to, if it is larger.

    Raises:
        DivergedError: Loss, gradient or weights are not finite or of absurd size, or the embeddings are
            constant. The checkpoint before it is kept, and the run's folder says why.
        InputError: What the run's checkpoint holds is not of this run, or was trained on other data.
        Interrupted: A signal came. The step under way was finished, and a checkpoint saved.
    """
    config = run.config
    checkpointer = Checkpointer(run, model, optimizer, represent, data, steps)
    place = checkpointer.load(device) or TrainState(
        history=[{"epoch": 0, **(score(0) if is_main_process() else {})}]
    )
    run.rewrite_metrics(place.history)
    watch = Watch()

    with progress_bar() as progress, signals.shielded():
        task = progress.add_task("training", total=config.epochs * steps)
        while place.epoch <= config.epochs:
            done = place.epoch - 1
            progress.update(task, completed=done * steps + len(place.measures))
            model.train()
            watch.lap()
            for batch in islice(batches(place.epoch), len(place.measures), None):
                rate = config.lr * lr_factor(done + len(place.measures) / steps)
                with autocast(device, config.precision):
                    loss, embedding = loss_of(batch)
                norm = take_step(model, optimizer, loss, rate, clip_norm)
                place.measures.append(divergence.measure(loss, norm, embedding))
                progress.advance(task)
                place.epoch_seconds += watch.lap()
                checkpointer.stop_if_signalled(place)
                if checkpointer.is_due() and len(place.measures) < steps:
                    checkpointer.save(place)
                    watch.lap()
            measures = all_reduce_mean(torch.stack(place.measures))  # [steps, 3] or [steps, runs, 3]
            checkpointer.check_steps(measures, place.epoch, is_whole=True)
            mean_loss = measures[..., 0].mean(0).tolist()  # waits for the device: the epoch's time is whole
            place.epoch_seconds += watch.lap()
            place = place.next_epoch(
                {
                    "loss": mean_loss,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "samples_per_second": round(samples_per_epoch / place.epoch_seconds, 1),
                    **checkpointer.scored(score, place),
                }
            )
            run.append_metrics(place.history[-1])
            if place.epoch > config.epochs or checkpointer.is_due():
                checkpointer.save(place)

    run.rewrite_metrics(place.history)  # whatever has become of the file meanwhile
    untrained_metrics = {name: value for name, value in place.history[0].items() if name != "epoch"}
    seconds = place.seconds / len(run.runs)
    return Trained(untrained_metrics, seconds, samples_per_epoch * config.epochs / seconds)


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip_norm: float | None
) -> Tensor:
    """One optimizer step down the gradient of ``loss``; return its norm. Nothing waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward()
    norm = divergence.gradient_norm(model, loss)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    optimizer.step()
    return norm


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside: batch norm's statistics do not move; no gradient is kept."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def warn_dropped_samples(count: int, what: str, batch_size: int) -> None:
    """Say on stderr that so many samples fill no batch, if any do, so that none is dropped in silence."""
    if count and is_main_process():
        print(
            f"{count:,} {what}, others in every epoch, fill no batch of {batch_size}: left out",
            file=sys.stderr,
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
        disable=not (console.is_terminal and is_main_process()),
    )
