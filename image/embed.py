"""Write the embeddings of images to a file: ``python -m image.embed RUN folder:PATH --output x.parquet``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.io.errors import InputError
from core.io.files import path_in
from core.training.cli import command, parse
from core.training.config import DataConfig
from core.training.settings import load_config
from image.config import ImageConfig, Labels, check_name
from shared_eval.embeddings import EmbeddingFiles


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(DataConfig, EmbeddingFiles):
    """Write the embeddings of images by a run's trained encoder to a file, one row per image."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    source: Annotated[str, tyro.conf.Positional]
    """folder:PATH with images, or a dataset's name."""
    projections: bool = False
    """Write the output of the projection head, of unit length, instead of the encoder's."""
    labels: Labels = "auto"
    """Of folder:PATH: folders, its class folders; auto, these if two or more hold all images. none leaves
    the labels out, of any dataset."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read; by default they are an error."""


def check_source(source: str) -> None:
    """Raise InputError unless ``source`` is a dataset's name, or folder:PATH with a folder there."""
    if source.startswith("folder:"):
        if not path_in(source).is_dir():
            raise InputError(f"{path_in(source)} is not a folder")
    else:
        check_name("source", source)


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EmbedConfig, argv, "python -m image.embed")
    config.check()
    trained = load_config(config.run, ImageConfig)
    check_source(config.source)
    # Imported here because torch takes seconds, and help and errors do not need it.
    from image.embedding import embed

    config.show(embed(config, trained))


if __name__ == "__main__":
    main()
