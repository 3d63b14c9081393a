"""How far training has come, and when it is saved.

Shapes: R runs that are trained together · T steps.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.distributed import barrier, is_main_process
from core.io.errors import Interrupted
from core.training import divergence, signals
from core.training.checkpoints import restoring
from core.training.divergence import Divergence
from core.training.run_folder import Run
from core.training.seeding import random_states, set_random_states
from core.training.task import Scores, Task


class Stopwatch:
    """Seconds between calls, by a clock that never goes back."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def lap(self) -> float:
        """Seconds since the last lap, which ends here."""
        before, self.started = self.started, time.perf_counter()
        return self.started - before


@dataclass
class TrainState:
    """What a checkpoint holds beside weights, optimizer and random states."""

    untrained: list[Scores]  # of each run, before its first step
    histories: list[list[dict[str, Any]]]  # of each run, the lines of metrics.jsonl from epoch 1 on
    seconds: list[float]  # of each run, its share of the epochs that are done
    epoch: int = 1  # in progress
    step_statistics: list[Tensor] = field(default_factory=list)  # [R, 3] of each step, means over processes
    epoch_seconds: float = 0.0  # of the epoch in progress: one run's share
    # Of each run, steps up to the end of the epoch before that had constant embeddings. Checkpoints lack it:
    # none is saved after such a step, except after the last epoch.
    constant_steps: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.constant_steps = [0 for _ in self.untrained]

    @classmethod
    def before_training(cls, untrained: list[Scores]) -> "TrainState":
        return cls(untrained, [[] for _ in untrained], [0.0 for _ in untrained])

    @property
    def step(self) -> int:
        """Steps that the epoch in progress has done."""
        return len(self.step_statistics)

    def epochs_done(self, steps: int) -> float:
        """Epochs that are done, fractions included, if each has so many steps."""
        return self.epoch - 1 + self.step / steps

    def last_step(self, steps: int) -> tuple[int, int]:
        """Epoch and number of the last step."""
        return (self.epoch, self.step) if self.step else (self.epoch - 1, steps)

    def end_epoch(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Append the epoch's metrics, one dict a run, and begin the next epoch."""
        self.constant_steps = self.count_constant_steps()
        for history, own in zip(self.histories, metrics, strict=True):
            history.append({"epoch": self.epoch} | own)
        self.seconds = [before + self.epoch_seconds for before in self.seconds]
        self.epoch, self.epoch_seconds, self.step_statistics = self.epoch + 1, 0.0, []

    def statistics(self) -> Tensor:
        """The statistics of the epoch in progress: [T, R, 3]."""
        return torch.stack(self.step_statistics) if self.step else torch.empty(0, len(self.untrained), 3)

    def count_constant_steps(self) -> list[int]:
        """Of each run, steps up to the last one that had constant embeddings; this waits for the device."""
        statistics = self.statistics()
        return [divergence.constant_steps(statistics[:, i], n) for i, n in enumerate(self.constant_steps)]

    def metrics_lines(self, run: int) -> list[dict[str, Any]]:
        """All lines of a run's metrics.jsonl; epoch 0 is the encoder before its first step."""
        return [{"epoch": 0} | self.untrained[run], *self.histories[run]]


class Checkpointer:
    """Saves training when it is due or a signal asks for it, but nothing that has diverged or collapsed.

    Each run's folder gets its own part of the state, so that each can be resumed alone.
    """

    def __init__(self, task: Task, runs: Sequence[Run]) -> None:
        self.task, self.runs = task, runs
        self.epochs = runs[0].config.epochs
        self.since_saved = Stopwatch()

    def restore(self) -> TrainState | None:
        """Load the last checkpoint into model, optimizer and random states; None if there is none.

        Raises:
            InputError: It is not of this run, or of other data.
        """
        with restoring(self.runs[0].checkpoints.folder):
            states = [run.load_checkpoint(self.task.fingerprint) for run in self.runs]
            loaded = [state for state in states if state is not None]
            if not loaded:
                return None
            for name, target in (("model", self.task.model), ("optimizer", self.task.optimizer)):
                target.load_state_dict(self.task.join_states([state[name] for state in loaded]))
            set_random_states(loaded[0]["random"])
            for run in self.runs:
                run.checkpoints.forget()
            progress = [state["progress"] for state in loaded]
            first = progress[0]
            statistics = torch.stack([run["step_statistics"] for run in progress], dim=1)  # (T, R, 3)
            sharing = len(loaded) if loaded[0]["has_times_of_group"] else 1
            return TrainState(
                untrained=[run["untrained"] for run in progress],
                histories=[run["history"] for run in progress],
                seconds=[run["seconds"] / sharing for run in progress],
                epoch=first["epoch"],
                step_statistics=list(statistics.to(self.task.device)),
                epoch_seconds=first["epoch_seconds"] / sharing,
            )

    def after_step(self, state: TrainState) -> bool:
        """Stop if a process has received a signal; save if it is due, and return whether it is.

        Raises:
            Interrupted: In every process alike, after the state was saved.
        """
        self._stop_if_signalled(state)
        is_due = state.step < self.task.steps_per_epoch and self._is_due()
        if is_due:
            self.save(state)
        return is_due

    def after_epoch(self, state: TrainState) -> None:
        """Save if it is due, and after the last epoch."""
        if state.epoch > self.epochs or self._is_due():
            self.save(state)

    def evaluate_epoch(self, state: TrainState) -> list[Scores]:
        """The scores that are due after an epoch's last step; a signal does not wait for them."""
        nothing: list[Scores] = [{} for _ in self.runs]
        if not is_main_process():
            return nothing
        try:
            with signals.interruptible():
                return self.task.evaluate_epoch(state.epoch) or nothing
        except Interrupted as interrupted:
            raise Interrupted(interrupted.signum, kept=self._save_and_describe(state)) from None

    def check_epoch(self, state: TrainState) -> None:
        """Raise DivergedError if a run has diverged in the epoch in progress, which is complete."""
        statistics = state.statistics()
        for i, run in enumerate(self.runs):
            steps = divergence.check_steps(statistics[:, i], epoch_is_complete=True)
            _stop_if_diverged(run, steps, state.epoch)

    def save(self, state: TrainState) -> bool:
        """Save what resuming from ``state`` needs; this waits for the device.

        Return False, and save nothing, if the embeddings of its last step are constant. After the last epoch
        the representations are looked at instead: one batch proves nothing.

        Raises:
            DivergedError: A run has diverged. Its last checkpoint stays.
        """
        if is_main_process():
            statistics = state.statistics()
            self._check(state, statistics)
            if state.epoch <= self.epochs and any(state.count_constant_steps()):
                return False  # the checkpoint before stays the last good state
            for i, run in enumerate(self.runs):
                run.save_checkpoint(self._state_of_run(state, statistics, i))
        self.since_saved.lap()
        return True

    def _state_of_run(self, state: TrainState, statistics: Tensor, i: int) -> dict[str, Any]:
        return {
            "progress": {
                "untrained": state.untrained[i],
                "history": state.histories[i],
                "step_statistics": statistics[:, i],
                "epoch": state.epoch,
                "epoch_seconds": state.epoch_seconds,
                "seconds": state.seconds[i],
            },
            "model": self.task.split_state(self.task.model.state_dict(), i),
            "optimizer": self.task.split_state(self.task.optimizer.state_dict(), i),
            "random": random_states(),
            "data": dict(self.task.fingerprint),
        }

    def _check(self, state: TrainState, statistics: Tensor) -> None:
        """Raise DivergedError if steps or weights of a run have diverged or, at the end, it has collapsed."""
        last_step = state.last_step(self.task.steps_per_epoch)
        weight_norms = divergence.weight_norms(self.task.model, len(self.runs))
        embeddings = self.task.probe_embeddings() if state.epoch > self.epochs else None
        for i, run in enumerate(self.runs):
            steps = divergence.check_steps(
                statistics[:, i], epoch_is_complete=False, constant_before=state.constant_steps[i]
            )
            _stop_if_diverged(run, steps, state.epoch)
            _stop_if_diverged(run, divergence.check_weights(weight_norms[i]), *last_step)
            if embeddings is not None:
                _stop_if_diverged(run, divergence.check_collapse(embeddings[i]), *last_step)

    def _is_due(self) -> bool:
        return self.since_saved.seconds() >= self.runs[0].config.checkpoint_seconds

    def _stop_if_signalled(self, state: TrainState) -> None:
        if signum := signals.stop_requested():
            kept = self._save_and_describe(state)
            barrier()  # a process that exits ends the others, and the main process may still write
            steps = self.task.steps_per_epoch
            where = f" in epoch {state.epoch} of {self.epochs}, after step {state.step} of {steps}"
            raise Interrupted(signum, where, kept)

    def _save_and_describe(self, state: TrainState) -> str:
        """Save, and say what is kept."""
        if self.save(state):
            return "what was trained is kept"
        kept = "the checkpoint before is" if self.runs[0].checkpoints.exist() else "nothing is"
        return f"the embeddings are constant, and {kept} kept"


def _stop_if_diverged(run: Run, diverged: Divergence | None, epoch: int, step: int | None = None) -> None:
    """Record in the run's folder that it has diverged, and raise DivergedError."""
    if diverged is not None:
        raise run.fail(diverged, epoch, diverged.step or step or 0)


def group_by_progress(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs that have done equally many steps: a kill may have come between their checkpoints."""
    groups: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        state = run.load_checkpoint() if len(runs) > 1 else None
        done = 0, 0
        if state is not None:
            with restoring(run.checkpoints.folder):
                done = state["progress"]["epoch"], len(state["progress"]["step_statistics"])
        groups.setdefault(done, []).append(run)
    return list(groups.values())
