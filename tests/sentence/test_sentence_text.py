"""Lines to paragraphs to sentences."""

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


def test_one_paragraph_a_line():
    assert list(sentences_of([PROSE + "\n", "\n", PROSE + "\n"])) == SENTENCES * 2


def test_wrapped_lines_are_joined_before_splitting():
    lines = wrapped(PROSE)
    assert len(lines) > 4
    assert is_wrapped(lines)
    assert list(sentences_of([*lines, "\n", *lines])) == SENTENCES * 2


def test_an_indented_line_begins_a_paragraph_of_a_wrapped_book():
    lines = wrapped("He went home without a word")
    paragraphs = list(paragraphs_of([*lines, "   and she", *lines[1:]]))
    assert paragraphs == ["He went home without a word", "and she"]


def test_headings_rules_and_numbers_are_no_sentences():
    lines = ["CHAPTER IV.\n", "* * *\n", "27\n", "THE END OF THE BEGINNING\n", "Oh!\n", PROSE + "\n"]
    assert list(sentences_of(lines)) == SENTENCES


def test_a_sentence_a_line_is_not_wrapped():
    assert list(sentences_of([f"{sentence}\n" for sentence in SENTENCES])) == SENTENCES
    lines = ["she said so .\n", "he went , and did not come back .\n"]  # as BookCorpus has them
    assert list(sentences_of(lines)) == [line.strip() for line in lines]


def test_wrapped_or_not():
    assert not is_wrapped([])
    assert not is_wrapped(["\n"])
    assert is_wrapped(["x" * 70 + "\n"] * 50 + ["x" * 300 + "\n"])  # one long line in fifty is an exception
    assert not is_wrapped(["x" * 70 + "\n"] * 10 + ["x" * 300 + "\n"] * 10)


def test_a_book_of_one_endless_paragraph_comes_in_pieces(monkeypatch):
    """In constant memory, and with the same sentences."""
    monkeypatch.setattr(text, "PARAGRAPH_CHARACTERS", 300)
    pieces = list(paragraphs_of(wrapped(" ".join([PROSE] * 20))))
    assert len(pieces) > 5
    assert max(len(piece) for piece in pieces) < 600
    assert list(sentences_of(wrapped(" ".join([PROSE] * 20)))) == SENTENCES * 20


def test_lines_are_read_as_they_are_needed():
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield PROSE + "\n"

    assert list(itertools.islice(sentences_of(endless()), 6)) == [*SENTENCES, *SENTENCES[:2]]
    assert len(taken) <= text.SAMPLED_LINES + 2


@given(st.lists(st.text(max_size=60), max_size=30))
def test_any_text_gives_clean_sentences(lines):
    for sentence in sentences_of([line + "\n" for line in lines]):
        assert sentence == " ".join(sentence.split())
        assert len(sentence.split()) > 0


@pytest.mark.parametrize("width", [30, 50, 70])
def test_wrapping_does_not_matter(width):
    assert list(sentences_of(wrapped(" ".join([PROSE] * 5), width))) == SENTENCES * 5
