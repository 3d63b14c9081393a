"""A linear task whose epochs take milliseconds: what the loop and its checkpoints do is seen in isolation."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from core.distributed import parallel, rank
from core.training.checkpoints import Checkpoints
from core.training.config import TrainConfig
from core.training.loop import TrainResult, fit
from core.training.run_folder import Run
from core.training.task import GroupTask

BATCH, DIM = 8, 2


@dataclass(frozen=True, kw_only=True)
class ToyConfig(TrainConfig):
    modality: ClassVar[str] = "toy"
    plain_objective: ClassVar[str] = "plain"


def toy_config(folder: Path, **settings: object) -> ToyConfig:
    """A run of two epochs that saves a checkpoint after every step."""
    defaults = {"dataset": "toy", "objective": "plain", "beta": 0.0, "tau_plus": 0.0, "temperature": None}
    defaults |= {"epochs": 2, "batch_size": BATCH, "lr": 0.01, "checkpoint_seconds": 0.0}
    return ToyConfig(**{**defaults, "output_dir": folder, **settings})


class Linear(nn.Module):
    """A matrix of each run: [B, D] -> [R, B, D]."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(DIM).repeat(runs, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class ToyTask(GroupTask):
    """Shrinks random inputs, which are three times as large in the second process.

    ``before_step`` is called with the model, the epoch and the step, from 1, before each step.
    """

    device = torch.device("cpu")
    fingerprint: Mapping[str, int | str] = {"samples": 1}

    def __init__(
        self, runs: int = 1, steps: int = 4, before_step: Callable[[nn.Module, int, int], None] | None = None
    ) -> None:
        self.model = Linear(runs)
        self.network = parallel(self.model, self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.steps_per_epoch, self.samples_per_epoch = steps, steps * BATCH
        self.before_step = before_step or (lambda model, epoch, step: None)

    def batches(self, epoch):
        generator = torch.Generator().manual_seed(epoch)
        for step in range(1, self.steps_per_epoch + 1):
            yield epoch, step, (1 + 2 * rank()) * torch.randn(BATCH, DIM, generator=generator)

    def training_step(self, batch):
        epoch, step, inputs = batch
        self.before_step(self.model, epoch, step)
        outputs = self.network(inputs)
        return outputs.square().mean((1, 2)), outputs

    def evaluate(self):
        return [{} for _ in self.model.weight]

    def probe_embeddings(self):
        with torch.no_grad():
            return self.model(torch.eye(DIM))

    def save(self, runs):
        raise NotImplementedError


def train(task: ToyTask, configs: Sequence[ToyConfig]) -> TrainResult:
    """Train the runs of the configs together."""
    with contextlib.ExitStack() as stack:
        return fit(task, [stack.enter_context(Run.open(config)) for config in configs])


def stop_before(epoch: int, step: int) -> Callable[[nn.Module, int, int], None]:
    """A ``before_step`` that stops ``train_until_stopped`` before that step, as a kill would."""

    def stop(model: nn.Module, *now: int) -> None:
        if now == (epoch, step):
            raise KeyboardInterrupt

    return stop


def train_until_stopped(task: ToyTask, configs: Sequence[ToyConfig]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        train(task, configs)
        raise AssertionError("it was not stopped")


def saved(folder: Path) -> tuple[int, int, torch.Tensor]:
    """Epoch, steps done in it and weights of the newest checkpoint."""
    state = Checkpoints(folder / "checkpoint").load()
    return (
        state["progress"]["epoch"],
        len(state["progress"]["step_statistics"]),
        state["model"]["weight"],
    )
