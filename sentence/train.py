"""Train quick-thought embeddings on running text: ``python -m sentence.train --dataset books``."""

from collections.abc import Sequence

from core.training.cli import command, parse_config
from sentence.config import SentenceConfig, defaults_for


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(SentenceConfig, defaults_for, argv, "python -m sentence.train")
    # Imported here because torch takes seconds, and help and errors do not need it.
    from core.training.launch import launch
    from sentence.task import SentenceTask

    launch(SentenceTask, config)


if __name__ == "__main__":
    main()
