"""Write the embeddings of sentences to a file: ``python -m sentence.embed RUN SOURCE --output x.parquet``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from core.io.errors import InputError
from core.io.files import check_regular
from core.training.cli import command, parse
from sentence.models import find_model
from shared_eval.embeddings import EmbeddingFiles

if TYPE_CHECKING:
    from sentence.corpora import Corpus

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(EmbeddingFiles):
    """Write the embeddings of sentences by a run's trained encoder to a file, one row per sentence."""

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder, a SentenceTransformer's folder, or its name at the Hugging Face hub."""
    source: Annotated[str, tyro.conf.Positional]
    """A text file, plain or gzipped, with one sentence per line; its id is the line's number, from 0. - is
    standard input. folder:PATH has one book per .txt or .txt.gz, and is split into sentences; lines:PATH is a
    file with one sentence per line, or a folder of such files. In a folder an id is FILE:NUMBER."""
    download: bool = True
    """Download a model that is named, unless it is in the hub's cache."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""


def check_source(source: str) -> None:
    """Raise InputError unless ``source`` is a file, or stands for standard input."""
    if Path(source).is_dir():
        raise InputError(
            f"{source} is a folder; name it folder:{source} if its files are books, lines:{source} if they "
            "have one sentence per line"
        )
    try:
        if source != STDIN:
            check_regular(Path(source))
    except OSError as error:
        raise InputError(
            f"{source} cannot be read: {error.strerror}; name a file with one sentence per line"
        ) from None


def books_of(source: str) -> "Corpus | None":
    """The books of folder:PATH or lines:PATH; None for a file, and for standard input."""
    if not source.startswith(("folder:", "lines:")):
        check_source(source)
        return None
    from sentence.corpora import find_corpus  # slower to import than other sources need

    return find_corpus(source, Path())


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(EmbedConfig, argv, "python -m sentence.embed")
    config.check()
    books = books_of(config.source)
    find_model(config.run, config.download)
    # Imported here because torch takes seconds, and help and errors do not need it.
    from sentence.embedding import embed

    each = "line" if books is None or books.lines == "sentences" else "sentence"
    config.show(embed(config, books), f", one for each {each}")


if __name__ == "__main__":
    main()
