"""The tasks that evaluate sentence embeddings: SentEval's, and two for the embedded corpus."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from core.io.downloads import fetch_archive
from core.io.errors import InputError, unknown_name
from core.io.files import check_regular
from sentence.corpora import embedded_topics
from sentence.text import sentences_of

SENTEVAL_FOLDER = Path("SentEval") / "downstream"
# All of SentEval's sentence tasks in its own layout, as the SimCSE authors publish them.
SENTEVAL_URL = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
MIN_CLASS_SAMPLES = 10  # for training; penalties are chosen by 10-fold cross-validation
MIN_TOPIC_SENTENCES = 30  # of a class of the embedded topic task


@dataclass(frozen=True)
class Classification:
    """Sentences with classes; without ``parts`` the task is cross-validated."""

    sentences: list[str]
    labels: np.ndarray  # (N,) int64
    parts: np.ndarray | None = None  # (N,), "train", "dev" or "test" for each sentence


@dataclass(frozen=True)
class PairClassification:
    """Pairs of sentences that belong together or not; without ``parts`` the task is cross-validated."""

    pairs: list[tuple[str, str]]
    labels: np.ndarray  # (N,) int64, 1 if the sentences belong together
    parts: np.ndarray | None = None  # (N,), "train", "dev" or "test" for each pair


@dataclass(frozen=True)
class Similarity:
    """Pairs of sentences with similarities judged by people."""

    pairs: list[tuple[str, str]]
    scores: np.ndarray  # (N,)


@dataclass(frozen=True)
class Choice:
    """Triples of an anchor, a positive and a negative; the positive should be the nearer."""

    triples: list[tuple[str, str, str]]


TransferTask = Classification | PairClassification | Similarity | Choice


def read_polarity(negative: str, positive: str) -> Callable[[Path], Classification]:
    """The reader of a task with one file for each of two classes, a sentence a line."""

    def read(folder: Path) -> Classification:
        parts = [[line for _, line in read_lines(folder / name, "latin-1")] for name in (negative, positive)]
        labels = np.repeat([0, 1], [len(part) for part in parts])
        return Classification(parts[0] + parts[1], labels)

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
            sentences.append(sentence)
            kinds.append(kind)
            parts.append(part)
    labels = np.unique(kinds, return_inverse=True)[1]
    return Classification(sentences, labels, np.array(parts))


def read_sst2(folder: Path) -> Classification:
    """Sentences of movie reviews, negative or positive."""
    sentences, labels, parts = [], [], []
    for part in ("train", "dev", "test"):
        path = folder / f"sentiment-{part}"
        for number, row in read_columns(path, 2, "utf-8"):
            sentences.append(row[0])
            labels.append(int(read_number(row[1], (0, 1), path, number)))
            parts.append(part)
    return Classification(sentences, np.array(labels), np.array(parts))


def read_msrp(folder: Path) -> PairClassification:
    """Pairs of sentences from the news, 1 for paraphrases."""
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


# The folder below SentEval's and the reader of each task.
SENTEVAL: dict[str, tuple[str, Callable[[Path], TransferTask]]] = {
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
    """Sentences of the held-out pages of the language reference; the class is the page."""
    sentences, labels, classes = [], [], 0
    for text in embedded_topics(held_out=True).values():
        topic = list(sentences_of(text.splitlines()))
        if len(topic) >= MIN_TOPIC_SENTENCES:
            sentences += topic
            labels += [classes] * len(topic)
            classes += 1
    return Classification(sentences, np.array(labels))


def embedded_neighbours() -> Choice:
    """Sentences of the held-out pages, each with the next one of its page and a random one of another."""
    rng = np.random.default_rng(0)
    pages = [list(sentences_of(text.splitlines())) for text in embedded_topics(held_out=True).values()]
    triples = []
    for page in pages:
        others = [sentence for other in pages if other is not page for sentence in other]
        triples += [(first, second, others[rng.integers(len(others))]) for first, second in pairwise(page)]
    return Choice(triples)


EMBEDDED: dict[str, Callable[[], TransferTask]] = {"topic": embedded_topic, "neighbours": embedded_neighbours}
TASKS = (*SENTEVAL, *EMBEDDED)


def load_task(name: str, data_root: Path) -> TransferTask | None:
    """The task of that name, or None if its folder is missing; raises InputError if a file is damaged."""
    if name in EMBEDDED:
        return EMBEDDED[name]()
    folder = data_root / SENTEVAL_FOLDER
    return read_task(name, folder) if (folder / SENTEVAL[name][0]).is_dir() else None


def read_task(name: str, folder: Path) -> TransferTask:
    """A task of SentEval's data in ``folder``; raises InputError if a file is damaged."""
    subfolder, read = SENTEVAL[name]
    task = read(folder / subfolder)
    check_size(task, folder / subfolder)
    return task


def check_size(task: TransferTask, folder: Path) -> None:
    """Raise InputError if a task has too few samples to train on, to choose penalties on, or to test on."""
    if isinstance(task, Similarity):
        if len(set(task.scores)) < 2:
            raise InputError(f"{folder} has fewer than 2 different scores: is one of its files truncated?")
        return
    if isinstance(task, Choice):
        return
    parts = np.full(len(task.labels), "train") if task.parts is None else task.parts
    classes, counts = np.unique(task.labels[parts == "train"], return_counts=True)
    fewest = min(counts, default=0)
    if len(classes) < 2 or fewest < MIN_CLASS_SAMPLES:
        raise InputError(
            f"{folder} has {len(classes)} classes for training, with {fewest} samples or more; "
            f"2 with {MIN_CLASS_SAMPLES} are needed: is one of its files truncated?"
        )
    if task.parts is not None and "test" not in parts:
        raise InputError(f"{folder} has no samples for testing: is one of its files truncated?")


def check_names(names: Sequence[str]) -> None:
    """Raise InputError unless every name is a task's."""
    for name in names:
        if name not in TASKS:
            raise unknown_name("tasks", name, TASKS)


def fetch_senteval(data_root: Path) -> None:
    """Download SentEval's data unless their folder exists; raises InputError if they are incomplete."""

    def check(folder: Path) -> None:
        for name in SENTEVAL:
            read_task(name, folder)

    if not (data_root / SENTEVAL_FOLDER).exists():
        fetch_archive(SENTEVAL_URL, data_root / SENTEVAL_FOLDER, check=check)


def read_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers; raises InputError if it cannot be read."""
    try:
        check_regular(path)
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_columns(path: Path, count: int, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """A file's tab-separated lines, numbered; raises InputError if one has fewer than ``count`` columns."""
    for number, line in read_lines(path, encoding):
        row = line.rstrip("\r").split("\t")
        if len(row) < count:
            raise InputError(f"{path}: line {number} has {len(row)} columns; it must have {count}")
        yield number, row


def read_number(text: str, allowed: tuple[int, ...] | None, path: Path, line: int) -> float:
    """The number, one of ``allowed`` or any finite one; raises InputError, naming file and line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (allowed and number not in allowed):
        expected = " or ".join(map(str, allowed)) if allowed else "a finite number"
        raise InputError(f"{path}: line {line} has {text[:40]!r}; it must be {expected}")
    return number
