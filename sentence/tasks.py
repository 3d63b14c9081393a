"""The tasks that evaluate sentence embeddings: SentEval's, and two for the embedded corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from core.io.downloads import fetch_archive
from core.io.errors import InputError, unknown_name
from sentence.config import NO_TASKS, SENTEVAL_TASKS
from sentence.corpora import embedded_topics
from sentence.senteval import (
    STS_SETS,
    Classification,
    PairClassification,
    Relatedness,
    Similarity,
    read_msrp,
    read_polarity,
    read_sick_entailment,
    read_sick_relatedness,
    read_sst2,
    read_sst5,
    read_sts,
    read_stsb,
    read_trec,
)
from sentence.text import sentences_of

SENTEVAL_FOLDER = Path("SentEval") / "downstream"
# All of SentEval's sentence tasks in its own layout, as the SimCSE authors publish them.
SENTEVAL_URL = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
ALL = "all"  # stands for every task of SentEval
MIN_CLASS_SAMPLES = 10  # for training; penalties are chosen by 10-fold cross-validation
MIN_TOPIC_SENTENCES = 30  # of a class of the embedded topic task


@dataclass(frozen=True)
class Choice:
    """Triples of an anchor, a positive and a negative; the positive should be the nearer."""

    triples: list[tuple[str, str, str]]


TransferTask = Classification | PairClassification | Similarity | Relatedness | Choice

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
    "sst5": ("SST/fine", read_sst5),
    "sickr": ("SICK", read_sick_relatedness),
    "sicke": ("SICK", read_sick_entailment),
    **{f"sts{year}": (f"STS/STS{year}-en-test", read_sts(year)) for year in STS_SETS},
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
    if isinstance(task, Similarity | Relatedness):
        groups = task.parts if isinstance(task, Relatedness) else task.sets
        for name in np.unique(groups):
            if len(np.unique(task.scores[groups == name])) < 2:
                raise InputError(
                    f"{folder} ({name}) has fewer than 2 different scores: is one of its files truncated?"
                )
    elif not isinstance(task, Choice):
        training = task.labels if task.parts is None else task.labels[task.parts == "train"]
        classes, counts = np.unique(training, return_counts=True)
        fewest = min(counts, default=0)
        if len(classes) < 2 or fewest < MIN_CLASS_SAMPLES:
            raise InputError(
                f"{folder} has {len(classes)} classes for training, with {fewest} samples or more; "
                f"2 with {MIN_CLASS_SAMPLES} are needed: is one of its files truncated?"
            )


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, with every task of SentEval for "all"; raises InputError if one is unknown.

    The only name "none" stands for no task.
    """
    if tuple(names) == (NO_TASKS,):
        return ()
    for name in names:
        if name not in (*TASKS, ALL):
            raise unknown_name("tasks", name, (*TASKS, ALL, NO_TASKS))
    return tuple(dict.fromkeys(task for name in names for task in (SENTEVAL if name == ALL else (name,))))


def fetch_senteval(data_root: Path) -> None:
    """Download SentEval's data unless their folder exists; raises InputError if they are incomplete.

    The tasks that are evaluated by default are required, the others may be missing.
    """

    def check(folder: Path) -> None:
        for name, (subfolder, _) in SENTEVAL.items():
            if name in SENTEVAL_TASKS or (folder / subfolder).is_dir():
                read_task(name, folder)

    if not (data_root / SENTEVAL_FOLDER).exists():
        fetch_archive(SENTEVAL_URL, data_root / SENTEVAL_FOLDER, check=check)
