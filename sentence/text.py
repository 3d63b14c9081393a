"""Splits the lines of a book into sentences, in reading order and in constant memory."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import sentencex

# What is read ahead to detect wrapped lines.
SAMPLED_LINES = 2000
SAMPLED_CHARACTERS = 1_000_000
MAX_WRAPPED_LINE = 100  # characters that at most one wrapped line in 20 exceeds
SENTENCE_ENDS = tuple(".!?:;\"'\u201d\u2019")
MAX_PARAGRAPH = 50_000  # characters; longer paragraphs are split
WORD = re.compile(r"\w+")


def sentences_of(lines: Iterable[str]) -> Iterator[str]:
    """The sentences of a book, as sentencex splits its paragraphs, each on one line.

    Sentences of one word or without a lower-case letter (headings, ruled lines, numbers) are skipped.
    """
    for paragraph in paragraphs_of(lines):
        for sentence in sentencex.segment("en", paragraph):
            sentence = " ".join(sentence.split())
            if sentence.upper() != sentence and len(WORD.findall(sentence)) > 1:
                yield sentence


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book: its lines or, if they are wrapped, the lines between blank ones, joined.

    In a wrapped book an indented line begins a paragraph too. Very long paragraphs are split between
    sentences.
    """
    lines = iter(lines)
    sample, characters = [], 0
    for line in islice(lines, SAMPLED_LINES):
        sample.append(line)
        characters += len(line)
        if characters > SAMPLED_CHARACTERS:
            break
    lines = chain(sample, lines)
    return _join_wrapped(lines) if is_wrapped(sample) else filter(None, map(str.strip, lines))


def _join_wrapped(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a book whose lines are wrapped."""
    paragraph: list[str] = []
    characters = 0
    for line in lines:
        text = line.strip()
        if paragraph and (not text or line[0] in " \t"):
            yield " ".join(paragraph)
            paragraph, characters = [], 0
        if text:
            paragraph.append(text)
            characters += len(text)
        if characters > MAX_PARAGRAPH:
            *complete, rest = sentencex.segment("en", " ".join(paragraph))
            if len(rest) > MAX_PARAGRAPH // 2:  # not prose; do not segment it again with every line
                complete, rest = [*complete, rest], ""
            if complete:
                yield "".join(complete)
                paragraph, characters = [rest] if rest else [], len(rest)
    if paragraph:
        yield " ".join(paragraph)


def is_wrapped(lines: list[str]) -> bool:
    """Whether lines are wrapped at some width: nearly all are short, and most do not end a sentence."""
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return False
    lengths = sorted(len(line) for line in lines)
    ended = sum(line.endswith(SENTENCE_ENDS) for line in lines)
    return lengths[int(0.95 * (len(lines) - 1))] <= MAX_WRAPPED_LINE and ended < len(lines) / 2
