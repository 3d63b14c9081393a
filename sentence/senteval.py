"""SentEval's tasks: what their files hold, in the order in which the original presents the samples.

Shapes: N sentences or pairs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.io.errors import InputError
from core.io.files import check_regular

EMPTY = "."  # stands for a sentence without tokens, as in SentEval's examples
PARTS = {"train": "training", "dev": "validation", "test": "testing"}
TREC_FILES = {"train": "train_5500.label", "test": "TREC_10.label"}
SST_FILES = {part: f"sentiment-{part}" for part in PARTS}
MSRP_FILES = {part: f"msr_paraphrase_{part}.txt" for part in ("train", "test")}
SICK_FILES = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
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
    """Pairs of sentences with classes."""

    pairs: list[tuple[str, ...]]
    labels: np.ndarray  # (N,) int64; of two classes, 1 if the sentences belong together
    parts: np.ndarray  # (N,), "train", "dev" or "test" for each pair


@dataclass(frozen=True)
class Similarity:
    """Pairs of sentences with similarities judged by people, in one set or in several."""

    pairs: list[tuple[str, ...]]
    scores: np.ndarray  # (N,)
    sets: np.ndarray  # (N,), the name of each pair's set


@dataclass(frozen=True)
class Relatedness:
    """Pairs of sentences with a relatedness of 1 to 5, to be predicted by a regression."""

    pairs: list[tuple[str, ...]]
    scores: np.ndarray  # (N,)
    parts: np.ndarray  # (N,), "train", "dev" or "test" for each pair


SentEvalTask = Classification | PairClassification | Similarity | Relatedness


class Sample(NamedTuple):
    """One or two texts, with single spaces between tokens, and their class or score."""

    part: str  # or the set that they belong to
    target: float | str
    texts: tuple[str, ...]


def sample(part: str, target: float | str, *texts: str) -> Sample:
    return Sample(part, target, tuple(" ".join(text.split()) for text in texts))


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """The original's order of samples within each part; folds and batches depend on it.

    Sorted by number of tokens, of pairs by both numbers, then by target.
    """
    return sorted(samples, key=lambda s: (s.part, [len(text.split()) for text in s.texts], s.target))


def as_columns(samples: Iterable[Sample]) -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    """Texts, targets and parts."""
    samples = list(samples)
    texts = [tuple(text or EMPTY for text in s.texts) for s in samples]
    return texts, np.array([s.target for s in samples]), np.array([s.part for s in samples])


def classification(samples: Iterable[Sample]) -> Classification:
    """The task of sentences with classes, which are numbered."""
    texts, targets, parts = as_columns(in_order(samples))
    labels = np.unique(targets, return_inverse=True)[1]
    return Classification([text for (text,) in texts], labels, parts if any(parts) else None)


def read_polarity(negative: str, positive: str) -> Callable[[Path], Classification]:
    """The reader of a task with one file for each of two classes, one sentence per line.

    A blank line is an empty sentence: CR and MPQA have some, and the original counts them.
    """

    def read(folder: Path) -> Classification:
        samples = []
        for label, name in enumerate((negative, positive)):
            lines = read_lines(folder / name, "latin-1", blank=True)
            samples += [sample("", label, line) for _, line in lines]
        return classification(samples)

    return read


def read_trec(folder: Path) -> Classification:
    """Questions with one of six labels, which are followed by a colon and a finer label."""
    samples = []
    for part, where, line in lines_of_parts(folder, TREC_FILES, "latin-1"):
        label, separator, rest = line.partition(":")
        sentence = rest.partition(" ")[2]
        if not separator or not sentence:
            raise InputError(f"{where} is not 'LABEL:detail question'")
        samples.append(sample(part, label, sentence))
    return classification(samples)


def read_sst2(folder: Path) -> Classification:
    """Sentences of movie reviews, negative or positive."""
    samples = []
    for part, where, line in lines_of_parts(folder, SST_FILES, "utf-8"):
        sentence, label, *_ = columns_of(line, 2, where)
        samples.append(sample(part, class_in(label, where, "01"), sentence))
    return classification(samples)


def read_sst5(folder: Path) -> Classification:
    """Sentences of movie reviews with one of five sentiments, which stands before them."""
    samples = []
    for part, where, line in lines_of_parts(folder, SST_FILES, "utf-8"):
        label, _, sentence = line.strip().partition(" ")
        if not sentence:
            raise InputError(f"{where} is not 'LABEL sentence'")
        samples.append(sample(part, class_in(label, where, "01234"), sentence))
    return classification(samples)


def read_msrp(folder: Path) -> PairClassification:
    """Pairs of sentences from the news, 1 for paraphrases."""
    samples = []
    for part, where, line in lines_of_parts(folder, MSRP_FILES, "utf-8-sig", header=1):
        label, _, _, first, second, *_ = columns_of(line, 5, where)
        samples.append(sample(part, class_in(label, where, "01"), first, second))
    return PairClassification(*as_columns(in_order(samples)))


def read_sick_relatedness(folder: Path) -> Relatedness:
    """Pairs of sentences and how related they are, 1 to 5."""
    samples = []
    for part, where, line in lines_of_parts(folder, SICK_FILES, "utf-8", header=1):
        _, first, second, score, *_ = columns_of(line, 5, where)
        samples.append(sample(part, number_in(score, where, 1, 5), first, second))
    return Relatedness(*as_columns(in_order(samples)))


def read_sick_entailment(folder: Path) -> PairClassification:
    """Pairs of sentences: whether the first contradicts, says nothing of, or entails the second."""
    samples = []
    for part, where, line in lines_of_parts(folder, SICK_FILES, "utf-8", header=1):
        _, first, second, _, judgment, *_ = columns_of(line, 5, where)
        samples.append(sample(part, class_in(judgment, where, SICK_CLASSES), first, second))
    return PairClassification(*as_columns(in_order(samples)))


def read_stsb(folder: Path) -> Similarity:
    """The test part of the STS benchmark."""
    samples = []
    for part, where, line in lines_of_parts(folder, {"test": "sts-test.csv"}, "utf-8"):
        *_, score, first, second = columns_of(line, 7, where)[:7]
        samples.append(sample(part, number_in(score, where), first, second))
    return Similarity(*as_columns(samples))


def read_sts(year: str) -> Callable[[Path], Similarity]:
    """The reader of a year's sets of pairs; a pair whose line among the scores is blank has none."""

    def read(folder: Path) -> Similarity:
        samples = []
        for name in STS_SETS[year]:
            path, gold = folder / f"STS.input.{name}.txt", folder / f"STS.gs.{name}.txt"
            lines, scores = (list(read_lines(file, "utf-8", blank=True)) for file in (path, gold))
            if len(lines) != len(scores):
                raise InputError(
                    f"{gold} has {len(scores)} lines, and {path.name} {len(lines)}: is one of them truncated?"
                )
            if not any(score.strip() for _, score in scores):
                raise InputError(f"{gold} has no scores: is it truncated?")
            for (where, line), (gold_where, score) in zip(lines, scores, strict=True):
                if score.strip():
                    first, second, *_ = columns_of(line, 2, where)
                    samples.append(sample(name, number_in(score, gold_where), first, second))
        return Similarity(*as_columns(samples))

    return read


