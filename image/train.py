"""Train SimCLR on images: ``python -m image.train --dataset cifar10 --objective hard --beta 1``."""

from collections.abc import Sequence

import torch

from core.training.cli import command, parse_config
from core.training.launch import launch
from core.training.loop import fit, record
from core.training.run_folder import Run
from image.config import ImageConfig, defaults_for
from image.task import ImageTask


def train(runs: Sequence[Run], device: torch.device) -> None:
    """Train, evaluate and record a run."""
    task = ImageTask(runs[0].config, device)
    result = fit(task, runs)
    record(task, runs, result)


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch(train, parse_config(ImageConfig, defaults_for, argv, "python -m image.train"))


if __name__ == "__main__":
    main()
