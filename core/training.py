"""The one training loop: epochs, metrics, checkpoints, resuming."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

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

from core import health, interruption
from core.distributed import is_first, mean_over_processes, wait_for_all
from core.environment import autocast, random_states, set_random_states
from core.errors import DivergedError, Interrupted
from core.group import RunGroup
from core.run import Run, Trained

Batch = TypeVar("Batch")


def fit(
    run: Run | RunGroup,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    loss_of: Callable[[Batch], tuple[Tensor, Tensor]],
    score: Callable[[int], dict[str, float]],
    *,
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
        steps: Batches of an epoch.
        samples_per_epoch: Of all processes together, for one run.
        score: Scores of the model after so many epochs, 0 before the first step; empty where none are due.
            Must leave no trace in the model and the random states.
        lr_factor: What the learning rate is multiplied by after that many epochs, fractions included.
        clip_norm: The norm that a step's gradient is cut to, if it is larger.

    Raises:
        DivergedError: A loss or gradient is not finite, or the embeddings are constant. The checkpoint before
            it is kept, and the run's folder says why.
        Interrupted: A signal came. The step under way was finished, and a checkpoint saved.
    """
    config = run.config
    keeper = _Keeper(run, model, optimizer)
    place = keeper.load(device) or Place(history=[{"epoch": 0, **(score(0) if is_first() else {})}])
    run.rewrite_metrics(place.history)
    watch = _Watch()

    with progress_bar() as progress, interruption.deferred():
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
                place.measures.append(health.measure(loss, norm, embedding))
                progress.advance(task)
                place.epoch_seconds += watch.lap()
                keeper.leave_if_asked(place, steps)
                if keeper.is_due() and len(place.measures) < steps:
                    keeper.save(place)
                    watch.lap()
            measures = mean_over_processes(torch.stack(place.measures))  # [steps, 3] or [steps, runs, 3]
            keeper.check(measures, place.epoch, is_whole=True)
            mean_loss = measures[..., 0].mean(0).tolist()  # waits for the device: the epoch's time is whole
            place.epoch_seconds += watch.lap()
            place = place.next_epoch(
                {
                    "loss": mean_loss,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "samples_per_second": round(samples_per_epoch / place.epoch_seconds, 1),
                    **keeper.scored(score, place),
                }
            )
            run.append_metrics(place.history[-1])
            if place.epoch > config.epochs or keeper.is_due():
                keeper.save(place)

    untrained_metrics = {name: value for name, value in place.history[0].items() if name != "epoch"}
    seconds = place.seconds / len(run.runs)
    return Trained(untrained_metrics, seconds, samples_per_epoch * config.epochs / seconds)


@dataclass
class Place:
    """How far a run has come: what a checkpoint holds beside weights, optimizer and random states."""

    history: list[dict[str, Any]]  # the lines of metrics.jsonl
    epoch: int = 1  # under way
    measures: list[Tensor] = field(default_factory=list)  # of its steps so far
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of the epochs before it

    def next_epoch(self, metrics: dict[str, Any]) -> "Place":
        """The place after this epoch, whose ``metrics`` are kept."""
        history = [*self.history, {"epoch": self.epoch} | metrics]
        return Place(history, self.epoch + 1, seconds=self.seconds + self.epoch_seconds)


class _Keeper:
    """Keeps a run's place in checkpoints, and nothing that has gone astray."""

    def __init__(self, run: Run | RunGroup, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.run, self.model, self.optimizer = run, model, optimizer
        self.since_saved = _Watch()

    def load(self, device: torch.device) -> Place | None:
        """Put back what was saved last, and return the place; None where nothing was."""
        state = self.run.load_checkpoint()
        if state is None:
            return None
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_states(state["random"])
        place = Place(**state["place"])
        place.measures = list(place.measures.to(device))
        return place

    def is_due(self) -> bool:
        return self.since_saved.seconds() >= self.run.config.checkpoint_seconds

    def save(self, place: Place) -> None:
        """Keep what is needed to go on from ``place``; reads the measures, which waits for the device."""
        if is_first():
            shape = (0, 3) if isinstance(self.run, Run) else (0, len(self.run.runs), 3)
            measures = torch.stack(place.measures) if place.measures else torch.empty(shape)
            self.check(measures, place.epoch, is_whole=False)
            if health.seem_constant(measures):
                return  # what is saved stays the last good state
            self.run.save_checkpoint(
                {
                    "place": vars(place) | {"measures": measures},
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": random_states(),
                }
            )
        self.since_saved.lap()

    def leave_if_asked(self, place: Place, steps: int) -> None:
        """Save and raise Interrupted in every process if any of them has had a signal."""
        if signum := interruption.stop_requested():
            self.save(place)
            wait_for_all()  # a process that has left takes the others along, and the first may still write
            epochs, done = self.run.config.epochs, len(place.measures)
            raise Interrupted(signum, f" in epoch {place.epoch} of {epochs}, after step {done} of {steps}")

    def scored(self, score: Callable[[int], dict[str, float]], place: Place) -> dict[str, float]:
        """The scores after an epoch's last step; a signal meanwhile does not wait for them."""
        if not is_first():
            return {}
        try:
            with interruption.deferred(False):
                return score(place.epoch)
        except Interrupted:
            self.save(place)
            raise

    def check(self, measures: Tensor, epoch: int, is_whole: bool) -> None:
        """Raise DivergedError where a run has gone astray, and say so in its folder.

        The measures are of a whole epoch, or of what is about to be saved: then weights are looked at too.
        """
        runs = self.run.runs
        norms = [0.0] * len(runs) if is_whole else health.weight_norms(self.model, len(runs))
        for i, run in enumerate(runs):
            advice = (
                f"the checkpoint before it, if any, is kept in {run.folder}; try a smaller --lr than "
                f"{run.config.lr:g}, a smaller --beta than {run.config.beta:g} or --precision float32"
            )
            try:
                health.check(measures.view(len(measures), len(runs), 3)[:, i], epoch, advice, is_whole)
                health.check_weights(norms[i], epoch, len(measures), advice)
            except DivergedError as error:
                run.fail(error)
                raise


class _Watch:
    """Seconds by a clock that never goes back."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def lap(self) -> float:
        """Seconds since the last lap, which ends here."""
        before, self.started = self.started, time.perf_counter()
        return self.started - before


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, clip_norm: float | None
) -> Tensor:
    """One optimizer step down the gradient of ``loss``; return its norm. Nothing waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward()
    norm = health.gradient_norm(model, loss)
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
