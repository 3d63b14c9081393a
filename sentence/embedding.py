"""The work of ``sentence.embed``: lines of text in, rows with vectors out, in constant memory."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from core.io.errors import InputError
from core.io.files import path_in, readable
from sentence.corpora import Corpus, Faults, read_lines, read_stdin
from sentence.embed import STDIN, EmbedConfig
from sentence.loading import load_encoder
from sentence.text import describe_left_out, pieces_of, warn_if_wrapped
from shared_eval.embeddings import Rows

if TYPE_CHECKING:
    from shared_eval.gallery import Item

SENTENCES_AT_ONCE = 4096


@dataclass
class BookSentences:
    """The sentences of all books in order, each with its file below ``root`` and its number there, from 0."""

    books: Corpus
    root: Path
    faults: Faults
    left_out: int = 0  # pieces of text that are not sentences, of the books that were read

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for path in self.books.files:
            name = path.relative_to(self.root).as_posix()
            lines = read_lines(path, self.faults)
            for number, text in self._numbered(lines, str(path)):
                yield f"{name}:{number}", text

    def _numbered(self, lines: Iterable[str], name: str) -> Iterator[tuple[int, str]]:
        if self.books.lines == "sentences":
            yield from numbered(warn_if_wrapped(lines, name, self.faults.note))
            return
        number = 0
        for piece, is_sentence in pieces_of(lines):
            if is_sentence:
                yield number, piece
            number += is_sentence
            self.left_out += not is_sentence

    def report(self) -> None:
        """Say on stderr what is left out."""
        for line in describe_left_out(self.books.other_files, self.books.hidden, self.left_out):
            print(line, file=sys.stderr)


def embed(config: EmbedConfig, books: Corpus | None) -> int:
    """Write the embeddings of the sentences of ``books``, or of a file's lines; return their number.

    Blank lines have none.
    """
    model = load_encoder(config.run, config.device, download=config.download)
    faults = Faults()
    name = "standard input" if config.source == STDIN else config.source
    in_books = None
    if books is not None and (root := path_in(config.source)).is_dir():
        in_books = BookSentences(books, root, faults)
    has_lines = books is None or books.lines == "sentences"

    def batches() -> Iterator[Rows]:
        sentences: Iterator[tuple[int | str, str]] = (
            iter(in_books)
            if in_books
            else numbered(warn_if_wrapped(lines_of(config.source, faults), name, faults.note))
        )
        is_empty = True
        while chunk := list(islice(sentences, SENTENCES_AT_ONCE)):
            is_empty = False
            ids, texts = zip(*chunk, strict=True)
            vectors = model.encode(list(texts), show_progress_bar=False)
            yield Rows(ids, vectors, item=partial(shown, texts))
        if is_empty:
            what = "line with text" if has_lines else "sentence"
            raise InputError(f"{name} has no {what}; at least one is needed")

    count = config.write(batches(), f"{name}, embedded by {config.run}")
    faults.report()
    if in_books:
        in_books.report()
    return count


def shown(texts: Sequence[str], i: int) -> "Item":
    """Sentence i of some sentences as a gallery shows it."""
    from shared_eval.gallery import Item  # only a gallery needs it

    return Item(readable(texts[i]))


def lines_of(source: str, faults: Faults) -> Iterator[str]:
    """The lines of a file, also as lines:PATH, or of standard input."""
    if source == STDIN:
        return read_stdin(faults)
    return read_lines(path_in(source) if source.startswith("lines:") else Path(source), faults)


def sentences_in(source: str, at_most: int) -> list[str]:
    """The first lines of a file, or of standard input, that are not blank; no more are read."""
    faults = Faults()
    sentences = [text for _, text in islice(numbered(lines_of(source, faults)), at_most)]
    faults.report()
    return sentences


def numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 0.

    A part without a line end is followed by the rest of its line (``corpora.MAX_LINE_BYTES``), which is left
    out: encoders truncate far earlier.
    """
    number, begins = 0, True
    for line in lines:
        text = " ".join(line.split())
        if begins and text:
            yield number, text
        begins = line.endswith("\n")
        number += begins
