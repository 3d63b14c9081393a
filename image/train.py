"""Train SimCLR on images: ``python -m image.train --dataset cifar10 --objective hard --beta 1``."""

from collections.abc import Sequence

from core.training.cli import command, parse_config
from image.config import ImageConfig, defaults_for


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(ImageConfig, defaults_for, argv, "python -m image.train")
    # Imported here because torch takes seconds, and help and errors do not need it.
    from core.training.launch import launch
    from image.task import ImageTask

    launch(ImageTask, config)


if __name__ == "__main__":
    main()
