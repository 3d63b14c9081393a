"""Train InfoGraph on a graph dataset: ``python -m graph.train --dataset MUTAG --objective hard --beta 1``."""

from collections.abc import Sequence

from core.training.cli import command, parse_config
from graph.config import GraphConfig, defaults_for


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(GraphConfig, defaults_for, argv, "python -m graph.train")
    # Imported here because torch takes seconds, and help and errors do not need it.
    from core.training.launch import launch
    from graph.task import GraphTask

    launch(GraphTask, config)


if __name__ == "__main__":
    main()
