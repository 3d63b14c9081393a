"""What writing systems without case, without spaces between words, or without full stops need.

English has all three; nothing here changes an English text.
"""
# ruff: noqa: RUF001 (punctuation of other scripts resembles that of ASCII)

import regex

# Scripts without spaces between words, and signs that belong to them.
_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ーｰ"
# One letter with its marks: what stands for a word where there are no spaces. ``tokenizers`` reads this too.
UNSPACED = rf"(?=\p{{L}})[{_SCRIPTS}]\p{{M}}*"
# Full stops, and what closes a sentence or a line like one.
STOPS = "。．｡！？؟۔।॥։።။៕།"
CLOSING = f"{STOPS}：；」』）》〉】"

_UNSPACED = regex.compile(UNSPACED)
_CASELESS = regex.compile(r"(?![\u0000-\u02ff])\p{Lo}")
_SPACED_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+")
_LINE_END_WITHOUT_SPACE = regex.compile(
    rf"(?<=[{_SCRIPTS}、，”’{CLOSING}])\n(?=[{_SCRIPTS}])|(?<=[{_SCRIPTS}])\n(?=[「『（《〈【“‘、，{CLOSING}])"
)
# sentencex knows other full stops. Thai and Lao have none: a space ends a sentence or a clause, except beside
# the marks of repetition and abbreviation (as the whitespace engine of PyThaiNLP splits).
_MORE_SENTENCE_ENDS = regex.compile(
    r"(?<=[\p{Thai}\p{Lao}])(?<![ๆฯໆຯ])\s+(?=[\p{Thai}\p{Lao}])(?![ๆໆ])|(?<=[។៕])\s*|(?<=།)\s+"
)


def has_unspaced(text: str) -> bool:
    """Whether a text has letters of a script without spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def is_caseless_sentence(text: str) -> bool:
    """Whether a text has letters without case (Chinese, Arabic, Hindi, ...) and more than one word.

    A letter of a script without spaces counts as a word.
    """
    if text.isascii() or _CASELESS.search(text) is None:
        return False
    spaced = _UNSPACED.sub(" ", text)
    return len(_UNSPACED.findall(text)) + len(_SPACED_WORD.findall(spaced)) > 1


def join_lines(lines: list[str]) -> str:
    """Join the lines of a paragraph by spaces, or by nothing where words have none between them."""
    text = "\n".join(lines)
    if has_unspaced(text):
        text = _LINE_END_WITHOUT_SPACE.sub("", text)
    return text.replace("\n", " ")


def split_further(sentence: str) -> list[str]:
    """Split what sentencex takes for one sentence: Thai, Lao, Khmer and Tibetan."""
    return [sentence] if sentence.isascii() else _MORE_SENTENCE_ENDS.split(sentence)


def room_for_first_word(text: str) -> int:
    """Characters that a line needs to take the first word of ``text``, after a space where there are any."""
    unspaced = None if text.isascii() else _UNSPACED.match(text)
    return len(unspaced[0]) if unspaced else 1 + len(text.split(maxsplit=1)[0])
