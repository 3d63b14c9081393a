"""The tasks that sentence embeddings are scored on: SentEval's, and two for the embedded corpus."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from core.io.downloads import fetch_archive
from core.io.errors import InputError
from core.io.files import check_regular
from sentence.corpora import embedded_topics
from sentence.text import sentences_of

SENTEVAL_FOLDER = Path("SentEval") / "downstream"
# All of SentEval's sentence tasks in its own layout, as the SimCSE authors publish them.
SENTEVAL_URL = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
MIN_CLASS_SAMPLES = 10  # training samples: penalties are chosen on as many folds
MIN_TOPIC_SENTENCES = 30  # of a class of the embedded topic task


@dataclass(frozen=True)
class Classification:
    """Sentences of classes; ``parts`` says of each whether it is for training, choosing or testing.

    Without parts, the task is cross-validated.
    """

    sentences: list[str]
    labels: np.ndarray  # (N,) int64
    parts: np.ndarray | None = None  # (N,) of "train", "dev", "test"


@dataclass(frozen=True)
class PairClassification:
    """Pairs of sentences that belong together, or do not; with parts, or else cross-validated."""

    pairs: list[tuple[str, str]]
    labels: np.ndarray  # (N,) int64, 1 where they belong together
    parts: np.ndarray | None = None


@dataclass(frozen=True)
class Similarity:
    """Pairs of sentences and how alike people found them."""

    pairs: list[tuple[str, str]]
    scores: np.ndarray  # (N,)


@dataclass(frozen=True)
class Choice:
    """Sentences, what belongs to each, and what does not: the first should be the nearer."""

    triples: list[tuple[str, str, str]]


Task = Classification | PairClassification | Similarity | Choice


def read_polarity(negative: str, positive: str) -> Callable[[Path], Classification]:
    """A task of two files, one a class, a sentence a line."""

    def read(folder: Path) -> Classification:
        parts = [[line for _, line in read_lines(folder / name, "latin-1")] for name in (negative, positive)]
        labels = np.repeat([0, 1], [len(part) for part in parts])
        return Classification(parts[0] + parts[1], labels)

    return read


def read_trec(folder: Path) -> Classification:
    """Questions of six kinds, before the colon of their label."""
    sentences, kinds, parts = [], [], []
    for name, part in (("train_5500.label", "train"), ("TREC_10.label", "test")):
        for number, line in read_lines(folder / name, "latin-1"):
            kind, separator, rest = line.partition(":")
            sentence = rest.partition(" ")[2]
            if not separator or not sentence:
                raise InputError(f"{folder / name}: line {number} is no 'KIND:detail question'")
            sentences.append(sentence)
            kinds.append(kind)
            parts.append(part)
    labels = np.unique(kinds, return_inverse=True)[1]
    return Classification(sentences, labels, np.array(parts))


def read_sst2(folder: Path) -> Classification:
    """Movie reviews with their own training, development and test parts."""
    sentences, labels, parts = [], [], []
    for part in ("train", "dev", "test"):
        path = folder / f"sentiment-{part}"
        for number, row in read_columns(path, 2, "utf-8"):
            sentences.append(row[0])
            labels.append(int(read_number(row[1], (0, 1), path, number)))
            parts.append(part)
    return Classification(sentences, np.array(labels), np.array(parts))


def read_msrp(folder: Path) -> PairClassification:
    """Pairs of sentences from the news, paraphrases or not."""
    pairs, labels, parts = [], [], []
    for part in ("train", "test"):
        path = folder / f"msr_paraphrase_{part}.txt"
        for number, row in islice(read_columns(path, 5, "utf-8-sig"), 1, None):
            pairs.append((row[3], row[4]))
            labels.append(int(read_number(row[0], (0, 1), path, number)))
            parts.append(part)
    return PairClassification(pairs, np.array(labels), np.array(parts))


def read_stsb(folder: Path) -> Similarity:
    """The test part of the STS benchmark."""
    path = folder / "sts-test.csv"
    pairs, scores = [], []
    for number, row in read_columns(path, 7, "utf-8"):
        pairs.append((row[5], row[6]))
        scores.append(read_number(row[4], None, path, number))
    return Similarity(pairs, np.array(scores))


# Folder below SentEval's, and reader.
SENTEVAL: dict[str, tuple[str, Callable[[Path], Task]]] = {
    "mr": ("MR", read_polarity("rt-polarity.neg", "rt-polarity.pos")),
    "cr": ("CR", read_polarity("custrev.neg", "custrev.pos")),
    "subj": ("SUBJ", read_polarity("subj.subjective", "subj.objective")),
    "mpqa": ("MPQA", read_polarity("mpqa.neg", "mpqa.pos")),
    "trec": ("TREC", read_trec),
    "msrp": ("MRPC", read_msrp),
    "sst2": ("SST/binary", read_sst2),
    "stsb": ("STS/STSBenchmark", read_stsb),
}


def embedded_topic() -> Classification:
    """Which page of the language reference a sentence is of, among those that no encoder is trained on."""
    sentences, labels, classes = [], [], 0
    for text in embedded_topics(held_out=True).values():
        of_topic = list(sentences_of(text.splitlines()))
        if len(of_topic) >= MIN_TOPIC_SENTENCES:
            sentences += of_topic
            labels += [classes] * len(of_topic)
            classes += 1
    return Classification(sentences, np.array(labels))


def embedded_neighbours() -> Choice:
    """Which of two sentences follows: the next of its page, or one of another page; none is trained on."""
    draw = np.random.default_rng(0)
    pages = [list(sentences_of(text.splitlines())) for text in embedded_topics(held_out=True).values()]
    triples = []
    for page in pages:
        others = [sentence for other in pages if other is not page for sentence in other]
        triples += [(first, second, others[draw.integers(len(others))]) for first, second in pairwise(page)]
    return Choice(triples)


EMBEDDED: dict[str, Callable[[], Task]] = {"topic": embedded_topic, "neighbours": embedded_neighbours}
TASKS = (*SENTEVAL, *EMBEDDED)


def load_task(name: str, data_root: Path) -> Task | None:
    """The task of that name, None where its folder is missing; raises InputError where a file is damaged."""
    if name in EMBEDDED:
        return EMBEDDED[name]()
    folder = data_root / SENTEVAL_FOLDER
    return read_task(name, folder) if (folder / SENTEVAL[name][0]).is_dir() else None


def read_task(name: str, folder: Path) -> Task:
    """A task of SentEval's, whose data lie in ``folder``; raises InputError where a file is damaged."""
    where, read = SENTEVAL[name]
    task = read(folder / where)
    check_parts(task, folder / where)
    return task


