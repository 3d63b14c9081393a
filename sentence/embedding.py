"""The work of ``sentence.embed``: lines of text in, rows with vectors out, in constant memory."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from core.io.errors import InputError
from core.io.files import readable
from sentence.corpora import Faults, read_lines, read_stdin
from sentence.embed import STDIN, EmbedConfig
from sentence.loading import load_encoder
from shared_eval.embeddings import Rows

if TYPE_CHECKING:
    from shared_eval.gallery import Item

SENTENCES_AT_ONCE = 4096


def embed(config: EmbedConfig) -> int:
    """Write the embeddings of the source's lines; return their number. Blank lines have none."""
    model = load_encoder(config.run, config.device, download=config.download)
    faults = Faults()
    name = "standard input" if config.source == STDIN else config.source

    def batches() -> Iterator[Rows]:
        sentences = numbered(lines_of(config.source, faults))
        is_empty = True
        while chunk := list(islice(sentences, SENTENCES_AT_ONCE)):
            is_empty = False
            numbers, texts = zip(*chunk, strict=True)
            vectors = model.encode(list(texts), show_progress_bar=False)
            yield Rows(numbers, vectors, item=partial(shown, texts))
        if is_empty:
            raise InputError(f"{name} has no line with text; at least one is needed")

    count = config.write(batches(), f"{name}, embedded by {config.run}")
    faults.report()
    return count


def shown(texts: Sequence[str], i: int) -> "Item":
    """Sentence i of some sentences as a gallery shows it."""
    from shared_eval.gallery import Item  # only a gallery needs it

    return Item(readable(texts[i]))


def lines_of(source: str, faults: Faults) -> Iterator[str]:
    """The lines of a file, or of standard input."""
    return read_stdin(faults) if source == STDIN else read_lines(Path(source), faults)


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
