"""What a run measures, as TensorBoard shows it: ``--tensorboard`` writes it below RUN/tensorboard.

The horizontal axis counts optimizer steps. What is measured after an epoch is at its last step, and what is
measured at the end one further. When a run is resumed, all that was written after the last whole epoch of its
checkpoint is dropped by ``purge_step``, and written again.

Shapes: R runs that are trained together · N samples · D dim.
"""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.distributed import is_main_process
from core.io.errors import InputError
from core.training.checkpointer import TrainState
from core.training.run_folder import Run
from core.training.task import Task

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MAX_POINTS = 2000  # that the projector shows
MAX_SAMPLES = 500  # whose similarities are a histogram
FOLDER = "tensorboard"  # of a run
TAGS = {"loss": "epoch/loss", "learning_rate": "learning_rate", "samples_per_second": "samples_per_second"}


def check_installed() -> None:
    """Raise InputError if TensorBoard, an extra, is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("`tensorboard` needs TensorBoard, which is missing: pip install tensorboard")


class Tracker:
    """Writes the curves of runs that are trained together; without ``tensorboard`` it does nothing."""

    def __init__(self, task: Task, runs: Sequence[Run], state: TrainState) -> None:
        is_tracked = runs[0].config.tensorboard and is_main_process()
        self.task, self.steps = task, task.steps_per_epoch
        self.runs = list(runs) if is_tracked else []
        self.written = 0  # steps of the epoch in progress
        self.writers = [self._begin(run, state, i) for i, run in enumerate(self.runs)]

    def _begin(self, run: Run, state: TrainState, i: int) -> "SummaryWriter":
        folder = run.folder / FOLDER
        with run.writing(FOLDER):
            if (state.epoch, state.step) == (1, 0):
                shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before
            is_new = not folder.exists()
            writer = open_writer(run, (state.epoch - 1) * self.steps + 1)
            for line in state.metrics_lines(i) if is_new else ():
                write_line(writer, line, self.steps)
        return writer

    def after_steps(self, state: TrainState) -> None:
        """Write the loss and the gradient's norm of new steps, means over the processes."""
        before = (state.epoch - 1) * self.steps
        new = [step.tolist() for step in state.step_statistics[self.written :]] if self.runs else []
        for i, (run, writer) in enumerate(zip(self.runs, self.writers, strict=True)):
            with run.writing(FOLDER):
                for step, statistics in enumerate(new, start=before + self.written + 1):
                    loss, norm, _ = statistics[i]
                    writer.add_scalar("loss", loss, step)
                    writer.add_scalar("gradient_norm", norm, step)
                writer.flush()
        self.written = state.step

    def after_epoch(self, state: TrainState) -> None:
        """Write the last line of ``metrics.jsonl``, and how similar some samples are in eval mode."""
        self.written = 0
        if not self.runs:
            return
        embeddings = self.task.probe_embeddings()[:, :MAX_SAMPLES]  # (R, N, D)
        for i, (run, writer) in enumerate(zip(self.runs, self.writers, strict=True)):
            with run.writing(FOLDER):
                write_line(writer, state.histories[i][-1], self.steps)
                step = (state.epoch - 1) * self.steps
                writer.add_histogram("similarity/pairs", pair_similarities(embeddings[i]), step)
                writer.flush()

    def close(self) -> None:
        for run, writer in zip(self.runs, self.writers, strict=True):
            with run.writing(FOLDER):
                writer.close()


def track_end(task: Task, i: int, run: Run, metrics: Mapping[str, float]) -> None:
    """Write the scores of run i of a task, similarities, and the points that the projector shows."""
    if not run.config.tensorboard:
        return
    end, sample = run.config.epochs * task.steps_per_epoch + 1, run.sample
    shutil.rmtree(run.folder / FOLDER / f"{end:05}", ignore_errors=True)  # of an end that was interrupted
    with run.writing(FOLDER), closing(open_writer(run, purge_step=end)) as writer:
        for name, value in metrics.items():
            writer.add_scalar(f"scores/{name}", value, end)
        for name in ("positives", "negatives"):
            if name in sample:
                writer.add_histogram(f"similarity/{name}", sample[name].float(), end)
        points = sample["representations"] if "representations" in sample else task.probe_embeddings()[i]
        labels = sample["labels"][:MAX_POINTS].tolist() if "labels" in sample else None
        writer.add_embedding(points[:MAX_POINTS].float(), labels, global_step=end, tag="representations")


def open_writer(run: Run, purge_step: int) -> "SummaryWriter":
    """A writer below the run's folder, by which whatever is there from ``purge_step`` on is dropped."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and an extra

    folder = run.folder / FOLDER
    # Its thread need not flush: we do, where an error has a handler.
    return SummaryWriter(str(folder), purge_step=purge_step if folder.exists() else None, flush_secs=10**6)


def write_line(writer: "SummaryWriter", line: Mapping[str, Any], steps: int) -> None:
    """Write a line of ``metrics.jsonl`` at the last step of its epoch; an epoch has so many."""
    for name, value in line.items():
        if name != "epoch":
            writer.add_scalar(TAGS.get(name, f"scores/{name}"), value, line["epoch"] * steps)


def pair_similarities(embeddings: Tensor) -> Tensor:
    """The cosines of all pairs of different samples: [N, D] -> [N (N - 1) / 2]."""
    unit = F.normalize(embeddings.float(), dim=1)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    return (unit @ unit.T)[rows, columns]
