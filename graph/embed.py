"""Write the embeddings of graphs to a file: ``python -m graph.embed RUN NAME --output x.parquet``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.training.cli import command, parse
from core.training.config import DataConfig
from core.training.settings import load_config
from graph.config import GraphConfig
from graph.names import check_name
from shared_eval.embeddings import EmbeddingFiles


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(DataConfig, EmbeddingFiles):
    """Write the embeddings of graphs by a run's trained encoder to a file, one row per graph."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    dataset: Annotated[str, tyro.conf.Positional]
    """A dataset's name, or folder:PATH with a TUDataset's files."""
    projections: bool = False
    """Write the output of the global head, which the objective compares with nodes, instead of the
    encoder's."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EmbedConfig, argv, "python -m graph.embed")
    config.check()
    trained = load_config(config.run, GraphConfig)
    check_name("dataset", config.dataset, config.data_root)
    # Imported here because torch takes seconds, and help and errors do not need it.
    from graph.embedding import embed

    config.show(embed(config, trained))


if __name__ == "__main__":
    main()
