"""Train quick-thought embeddings on running text: ``python -m sentence.train --dataset books``."""

from collections.abc import Sequence

import torch

from core.training.cli import command, parse_config
from core.training.launch import launch
from core.training.loop import fit, record
from core.training.run_folder import Run
from sentence.config import SentenceConfig, defaults_for
from sentence.task import SentenceTask


def train(runs: Sequence[Run], device: torch.device) -> None:
    """Train, evaluate and record a run."""
    task = SentenceTask(runs[0].config, device)
    result = fit(task, runs)
    record(task, runs, result)


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch(train, parse_config(SentenceConfig, defaults_for, argv, "python -m sentence.train"))


if __name__ == "__main__":
    main()
