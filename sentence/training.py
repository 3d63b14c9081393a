"""Training from Python on texts of one's own: ``sentence.train_on(texts, ...)``."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from core.io.errors import InputError
from core.training.from_python import python_config, refuse_dataset
from core.training.launch import launch
from sentence.config import NO_TASKS, SentenceConfig, defaults_for
from sentence.corpora import Corpus, in_memory
from sentence.loading import load_encoder
from sentence.task import SentenceTask


def train_on(
    texts: Iterable[str] | Iterable[Iterable[str]] | Path,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> SentenceTransformer:
    """Train quick-thoughts as ``python -m sentence.train`` does; return what ``sentence.load_encoder`` does.

    Args:
        texts: Sentences in reading order, as neighbours are positives; or several books of them; or a Path: a
            folder is read as ``folder:PATH`` is, and a file as ``lines:PATH`` is.
        output_dir: The run's folder; by default a temporary one, which is removed.
        settings: Those of the command, by name: ``objective="hard"``, ``encoder="bow"``, ``epochs=5``, ... By
            default there are no ``tasks``, and the run is scored without labels.

    Raises:
        InputError: Texts or settings are not valid, or ``output_dir`` holds something else.
        TrainingError: Training diverged or collapsed, or the folder cannot be written.
    """
    refuse_dataset(settings, "texts")
    if isinstance(texts, Path):
        source, dataset = None, f"{'folder' if texts.is_dir() else 'lines'}:{texts}"
    else:
        source = corpus_of(texts)
        dataset = source.name
    settings = {"tasks": (NO_TASKS,)} | settings | {"dataset": dataset}
    with python_config(SentenceConfig, defaults_for, output_dir, settings) as config:
        launch(partial(SentenceTask, source=source), config, shows_folder=output_dir is not None)
        return load_encoder(config.folder(), config.device)


def corpus_of(texts: Iterable[str] | Iterable[Iterable[str]]) -> Corpus:
    """The corpus of sentences, or of books of sentences; raises InputError if they are neither."""
    if isinstance(texts, str):
        raise InputError("`texts` is one text; it must be a list of sentences, or a Path")
    if not isinstance(texts, Iterable) or hasattr(texts, "columns"):
        raise InputError(
            f"`texts` is of type {type(texts).__name__}; it must be a list of sentences, or a Path"
        )
    items = [item if isinstance(item, str) else _book(item) for item in texts]
    are_sentences = {isinstance(item, str) for item in items}
    if len(are_sentences) > 1:
        raise InputError("`texts` has sentences beside lists of sentences; it must have one of them")
    books: Sequence[Any] = [items] if are_sentences == {True} else items
    if not any(books):
        raise InputError("`texts` is empty; at least 2 sentences are needed")
    return in_memory(books)


def _book(sentences: Any) -> list[str]:
    is_book = isinstance(sentences, Iterable) and not isinstance(sentences, bytes)
    book = list(sentences) if is_book else [sentences]
    for sentence in book:
        if not isinstance(sentence, str):
            raise InputError(f"`texts` has {sentence!r:.50}; it must be sentences, or lists of sentences")
    return book
