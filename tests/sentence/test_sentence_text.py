"""Lines are joined to paragraphs, paragraphs are split into sentences."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentence import text
from sentence.text import is_wrapped, paragraphs_of, sentences_of

PROSE = (
    "It was a bright cold day in April, and the clocks were striking. Mr. Smith slipped quickly through the "
    "glass doors. The hallway smelt of boiled cabbage! At one end of it a coloured poster had been tacked."
)
SENTENCES = [
    "It was a bright cold day in April, and the clocks were striking.",
    "Mr. Smith slipped quickly through the glass doors.",
    "The hallway smelt of boiled cabbage!",
    "At one end of it a coloured poster had been tacked.",
]


def wrapped(prose: str, width: int = 40) -> list[str]:
    lines, line = [], ""
    for word in prose.split():
        if len(line) + len(word) > width:
            lines.append(line.rstrip() + "\n")
            line = ""
        line += word + " "
    return [*lines, line.rstrip() + "\n"]


def test_lines_that_are_not_wrapped_are_paragraphs():
    assert list(sentences_of([PROSE + "\n", "\n", PROSE + "\n"])) == SENTENCES * 2


def test_wrapped_lines_are_joined():
    lines = wrapped(PROSE)
    assert len(lines) > 4
    assert is_wrapped(lines)
    assert list(sentences_of([*lines, "\n", *lines])) == SENTENCES * 2


def test_indented_line_begins_a_paragraph_of_a_wrapped_book():
    lines = wrapped("He went home without a word")
    paragraphs = list(paragraphs_of([*lines, "   and she", *lines[1:]]))
    assert paragraphs == ["He went home without a word", "and she"]


def test_headings_ruled_lines_and_numbers_are_skipped():
    lines = ["CHAPTER IV.\n", "* * *\n", "27\n", "THE END OF THE BEGINNING\n", "Oh!\n", PROSE + "\n"]
    assert list(sentences_of(lines)) == SENTENCES


def test_one_sentence_a_line_is_not_wrapped():
    assert list(sentences_of([f"{sentence}\n" for sentence in SENTENCES])) == SENTENCES
    lines = ["she said so .\n", "he went , and did not come back .\n"]  # as BookCorpus has them
    assert list(sentences_of(lines)) == [line.strip() for line in lines]


def test_is_wrapped_allows_a_few_long_lines():
    assert not is_wrapped([])
    assert not is_wrapped(["\n"])
    assert is_wrapped(["x" * 70 + "\n"] * 50 + ["x" * 300 + "\n"])  # one long line in fifty is an exception
    assert not is_wrapped(["x" * 70 + "\n"] * 10 + ["x" * 300 + "\n"] * 10)


def test_very_long_paragraph_is_split_between_sentences(monkeypatch):
    monkeypatch.setattr(text, "MAX_PARAGRAPH", 300)
    pieces = list(paragraphs_of(wrapped(" ".join([PROSE] * 20))))
    assert len(pieces) > 5
    assert max(len(piece) for piece in pieces) < 600
    assert list(sentences_of(wrapped(" ".join([PROSE] * 20)))) == SENTENCES * 20


def test_lines_are_read_lazily():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield PROSE + "\n"

    assert list(itertools.islice(sentences_of(endless()), 6)) == [*SENTENCES, *SENTENCES[:2]]
    assert len(read) <= text.SAMPLED_LINES + 2


@given(st.lists(st.text(max_size=60), max_size=30))
def test_sentences_of_any_text_have_single_spaces(lines):
    for sentence in sentences_of([line + "\n" for line in lines]):
        assert sentence == " ".join(sentence.split())
        assert len(sentence.split()) > 0


@pytest.mark.parametrize("width", [30, 50, 70])
def test_sentences_do_not_depend_on_the_width_of_wrapped_lines(width):
    assert list(sentences_of(wrapped(" ".join([PROSE] * 5), width))) == SENTENCES * 5
