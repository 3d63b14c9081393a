"""Runs that are trained together: one model holds the weights of them all, each keeps its own folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.training.checkpoints import restoring
from core.training.config import TrainConfig
from core.training.run_folder import Run


@dataclass(frozen=True)
class RunGroup:
    """Stands in ``fit`` for a run; there losses and scores are one for each.

    The runs differ in seed and objective alone, and stand at the same place of their training. Every tensor
    of model and optimizer, numbers apart, has a dimension of runs in front.
    """

    runs: Sequence[Run]

    @property
    def config(self) -> TrainConfig:
        """What the runs share of their settings, and the first's seed and objective."""
        return self.runs[0].config

    @property
    def folder(self) -> Path:
        """The first run's."""
        return self.runs[0].folder

    def rewrite_metrics(self, lines: list[dict[str, Any]]) -> None:
        for i, run in enumerate(self.runs):
            run.rewrite_metrics([of_run(line, i) for line in lines])

    def append_metrics(self, line: dict[str, Any]) -> None:
        for i, run in enumerate(self.runs):
            run.append_metrics(of_run(line, i))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Give each run's folder its part, so that each can go on alone."""
        place = state["place"]
        for i, run in enumerate(self.runs):
            own = {
                "history": [of_run(line, i) for line in place["history"]],
                "measures": place["measures"][:, i],
            }
            parts = {name: _part(state[name], i) for name in ("model", "optimizer")}
            run.save_checkpoint(state | parts | {"place": place | own})

    def load_checkpoint(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        states = [run.load_checkpoint(data) for run in self.runs]
        if states[0] is None:
            return None
        places = [state["place"] for state in states]
        lines = zip(*(place["history"] for place in places), strict=True)
        together = {
            "history": [
                {name: [line[name] for line in of_all] for name in of_all[0]} | {"epoch": of_all[0]["epoch"]}
                for of_all in lines
            ],
            "measures": torch.stack([place["measures"] for place in places], dim=1),
        }
        joined = {name: _joined([state[name] for state in states]) for name in ("model", "optimizer")}
        return states[0] | joined | {"place": places[0] | together}


def of_run(values: Mapping[str, Any], run: int) -> dict[str, Any]:
    """One run's values: of those that are one for each its own, and what all share."""
    return {name: value[run] if isinstance(value, list) else value for name, value in values.items()}


def by_progress(runs: Sequence[Run]) -> list[RunGroup]:
    """Groups of runs that stand at the same place: a stop may have fallen between their checkpoints."""
    if len(runs) == 1:
        return [RunGroup(runs)]
    groups: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        state = run.load_checkpoint()
        with restoring(run.checkpoints.folder):
            place = (state["place"]["epoch"], len(state["place"]["measures"])) if state else (0, 0)
        groups.setdefault(place, []).append(run)
    return [RunGroup(members) for members in groups.values()]


def _part(state: Any, run: int) -> Any:
    """One run's part: of every tensor with a dimension of runs its place there; the rest as it is."""
    if isinstance(state, dict):
        return {name: _part(value, run) for name, value in state.items()}
    return state[run].clone() if isinstance(state, Tensor) and state.ndim else state


def _joined(states: Sequence[Any]) -> Any:
    """What ``_part`` made, put together again."""
    first = states[0]
    if isinstance(first, dict):
        return {name: _joined([state[name] for state in states]) for name in first}
    return torch.stack(list(states)) if isinstance(first, Tensor) and first.ndim else first
