"""The tasks that sentence embeddings are scored on: SentEval's, and two for the embedded corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.files import fetch_archive
from sentence.corpora import embedded_topics
from sentence.text import sentences_of

SENTEVAL_FOLDER = Path("SentEval") / "downstream"
# All of SentEval's sentence tasks in its own layout, as the SimCSE authors publish them.
SENTEVAL_URL = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
LEAST_TOPIC_SENTENCES = 30  # of a class of the embedded topic task


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
        parts = [read_lines(folder / name, "latin-1") for name in (negative, positive)]
        labels = np.repeat([0, 1], [len(part) for part in parts])
        return Classification(parts[0] + parts[1], labels)

    return read


def read_trec(folder: Path) -> Classification:
    """Questions of six kinds, before the colon of their label."""
    sentences, kinds, parts = [], [], []
    for name, part in (("train_5500.label", "train"), ("TREC_10.label", "test")):
        for number, line in enumerate(read_lines(folder / name, "latin-1"), start=1):
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
    rows, parts = [], []
    for part in ("train", "dev", "test"):
        of_part = read_columns(folder / f"sentiment-{part}", 2, "utf-8")
        rows += of_part
        parts += [part] * len(of_part)
    return Classification([row[0] for row in rows], np.array([int(row[1]) for row in rows]), np.array(parts))


def read_msrp(folder: Path) -> PairClassification:
    """Pairs of sentences from the news, paraphrases or not."""
    pairs, labels, parts = [], [], []
    for part in ("train", "test"):
        for row in read_columns(folder / f"msr_paraphrase_{part}.txt", 5, "utf-8-sig")[1:]:
            pairs.append((row[3], row[4]))
            labels.append(int(row[0]))
            parts.append(part)
    return PairClassification(pairs, np.array(labels), np.array(parts))


def read_stsb(folder: Path) -> Similarity:
    """The test part of the STS benchmark."""
    rows = read_columns(folder / "sts-test.csv", 7, "utf-8")
    return Similarity([(row[5], row[6]) for row in rows], np.array([float(row[4]) for row in rows]))


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
        if len(of_topic) >= LEAST_TOPIC_SENTENCES:
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
    where, read = SENTEVAL[name]
    folder = data_root / SENTEVAL_FOLDER / where
    if not folder.is_dir():
        return None
    try:
        return read(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be read: {error}") from error


def check_names(names: Sequence[str]) -> None:
    """Raise InputError where a name is no task's."""
    for name in names:
        if name not in TASKS:
            raise InputError(f"--tasks {name} is unknown; known: {', '.join(TASKS)}")


def fetch_senteval(data_root: Path) -> None:
    """Fetch SentEval's data, unless they are there."""
    if not (data_root / SENTEVAL_FOLDER).exists():
        fetch_archive(SENTEVAL_URL, data_root / SENTEVAL_FOLDER)


def read_lines(path: Path, encoding: str) -> list[str]:
    """The lines of a file that hold anything."""
    return [line for line in path.read_text(encoding).split("\n") if line.strip()]


def read_columns(path: Path, count: int, encoding: str) -> list[list[str]]:
    """A file's tab-separated lines; raises InputError where one has fewer than ``count`` columns."""
    rows = [line.rstrip("\r").split("\t") for line in read_lines(path, encoding)]
    for number, row in enumerate(rows, start=1):
        if len(row) < count:
            raise InputError(f"{path}: line {number} has {len(row)} columns; {count} are needed")
    return rows
