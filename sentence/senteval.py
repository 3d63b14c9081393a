"""SentEval's tasks: what their files hold, in the order in which the original presents the samples.

Shapes: N sentences or pairs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from core.io.errors import InputError
from core.io.files import check_regular

EMPTY = "."  # stands for a sentence without tokens, as in SentEval's examples
SICK_CLASSES = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
STS_SETS = {
    "12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "13": ("FNWN", "headlines", "OnWN"),  # the fourth, SMT, is not free
    "14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}


@dataclass(frozen=True)
class Classification:
    """Sentences with classes; without ``parts`` the task is cross-validated."""

    sentences: list[str]
    labels: np.ndarray  # (N,) int64
    parts: np.ndarray | None = None  # (N,), "train", "dev" or "test" for each sentence


@dataclass(frozen=True)
class PairClassification:
    """Pairs of sentences with classes; without ``parts`` the task is cross-validated."""

    pairs: list[tuple[str, str]]
    labels: np.ndarray  # (N,) int64; of two classes, 1 if the sentences belong together
    parts: np.ndarray | None = None  # (N,), "train", "dev" or "test" for each pair


@dataclass(frozen=True)
class Similarity:
    """Pairs of sentences with similarities judged by people, in one set or in several."""

    pairs: list[tuple[str, str]]
    scores: np.ndarray  # (N,)
    sets: np.ndarray | None = None  # (N,), the name of each pair's set


@dataclass(frozen=True)
class Relatedness:
    """Pairs of sentences with a relatedness of 1 to 5, to be predicted by a regression."""

    pairs: list[tuple[str, str]]
    scores: np.ndarray  # (N,)
    parts: np.ndarray  # (N,), "train", "dev" or "test" for each pair


def sorted_by_length(
    columns: Sequence[Sequence[str]], targets: Sequence[float], parts: Sequence[str] | None = None
) -> np.ndarray:
    """The original's order of samples within each part; folds and batches depend on it.

    Sorted by number of tokens, then by target; of pairs, which have two columns, by both numbers.
    """
    lengths = [np.array([len(text.split()) for text in column]) for column in columns]
    return np.lexsort([targets, *reversed(lengths), *([] if parts is None else [parts])])


def classification(
    sentences: Sequence[str], labels: Sequence[int], parts: Sequence[str] | None = None
) -> Classification:
    """The task of these samples, sorted by length."""
    order = sorted_by_length([sentences], labels, parts)
    return Classification(
        [sentences[i] or EMPTY for i in order],
        np.array(labels)[order],
        None if parts is None else np.array(parts)[order],
    )


def sorted_pairs(
    pairs: Sequence[tuple[str, str]], targets: Sequence[float], parts: Sequence[str]
) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Pairs, targets and parts, sorted by length."""
    order = sorted_by_length(list(zip(*pairs, strict=True)), targets, parts)
    texts = [(pairs[i][0] or EMPTY, pairs[i][1] or EMPTY) for i in order]
    return texts, np.array(targets)[order], np.array(parts)[order]


def as_text(line: str) -> str:
    """The line with single spaces between tokens."""
    return " ".join(line.split())


def read_polarity(negative: str, positive: str) -> Callable[[Path], Classification]:
    """The reader of a task with one file for each of two classes, a sentence a line.

    A blank line is an empty sentence: CR and MPQA have some, and the original counts them.
    """

    def read(folder: Path) -> Classification:
        parts = [
            [as_text(line) for _, line in read_lines(folder / name, "latin-1", blank=True)]
            for name in (negative, positive)
        ]
        return classification(parts[0] + parts[1], [0] * len(parts[0]) + [1] * len(parts[1]))

    return read


def read_trec(folder: Path) -> Classification:
    """Questions with one of six labels, which are followed by a colon and a finer label."""
    sentences, kinds, parts = [], [], []
    for name, part in (("train_5500.label", "train"), ("TREC_10.label", "test")):
        for number, line in read_lines(folder / name, "latin-1"):
            kind, separator, rest = line.partition(":")
            sentence = rest.partition(" ")[2]
            if not separator or not sentence:
                raise InputError(f"{folder / name}: line {number} is not 'LABEL:detail question'")
            sentences.append(as_text(sentence))
            kinds.append(kind)
            parts.append(part)
    labels = np.unique(kinds, return_inverse=True)[1]
    return classification(sentences, labels, parts)


def read_sst2(folder: Path) -> Classification:
    """Sentences of movie reviews, negative or positive."""
    sentences, labels, parts = [], [], []
    for part in ("train", "dev", "test"):
        path = folder / f"sentiment-{part}"
        for number, row in read_columns(path, 2, "utf-8"):
            sentences.append(as_text(row[0]))
            labels.append(int(read_number(row[1], path, number, allowed=(0, 1))))
            parts.append(part)
    check_has_dev(parts, folder)
    return classification(sentences, labels, parts)


def read_sst5(folder: Path) -> Classification:
    """Sentences of movie reviews with one of five sentiments, which stands before them."""
    sentences, labels, parts = [], [], []
    for part in ("train", "dev", "test"):
        path = folder / f"sentiment-{part}"
        for number, line in read_lines(path, "utf-8"):
            label, _, sentence = line.strip().partition(" ")
            if not sentence:
                raise InputError(f"{path}: line {number} is not 'LABEL sentence'")
            sentences.append(as_text(sentence))
            labels.append(int(read_number(label, path, number, allowed=(0, 1, 2, 3, 4))))
            parts.append(part)
    check_has_dev(parts, folder)
    return classification(sentences, labels, parts)


