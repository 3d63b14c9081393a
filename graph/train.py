"""Train InfoGraph on a graph dataset: ``python -m graph.train --dataset MUTAG --objective hard --beta 1``."""

from collections.abc import Sequence

import torch

from core.training.cli import command, parse_config
from core.training.launch import launch
from core.training.loop import fit, record
from core.training.run_folder import Run
from graph.config import GraphConfig, defaults_for
from graph.task import GraphTask


def train(runs: Sequence[Run], device: torch.device) -> None:
    """Train runs together as one model, then evaluate and record each."""
    task = GraphTask([run.config for run in runs], device)
    result = fit(task, runs)
    record(task, runs, result)


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch(train, parse_config(GraphConfig, defaults_for, argv, "python -m graph.train"))


if __name__ == "__main__":
    main()
