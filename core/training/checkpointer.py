"""How far a run has come, and its checkpoints: where to go on from, and nothing that has gone astray."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.distributed import barrier, is_main_process
from core.io.errors import DivergedError, Interrupted
from core.training import divergence, signals
from core.training.checkpoints import restoring
from core.training.group import RunGroup
from core.training.run_folder import Run
from core.training.seeding import random_states, set_random_states


class Watch:
    """Seconds by a clock that never goes back."""

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
    """How far a run has come: what a checkpoint holds beside weights, optimizer and random states."""

    history: list[dict[str, Any]]  # the lines of metrics.jsonl
    epoch: int = 1  # under way
    measures: list[Tensor] = field(default_factory=list)  # of its steps so far
    epoch_seconds: float = 0.0
    seconds: float = 0.0  # of the epochs before it

    def last_step(self, steps: int) -> tuple[int, int]:
        """The epoch and number of the last step taken, where an epoch has so many."""
        return (self.epoch, len(self.measures)) if self.measures else (self.epoch - 1, steps)

    def next_epoch(self, metrics: dict[str, Any]) -> "TrainState":
        """The place after this epoch, whose ``metrics`` are kept."""
        history = [*self.history, {"epoch": self.epoch} | metrics]
        return TrainState(history, self.epoch + 1, seconds=self.seconds + self.epoch_seconds)


class Checkpointer:
    """Keeps a run's place in checkpoints, and nothing that has gone astray."""

    def __init__(
        self,
        run: Run | RunGroup,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        represent: Callable[[], Tensor],
        data: Mapping[str, int | str],
        steps: int,
    ) -> None:
        self.run, self.model, self.optimizer = run, model, optimizer
        self.represent, self.data, self.steps = represent, data, steps
        self.since_saved = Watch()

    def load(self, device: torch.device) -> TrainState | None:
        """Put back what was saved last, and return the place; None where nothing was."""
        with restoring(self.run.folder / "checkpoint"):
            state = self.run.load_checkpoint(self.data)
            if state is None:
                return None
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            set_random_states(state["random"])
            place = TrainState(**state["place"])
            place.measures = list(place.measures.to(device))
            return place

    def is_due(self) -> bool:
        return self.since_saved.seconds() >= self.run.config.checkpoint_seconds

    def save(self, place: TrainState) -> bool:
        """Keep what is needed to go on from ``place``, or False where that is not worth keeping.

        This reads the measures, which waits for the device.
        """
        if is_main_process():
            shape = (0, 3) if isinstance(self.run, Run) else (0, len(self.run.runs), 3)
            measures = torch.stack(place.measures) if place.measures else torch.empty(shape)
            self.check_steps(measures, place.epoch, is_whole=False)
            self.check_weights(place)
            if place.epoch > self.run.config.epochs:
                self.check_spread(place)
            if divergence.seem_constant(measures):
                return False  # what is saved stays the last good state
            self.run.save_checkpoint(
                {
                    "place": vars(place) | {"measures": measures},
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "random": random_states(),
                    "data": dict(self.data),
                }
            )
        self.since_saved.lap()
        return True

    def stop_if_signalled(self, place: TrainState) -> None:
        """Save and raise Interrupted in every process if any of them has had a signal."""
        if signum := signals.stop_requested():
            kept = self._save_and_say(place)
            barrier()  # a process that has left takes the others along, and the first may still write
            epochs, done = self.run.config.epochs, len(place.measures)
            where = f" in epoch {place.epoch} of {epochs}, after step {done} of {self.steps}"
            raise Interrupted(signum, where, kept)

    def _save_and_say(self, place: TrainState) -> str:
        """Save, and what is kept then."""
        if self.save(place):
            return "what was trained is kept"
        what = "the checkpoint before is" if self.run.runs[0].checkpoints.exist() else "nothing is"
        return f"the embeddings are constant, and {what} kept"

    def scored(self, score: Callable[[int], dict[str, float]], place: TrainState) -> dict[str, float]:
        """The scores after an epoch's last step; a signal meanwhile does not wait for them."""
        if not is_main_process():
            return {}
        try:
            with signals.shielded(False):
                return score(place.epoch)
        except Interrupted as interrupted:
            raise Interrupted(interrupted.signum, kept=self._save_and_say(place)) from None

    def check_steps(self, measures: Tensor, epoch: int, is_whole: bool) -> None:
        """Raise DivergedError where a run has gone astray in a whole epoch, or in its steps so far."""
        of_runs = measures.view(len(measures), len(self.run.runs), 3)
        self._check_each(lambda i, advice: divergence.check(of_runs[:, i], epoch, advice, is_whole))

    def check_weights(self, place: TrainState) -> None:
        """Raise DivergedError where a run's weights have gone astray."""
        norms = divergence.weight_norms(self.model, len(self.run.runs))
        last = place.last_step(self.steps)
        self._check_each(lambda i, advice: divergence.check_weights(norms[i], *last, advice))

    def check_spread(self, place: TrainState) -> None:
        """Raise DivergedError where a run's representations are constant."""
        found = self.represent()
        of_runs = found.view(len(self.run.runs), *found.shape[-2:])
        last = place.last_step(self.steps)
        self._check_each(lambda i, advice: divergence.check_spread(of_runs[i], *last, advice))

    def _check_each(self, check: Callable[[int, str], None]) -> None:
        """Check each run, by its place and an advice; what is found to diverge is said in its folder."""
        for i, run in enumerate(self.run.runs):
            try:
                check(i, _advice(run))
            except DivergedError as error:
                run.fail(error)
                raise


def _advice(run: Run) -> str:
    """What to try where a run has diverged; its own folder takes no other settings."""
    config = run.config
    kept = f"the checkpoint before it is kept in {run.folder}; " if run.checkpoints.exist() else ""
    tries = [f"a smaller --lr than {config.lr:g}"]
    tries += [f"a smaller --beta than {config.beta:g}"] if config.beta else []
    tries += ["--precision float32"] if config.precision != "float32" else []
    return f"{kept}try {' or '.join(tries)}, and another --output-dir"
