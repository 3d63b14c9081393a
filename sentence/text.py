"""From lines of a book to its sentences, in reading order and constant memory."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import sentencex

SAMPLED_LINES = 2000  # read ahead to see whether a book's lines are wrapped, with
SAMPLED_CHARACTERS = 1_000_000  # at most
MAX_WRAPPED_LINE = 100  # characters; wrapped books keep nearly all lines below
SENTENCE_ENDS = tuple(".!?:;\"'\u201d\u2019")
PARAGRAPH_CHARACTERS = 50_000  # a paragraph longer than this is split in pieces
SENTENCE_TOKEN = re.compile(r"\w+")


def sentences_of(lines: Iterable[str]) -> Iterator[str]:
    """The sentences of a book, one line of text each: headings, rules and numbers are left out.

    What a sentence is, sentencex says; one has at least two words and a small letter.
    """
    for paragraph in paragraphs_of(lines):
        for sentence in sentencex.segment("en", paragraph):
            sentence = " ".join(sentence.split())
            if sentence.upper() != sentence and len(SENTENCE_TOKEN.findall(sentence)) > 1:
                yield sentence


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book: a line each, or, where lines are wrapped, what stands between blank lines.

    In a wrapped book an indented line begins a paragraph too. A very long paragraph comes in pieces that end
    with a sentence.
    """
    lines = iter(lines)
    sample, size = [], 0
    for line in islice(lines, SAMPLED_LINES):
        sample.append(line)
        size += len(line)
        if size > SAMPLED_CHARACTERS:
            break
    lines = chain(sample, lines)
    if not is_wrapped(sample):
        for line in lines:
            if line.strip():
                yield line.strip()
        return
    held: list[str] = []
    size = 0
    for line in lines:
        text = line.strip()
        if held and (not text or line[0] in " \t"):
            yield " ".join(held)
            held, size = [], 0
        if text:
            held.append(text)
            size += len(text)
        if size > PARAGRAPH_CHARACTERS:
            *whole, rest = sentencex.segment("en", " ".join(held))
            if len(rest) > PARAGRAPH_CHARACTERS // 2:  # no prose: it would be looked through again and again
                whole, rest = [*whole, rest], ""
            if whole:
                yield "".join(whole)
                held, size = [rest] if rest else [], len(rest)
    if held:
        yield " ".join(held)


def is_wrapped(lines: list[str]) -> bool:
    """Whether a book's lines are cut at some width, not where its paragraphs or sentences end."""
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return False
    lengths = sorted(len(line) for line in lines)
    ended = sum(line.endswith(SENTENCE_ENDS) for line in lines)
    return lengths[int(0.95 * (len(lines) - 1))] <= MAX_WRAPPED_LINE and ended < len(lines) / 2
