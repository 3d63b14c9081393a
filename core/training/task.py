"""What the training loop must know of a modality.

Shapes: R runs that are trained together (usually 1) · B batch · N samples · D dim.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.training.model_card import CardLines
from core.training.run_folder import Run

Scores = dict[str, float]


class Task(ABC):
    """A model, its batches, its training step and its evaluation; see ``core.training.loop.fit``.

    A subclass sets the attributes below in ``__init__``. All methods that return scores leave the model and
    the random states as they were.
    """

    model: nn.Module
    """What is trained, evaluated and saved in checkpoints."""
    optimizer: torch.optim.Optimizer
    device: torch.device
    fingerprint: Mapping[str, int | str]
    """Counts and digests of the data: a run resumes with the same data alone."""
    steps_per_epoch: int
    samples_per_epoch: int
    """Of all processes together, for one run."""
    step_elements: float = math.inf
    """Numbers in a step's largest tensor, if a step may be too small to be shared among threads."""
    clip_norm: float | None = None
    """A larger norm of a step's gradient is scaled down to this one; for single runs."""
    record_fields: Mapping[str, Any] = {}
    """What the modality adds to a run's record."""
    card_lines: CardLines
    """What the modality says in the model card of its runs."""

    def start_epoch(self, epoch: int) -> None:  # noqa: B027 -- most tasks have nothing to set
        """Set what changes from epoch to epoch, such as a hardness schedule; epochs count from 1."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterable[Any]:
        """The batches of an epoch. They depend on seed and epoch alone."""

    @abstractmethod
    def training_step(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return losses [R] and the embeddings [R, B, D] that are watched for collapse."""

    def lr_factor(self, epochs_done: float) -> float:
        """What the learning rate is multiplied by after that many epochs, fractions included."""
        return 1.0

    @abstractmethod
    def evaluate(self) -> list[Scores]:
        """All scores of each run."""

    def evaluate_epoch(self, epoch: int) -> list[Scores]:
        """The scores of each run that are due after an epoch; none by default."""
        return []

    @abstractmethod
    def probe_embeddings(self) -> Tensor:
        """Representations [R, N, D] of some samples in eval mode; constant ones mean collapse."""

    @abstractmethod
    def save(self, runs: Sequence[Run]) -> None:
        """Write the trained encoder and a sample of its embeddings into the folder of each run."""

    def split_state(self, state: dict[str, Any], run: int) -> dict[str, Any]:
        """The part of one run in the state of model or optimizer."""
        return state

    def join_states(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of all runs from the parts that ``split_state`` returned."""
        return states[0]


class GroupTask(Task):
    """A task whose model holds the weights of several runs.

    Every tensor of model and optimizer, except scalars, has a dimension of runs in front.
    """

    def split_state(self, state: dict[str, Any], run: int) -> dict[str, Any]:
        return _split(state, run)

    def join_states(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return _join(states)


def _split(state: Any, run: int) -> Any:
    if isinstance(state, dict):
        return {name: _split(value, run) for name, value in state.items()}
    return state[run].clone() if isinstance(state, Tensor) and state.ndim else state


def _join(states: Sequence[Any]) -> Any:
    first = states[0]
    if isinstance(first, dict):
        return {name: _join([state[name] for state in states]) for name in first}
    return torch.stack(list(states)) if isinstance(first, Tensor) and first.ndim else first