def check_parts(task: Task, folder: Path) -> None:
    """Raise InputError where a task has too little to learn from, to choose on, or to be scored on."""
    if isinstance(task, Similarity):
        if len(set(task.scores)) < 2:
            raise InputError(f"{folder} has no two different scores: is a file of it cut short?")
        return
    parts = np.full(len(task.labels), "train") if task.parts is None else task.parts
    classes, counts = np.unique(task.labels[parts == "train"], return_counts=True)
    if len(classes) < 2 or counts.min() < MIN_CLASS_SAMPLES:
        raise InputError(
            f"{folder} has {len(classes)} classes to learn, of {min(counts, default=0)} samples or more; "
            f"2 of {MIN_CLASS_SAMPLES} are needed: is a file of it cut short?"
        )
    if task.parts is not None and "test" not in parts:
        raise InputError(f"{folder} has no samples to test on: is a file of it cut short?")


def check_names(names: Sequence[str]) -> None:
    """Raise InputError where a name is no task's."""
    for name in names:
        if name not in TASKS:
            raise InputError(f"--tasks {name} is unknown; known: {', '.join(TASKS)}")


def fetch_senteval(data_root: Path) -> None:
    """Fetch SentEval's data, unless they are there; raises InputError where a task of theirs is not whole."""

    def check(folder: Path) -> None:
        for name in SENTEVAL:
            read_task(name, folder)

    if not (data_root / SENTEVAL_FOLDER).exists():
        fetch_archive(SENTEVAL_URL, data_root / SENTEVAL_FOLDER, check=check)


def read_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold anything, with their numbers; raises InputError if it cannot be read."""
    try:
        check_regular(path)
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_columns(path: Path, count: int, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """A file's tab-separated lines, numbered; raises InputError where one has less than ``count`` columns."""
    for number, line in read_lines(path, encoding):
        row = line.rstrip("\r").split("\t")
        if len(row) < count:
            raise InputError(f"{path}: line {number} has {len(row)} columns; {count} are needed")
        yield number, row


def read_number(text: str, allowed: tuple[int, ...] | None, path: Path, line: int) -> float:
    """A label among those ``allowed``, or any finite number; raises InputError, naming file and line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (allowed and number not in allowed):
        expected = " or ".join(map(str, allowed)) if allowed else "a number"
        raise InputError(f"{path}: line {line} has {text[:40]!r} where {expected} must stand")
    return number