def read_msrp(folder: Path) -> PairClassification:
    """Pairs of sentences from the news, 1 for paraphrases."""
    pairs, labels, parts = [], [], []
    for part in ("train", "test"):
        path = folder / f"msr_paraphrase_{part}.txt"
        for number, row in islice(read_columns(path, 5, "utf-8-sig"), 1, None):
            pairs.append((as_text(row[3]), as_text(row[4])))
            labels.append(int(read_number(row[0], path, number, allowed=(0, 1))))
            parts.append(part)
    return PairClassification(*sorted_pairs(pairs, labels, parts))


def read_sick_relatedness(folder: Path) -> Relatedness:
    """Pairs of sentences and how related they are, 1 to 5."""
    rows, parts = read_sick(folder)
    scores = [read_number(row[3], path, number, low=1, high=5) for path, number, row in rows]
    return Relatedness(*sorted_pairs([(row[1], row[2]) for _, _, row in rows], scores, parts))


def read_sick_entailment(folder: Path) -> PairClassification:
    """Pairs of sentences: whether the first contradicts, says nothing of, or entails the second."""
    rows, parts = read_sick(folder)
    labels = []
    for path, number, row in rows:
        if row[4] not in SICK_CLASSES:
            expected = ", ".join(SICK_CLASSES)
            raise InputError(f"{path}: line {number} has {row[4][:40]!r}; it must be one of {expected}")
        labels.append(SICK_CLASSES.index(row[4]))
    return PairClassification(*sorted_pairs([(row[1], row[2]) for _, _, row in rows], labels, parts))


def read_sick(folder: Path) -> tuple[list[tuple[Path, int, list[str]]], list[str]]:
    """The lines of SICK's files as file, number and columns, and the part of each."""
    names = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
    rows, parts = [], []
    for part, name in names.items():
        for number, row in islice(read_columns(folder / name, 5, "utf-8"), 1, None):
            rows.append((folder / name, number, [as_text(cell) for cell in row]))
            parts.append(part)
    check_has_dev(parts, folder)
    return rows, parts


def read_stsb(folder: Path) -> Similarity:
    """The test part of the STS benchmark."""
    path = folder / "sts-test.csv"
    pairs, scores = [], []
    for number, row in read_columns(path, 7, "utf-8"):
        pairs.append((as_text(row[5]), as_text(row[6])))
        scores.append(read_number(row[4], path, number))
    return Similarity(pairs, np.array(scores))


def read_sts(year: str) -> Callable[[Path], Similarity]:
    """The reader of a year's sets of pairs; a pair whose line among the scores is blank has none."""

    def read(folder: Path) -> Similarity:
        pairs, scores, sets = [], [], []
        for name in STS_SETS[year]:
            path, gold = folder / f"STS.input.{name}.txt", folder / f"STS.gs.{name}.txt"
            lines, values = (list(read_lines(file, "utf-8", blank=True)) for file in (path, gold))
            if len(lines) != len(values):
                raise InputError(
                    f"{gold} has {len(values)} lines, and {path.name} {len(lines)}: is one of them truncated?"
                )
            for (number, line), (_, value) in zip(lines, values, strict=True):
                if value.strip():
                    row = columns_of(line, 2, path, number)
                    pairs.append((as_text(row[0]), as_text(row[1])))
                    scores.append(read_number(value, gold, number))
                    sets.append(name)
            if name not in sets:
                raise InputError(f"{gold} has no scores: is it truncated?")
        return Similarity(pairs, np.array(scores), np.array(sets))

    return read


def check_has_dev(parts: Sequence[str], folder: Path) -> None:
    """Raise InputError if no sample is for choosing the penalty on."""
    if "dev" not in parts:
        raise InputError(f"{folder} has no samples for validation: is one of its files truncated?")


def read_lines(path: Path, encoding: str, blank: bool = False) -> Iterator[tuple[int, str]]:
    """A file's lines with their numbers, blank ones only if ``blank``; raises InputError if it is damaged."""
    try:
        check_regular(path)
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if blank or line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_columns(path: Path, count: int, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """A file's tab-separated lines, numbered; raises InputError if one has fewer than ``count`` columns."""
    for number, line in read_lines(path, encoding):
        yield number, columns_of(line, count, path, number)


def columns_of(line: str, count: int, path: Path, number: int) -> list[str]:
    """A line's tab-separated columns; raises InputError if it has fewer than ``count``."""
    row = line.rstrip("\r").split("\t")
    if len(row) < count:
        raise InputError(f"{path}: line {number} has {len(row)} columns; it must have {count}")
    return row


def read_number(
    text: str,
    path: Path,
    line: int,
    allowed: tuple[int, ...] | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> float:
    """The number, one of ``allowed`` or any finite one in range; raises InputError, naming file and line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high) or (allowed and number not in allowed):
        expected = "a finite number" if math.isinf(high) else f"from {low:g} to {high:g}"
        if allowed:
            expected = " or ".join(map(str, allowed))
        raise InputError(f"{path}: line {line} has {text[:40]!r}; it must be {expected}")
    return number