def lines_of_parts(
    folder: Path, files: Mapping[str, str], encoding: str, header: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Every line of the files of a task's parts, as part, place and text.

    Raises InputError if a part has none.
    """
    for part, name in files.items():
        where = None
        for where, line in islice(read_lines(folder / name, encoding), header, None):
            yield part, where, line
        if where is None:
            raise InputError(f"{folder} has no samples for {PARTS[part]}: is one of its files truncated?")


def read_lines(path: Path, encoding: str, blank: bool = False) -> Iterator[tuple[str, str]]:
    """A file's lines with their places, as messages name them, blank ones only if ``blank``.

    Raises InputError if it is damaged.
    """
    try:
        check_regular(path)
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if blank or line.strip():
                    yield f"{path}: line {number}", line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def columns_of(line: str, count: int, where: str) -> list[str]:
    """A line's tab-separated columns; raises InputError if it has fewer than ``count``."""
    row = line.rstrip("\r").split("\t")
    if len(row) < count:
        raise InputError(f"{where} has {len(row)} columns; it must have {count}")
    return row


def class_in(text: str, where: str, classes: Sequence[str]) -> int:
    """The number of a class by its name; raises InputError if it is none of ``classes``."""
    if text.strip() not in tuple(classes):
        raise InputError(f"{where} has {text[:40]!r}; it must be {' or '.join(classes)}")
    return classes.index(text.strip())


def number_in(text: str, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """The finite number in a text; raises InputError if there is none, or if it is out of range."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        expected = "a finite number" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"{where} has {text[:40]!r}; it must be {expected}")
    return number


# The folder below SentEval's and the reader of each task.
SENTEVAL: dict[str, tuple[str, Callable[[Path], SentEvalTask]]] = {
    "mr": ("MR", read_polarity("rt-polarity.neg", "rt-polarity.pos")),
    "cr": ("CR", read_polarity("custrev.neg", "custrev.pos")),
    "subj": ("SUBJ", read_polarity("subj.subjective", "subj.objective")),
    "mpqa": ("MPQA", read_polarity("mpqa.neg", "mpqa.pos")),
    "trec": ("TREC", read_trec),
    "msrp": ("MRPC", read_msrp),
    "sst2": ("SST/binary", read_sst2),
    "stsb": ("STS/STSBenchmark", read_stsb),
    "sst5": ("SST/fine", read_sst5),
    "sickr": ("SICK", read_sick_relatedness),
    "sicke": ("SICK", read_sick_entailment),
    **{f"sts{year}": (f"STS/STS{year}-en-test", read_sts(year)) for year in STS_SETS},
}
