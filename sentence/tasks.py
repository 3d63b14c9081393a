"""The tasks that evaluate sentence embeddings: SentEval's, and two for the built-in corpus."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from core.io.downloads import fetch_archive
from core.io.errors import InputError, unknown_name
from core.training.cli import with_flags
from sentence.config import NO_TASKS, SENTEVAL_TASKS
from sentence.corpora import built_in_topics
from sentence.senteval import SENTEVAL, Classification, Relatedness, SentEvalTask, Similarity
from sentence.text import sentences_of

SENTEVAL_FOLDER = Path("SentEval") / "downstream"
# All of SentEval's sentence tasks in its own layout, as the SimCSE authors publish them.
SENTEVAL_URL = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
ALL = "all"  # stands for every task of SentEval
FOLDS = 10  # of a task without parts; penalties are chosen in as many inside
MIN_TOPIC_SENTENCES = 30  # of a class of the built-in topic task


@dataclass(frozen=True)
class Choice:
    """Triples of an anchor, a positive and a negative; the positive should be the nearer."""

    triples: list[tuple[str, str, str]]


TransferTask = SentEvalTask | Choice


def built_in_topic() -> Classification:
    """Sentences of the held-out pages of the language reference; the class is the page."""
    sentences, labels, classes = [], [], 0
    for text in built_in_topics(held_out=True).values():
        topic = list(sentences_of(text.splitlines()))
        if len(topic) >= MIN_TOPIC_SENTENCES:
            sentences += topic
            labels += [classes] * len(topic)
            classes += 1
    return Classification(sentences, np.array(labels))


def built_in_neighbours() -> Choice:
    """Sentences of the held-out pages, each with the next one of its page and a random one of another."""
    rng = np.random.default_rng(0)
    pages = [list(sentences_of(text.splitlines())) for text in built_in_topics(held_out=True).values()]
    triples = []
    for page in pages:
        others = [sentence for other in pages if other is not page for sentence in other]
        triples += [(first, second, others[rng.integers(len(others))]) for first, second in pairwise(page)]
    return Choice(triples)


BUILT_IN: dict[str, Callable[[], TransferTask]] = {"topic": built_in_topic, "neighbours": built_in_neighbours}
TASKS = (*SENTEVAL, *BUILT_IN)


def load_tasks(
    names: Sequence[str], data_root: Path, download: bool, *, required: bool = True
) -> tuple[dict[str, TransferTask], list[str]]:
    """The tasks whose data are there, and the names of the others, which a warning names.

    Raises InputError if a name is unknown or, where tasks are ``required``, no task has data.
    """
    names = expand(names)
    folder = data_root / SENTEVAL_FOLDER
    was_there = folder.exists()
    if download and not was_there and any(name in SENTEVAL for name in names):
        try:
            fetch_archive(SENTEVAL_URL, folder, check=check_senteval)
        except InputError as error:
            if required:
                raise
            warn(str(error))
    loaded = {name: load_task(name, data_root) for name in names}
    tasks = {name: task for name, task in loaded.items() if task is not None}
    missing = [name for name in names if name not in tasks]
    if missing:
        folders = ", ".join(dict.fromkeys(SENTEVAL[name][0] for name in missing))
        where = f"no data for {', '.join(missing)} under {folder} (in {folders})"
        advice = "add them there" if was_there or download else "set `download` to fetch them"
        if required and not tasks:
            raise InputError(f"{where}; {advice}, or choose among `tasks` {' '.join(TASKS)}")
        instead = "the other tasks are evaluated"
        if not tasks:
            instead = f"the run is scored without labels; {advice}, or set `tasks` to {NO_TASKS}"
        warn(f"{where}; {instead}")
    return tasks, missing


def warn(message: str) -> None:
    """Print a warning on stderr, in the main process alone."""
    from core.distributed import is_main_process  # imports torch, which errors do not need

    if is_main_process():
        print(with_flags(f"warning: {message}"), file=sys.stderr)


def load_task(name: str, data_root: Path) -> TransferTask | None:
    """The task of that name, or None if its folder is missing; raises InputError if a file is damaged."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    folder = data_root / SENTEVAL_FOLDER
    return read_task(name, folder) if (folder / SENTEVAL[name][0]).is_dir() else None


def read_task(name: str, folder: Path) -> SentEvalTask:
    """A task of SentEval's data in ``folder``; raises InputError if a file is damaged."""
    subfolder, read = SENTEVAL[name]
    task = read(folder / subfolder)
    check_size(task, folder / subfolder)
    return task


def check_senteval(folder: Path) -> None:
    """Raise InputError if SentEval's data are incomplete: the tasks of the default must be there."""
    for name, (subfolder, _) in SENTEVAL.items():
        if name in SENTEVAL_TASKS or (folder / subfolder).is_dir():
            read_task(name, folder)


def check_size(task: SentEvalTask, folder: Path) -> None:
    """Raise InputError if a task has too few samples to train on, or to correlate."""
    if isinstance(task, Similarity | Relatedness):
        groups = task.parts if isinstance(task, Relatedness) else task.sets
        for name in np.unique(groups):
            if len(np.unique(task.scores[groups == name])) < 2:
                raise InputError(
                    f"{folder} ({name}) has fewer than 2 different scores: is one of its files truncated?"
                )
        return
    training = task.labels if task.parts is None else task.labels[task.parts == "train"]
    classes, counts = np.unique(training, return_counts=True)
    fewest, needed = min(counts, default=0), FOLDS + 2 if task.parts is None else FOLDS
    if len(classes) < 2 or fewest < needed:
        raise InputError(
            f"{folder} has {len(classes)} classes for training, with {fewest} samples or more; "
            f"2 with {needed} are needed: is one of its files truncated?"
        )


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, with every task of SentEval for "all"; raises InputError if one is unknown.

    The only name "none" stands for no task.
    """
    if tuple(names) == (NO_TASKS,):
        return ()
    for name in names:
        if name not in (*TASKS, ALL):
            raise unknown_name("`tasks`", name, (*TASKS, ALL, NO_TASKS))
    return tuple(dict.fromkeys(task for name in names for task in (SENTEVAL if name == ALL else (name,))))
