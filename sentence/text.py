"""Splits the lines of a book into sentences, in reading order and in constant memory."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise

import sentencex

from sentence.config import Lines
from sentence.writing import (
    CLOSING,
    STOPS,
    is_caseless_sentence,
    join_lines,
    room_for_first_word,
    split_further,
)

# What is read ahead to detect wrapped lines.
SAMPLED_LINES = 2000
SAMPLED_CHARACTERS = 1_000_000
MAX_WRAPPED_LINE = 100  # characters that at most one wrapped line in 20 exceeds
MIN_WRAPPED_LINES = 10  # fewer are too few to warn of
LINE_ENDS = (*".!?:;\"'\u201d\u2019", *CLOSING)
STOP = re.compile(rf"[.!?…{STOPS}]")
MAX_STOPS = 0.05  # share of lines with a full stop in text without punctuation; of wrapped prose 0.2 or more
MAX_PARAGRAPH = 50_000  # characters; longer paragraphs are split
WORD = re.compile(r"\w+")


def sentences_of(lines: Iterable[str], mode: Lines = "auto") -> Iterator[str]:
    """The sentences of a book: the ``pieces_of`` its text that are sentences."""
    return (piece for piece, kept in pieces_of(lines, mode) if kept)


def pieces_of(lines: Iterable[str], mode: Lines = "auto") -> Iterator[tuple[str, bool]]:
    """The text of a book in pieces, each on one line, and whether each is a sentence.

    ``auto`` splits paragraphs by sentencex. Pieces of one word, and those without a letter that is lower-case
    or has no case, are not sentences: headings, ruled lines, numbers. With ``sentences`` each line is a
    sentence, unless it is blank.
    """
    if mode == "sentences":
        for line in lines:
            if sentence := " ".join(line.split()):
                yield sentence, True
        return
    for paragraph in paragraphs_of(lines):
        for segment in sentencex.segment("en", paragraph):
            for part in split_further(segment):
                if piece := " ".join(part.split()):
                    yield piece, is_sentence(piece)


def is_sentence(piece: str) -> bool:
    """Whether text has more than one word, and a letter that is lower-case or has no case."""
    return (piece.upper() != piece and len(WORD.findall(piece)) > 1) or is_caseless_sentence(piece)


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book: its lines or, if they are wrapped, the lines between blank ones, joined.

    In a wrapped book an indented line begins a paragraph too. Very long paragraphs are split between
    sentences.
    """
    sample, lines = read_ahead(lines)
    return _join_wrapped(lines) if is_wrapped(sample) else filter(None, map(str.strip, lines))


def read_ahead(lines: Iterable[str]) -> tuple[list[str], Iterator[str]]:
    """The first lines of a text, enough to detect whether it is wrapped, and all of its lines."""
    lines = iter(lines)
    sample, characters = [], 0
    for line in islice(lines, SAMPLED_LINES):
        sample.append(line)
        characters += len(line)
        if characters > SAMPLED_CHARACTERS:
            break
    return sample, chain(sample, lines)


def warn_if_wrapped(lines: Iterable[str], name: str, warn: Callable[[str], None]) -> Iterator[str]:
    """The lines, each to be a sentence; ``warn`` takes a message if they seem to be wrapped prose."""
    sample, lines = read_ahead(lines)
    if sum(map(bool, map(str.strip, sample))) >= MIN_WRAPPED_LINES and is_wrapped(sample):
        warn(
            f"{name} seems to be wrapped: most lines do not end a sentence, but each is taken as one; "
            "folder:PATH, with the folder of the text, joins them"
        )
    return lines


def describe_left_out(other_files: int, hidden: int, pieces: int) -> list[str]:
    """What is left out of a folder of books, and of their text, in lines for people."""
    said = []
    others = {"files that are not .txt or .txt.gz": other_files, "hidden files and folders": hidden}
    if left_out := [f"{count:,} {what}" for what, count in others.items() if count]:
        said.append(f"left out of the folder: {' and '.join(left_out)}")
    if pieces:
        said.append(
            f"left out of the text: {pieces:,} pieces that are not sentences (one word; or capitals, numbers "
            "and signs alone)"
        )
    return said


def _join_wrapped(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book whose lines are wrapped."""
    paragraph: list[str] = []
    characters = 0
    for line in lines:
        text = line.strip()
        if paragraph and (not text or is_indented(line)):
            yield join_lines(paragraph)
            paragraph, characters = [], 0
        if text:
            paragraph.append(text)
            characters += len(text)
        if characters > MAX_PARAGRAPH:
            *complete, rest = sentencex.segment("en", join_lines(paragraph))
            if len(rest) > MAX_PARAGRAPH // 2:  # not prose; do not segment it again with every line
                complete, rest = [*complete, rest], ""
            if complete:
                yield "".join(complete)
                paragraph, characters = [rest] if rest else [], len(rest)
    if paragraph:
        yield join_lines(paragraph)


def is_indented(line: str) -> bool:
    """Whether a line begins with a space, a tab, or the full-width space of Chinese and Japanese."""
    return line[:1] in (" ", "\t", "\u3000")


def is_wrapped(lines: list[str]) -> bool:
    """Whether lines are wrapped at some width: nearly all are short, and most do not end a sentence.

    Text without full stops is not wrapped if most of its lines end before the next word needs it: then each
    is a sentence of its own.
    """
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        return False
    width = sorted(map(len, texts))[int(0.95 * (len(texts) - 1))]
    if width > MAX_WRAPPED_LINE:
        return False
    if sum(text.endswith(LINE_ENDS) for text in texts) >= len(texts) / 2:
        return False
    return sum(map(has_stop, texts)) > MAX_STOPS * len(texts) or not ends_early(lines, width)


def has_stop(text: str) -> bool:
    return STOP.search(text) is not None


def ends_early(lines: list[str], width: int) -> bool:
    """Whether most lines that another follows in a paragraph end although its first word had fitted."""
    early = breaks = 0
    for line, following in pairwise(lines):
        text, next_text = line.strip(), following.strip()
        if text and next_text and not is_indented(following):
            breaks += 1
            early += len(text) + room_for_first_word(next_text) <= width
    return early > breaks / 2
