"""The one training loop: epochs, steps, statistics, checkpoints, evaluation.

Shapes: R runs that are trained together (usually 1) · T steps of an epoch.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from core.distributed import all_reduce_mean, is_main_process
from core.training import divergence, signals
from core.training.checkpointer import Checkpointer, Stopwatch, TrainState
from core.training.model_card import model_card
from core.training.progress import progress_bar
from core.training.run_folder import Run
from core.training.runtime import autocast
from core.training.task import Scores, Task
from core.training.tracking import Tracker, track_end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What training leaves beside the weights."""

    untrained: list[Scores]  # of each run, before its first step
    seconds: list[float]  # of each run, its share


def fit(task: Task, runs: Sequence[Run]) -> TrainResult:
    """Train the task's model for the epochs of its runs, from their checkpoint if there is one.

    Raises:
        DivergedError: A loss, a gradient or the weights are not finite or exploding, or the embeddings have
            collapsed. The last checkpoint is kept, and ``failure.json`` says why.
        InputError: The checkpoint is not of this run, or was trained on other data.
        Interrupted: A signal was received. The step in progress was finished, and a checkpoint saved.
    """
    config = runs[0].config
    checkpointer = Checkpointer(task, runs)
    state = checkpointer.restore() or TrainState.before_training(evaluate(task, runs))
    write_metrics(runs, state)
    stopwatch = Stopwatch()
    tracker = Tracker(task, runs, state)

    with progress_bar() as progress, signals.shielded(), closing(tracker):
        bar = progress.add_task("training", total=config.epochs * task.steps_per_epoch)
        while state.epoch <= config.epochs:
            progress.update(bar, completed=(state.epoch - 1) * task.steps_per_epoch + state.step)
            task.start_epoch(state.epoch)
            task.model.train()
            stopwatch.lap()
            for batch in islice(task.batches(state.epoch), state.step, None):
                with autocast(task.device, config.precision):
                    losses, embeddings = task.training_step(batch)
                norms = optimizer_step(
                    task, losses, config.lr * task.lr_factor(state.epochs_done(task.steps_per_epoch))
                )
                # At once, as a checkpoint holds them: only the main process saves. No host waits for a GPU.
                statistics = all_reduce_mean(divergence.step_statistics(losses, norms, embeddings))
                state.step_statistics.append(statistics)
                state.epoch_seconds += stopwatch.lap() / len(runs)
                progress.advance(bar)
                if checkpointer.after_step(state):
                    tracker.after_steps(state)
                stopwatch.lap()

            checkpointer.check_epoch(state)
            epoch_losses = state.statistics()[..., 0].mean(0).tolist()  # this waits for the device
            state.epoch_seconds += stopwatch.lap() / len(runs)
            shared = {
                "learning_rate": task.optimizer.param_groups[0]["lr"],
                "samples_per_second": round(task.samples_per_epoch / state.epoch_seconds, 1),
            }
            scores = checkpointer.evaluate_epoch(state)
            tracker.after_steps(state)
            state.end_epoch(
                [{"loss": loss, **shared, **own} for loss, own in zip(epoch_losses, scores, strict=True)]
            )
            for run, history in zip(runs, state.histories, strict=True):
                run.append_metrics(history[-1])
                logger.info("%s: %s", run.folder, history[-1])
            tracker.after_epoch(state)
            checkpointer.after_epoch(state)

    write_metrics(runs, state)  # the file may have been damaged during training
    return TrainResult(state.untrained, state.seconds)


def optimizer_step(task: Task, losses: Tensor, lr: float) -> Tensor:
    """Take one step down the gradient of the losses [R]; return its norms [R]. This does not synchronise."""
    for group in task.optimizer.param_groups:
        group["lr"] = lr
    task.optimizer.zero_grad(set_to_none=True)
    losses.sum().backward()
    norms = divergence.gradient_norms(task.model, len(losses))
    if task.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(task.model.parameters(), task.clip_norm, norms.squeeze())
    task.optimizer.step()
    return norms


def evaluate(task: Task, runs: Sequence[Run]) -> list[Scores]:
    """All scores of each run; in processes other than the main one none."""
    return task.evaluate() if is_main_process() else [{} for _ in runs]


def write_metrics(runs: Sequence[Run], state: TrainState) -> None:
    """Make each run's ``metrics.jsonl`` hold the lines of the state."""
    for i, run in enumerate(runs):
        run.write_metrics(state.metrics_lines(i))


def record(task: Task, runs: Sequence[Run], result: TrainResult) -> None:
    """Evaluate the trained model, and write each run's encoder, sample and record."""
    if not is_main_process():
        return
    stopwatch = Stopwatch()
    scores = task.evaluate()
    task.save(runs)
    eval_seconds = stopwatch.lap() / len(runs)
    for i, (run, metrics) in enumerate(zip(runs, scores, strict=True)):
        untrained, seconds = result.untrained[i], result.seconds[i]
        measured = {
            "metrics": metrics,
            "untrained_metrics": untrained,
            "train_seconds": round(seconds, 3),
            "eval_seconds": round(eval_seconds, 3),
            "samples_per_second": round(task.samples_per_epoch * run.config.epochs / seconds, 1),
        }
        track_end(task, i, run, metrics)
        card = model_card(run.config, task.card_lines, task.fingerprint, metrics, untrained)
        run.finish(measured | dict(task.record_fields), task.device, card)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside: the statistics of batch norm do not move."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def warn_dropped_samples(count: int, what: str, batch_size: int) -> None:
    """Say on stderr how many samples an epoch drops (``drop_last``), if any."""
    if count and is_main_process():
        print(
            f"{count:,} {what} are dropped in each epoch (a different {count:,} each time): they do not "
            f"fill a batch of {batch_size}",
            file=sys.stderr,
        )
