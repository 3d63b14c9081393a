"""Text that a run cannot be resumed on."""

import random
import shutil

from sentence.corpora import find_corpus
from sentence.data import encode_corpus
from sentence.task import fingerprint
from sentence.train import main as train_main
from tests.runs import failure_of, forget_data, interrupted_before_step, result_of

FAST = ["--epochs", "2", "--batch-size", "20", "--device", "cpu", "--precision", "float32", "--tasks", "none"]
FAST += ["--encoder", "bow", "--embedding-dim", "8"]


def flags_for(books, folder):
    return [*FAST, "--dataset", f"folder:{books}", "--output-dir", str(folder)]


def interrupted(books, folder):
    """A run that was interrupted in its first epoch."""
    with interrupted_before_step(3):
        train_main([*flags_for(books, folder), "--checkpoint-seconds", "0"])
    return folder


def shuffle_sentences(books):
    """Put the sentences of each book into another order; one paragraph each."""
    for path in books.glob("*.txt"):
        sentences = path.read_text().replace("\n", " ").strip().split(". ")
        random.Random(1).shuffle(sentences)
        path.write_text("".join(f"{sentence.rstrip('.')}.\n" for sentence in sentences))


def test_run_does_not_resume_on_another_order(books, tmp_path, capsys):
    """Counts and vocabulary are the same."""
    folder = interrupted(books, tmp_path / "run")
    shuffle_sentences(books)
    message = failure_of(train_main, capsys, [*flags_for(books, folder), "--resume"])[-1]
    assert f"the data are not those that the run in {folder} began with (text " in message


def test_checkpoint_that_does_not_know_its_text_resumes(books, tmp_path):
    """Earlier versions wrote such ones."""
    folder = interrupted(books, tmp_path / "run")
    forget_data(folder, "text")
    train_main([*flags_for(books, folder), "--resume"])
    assert result_of(folder)["epochs"] == 2


def test_fingerprint_is_that_of_the_text(books, tmp_path):
    """Not of the place: a copy elsewhere has the same, one in another order differs in the text alone."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(books, copy)

    def found(folder):
        return fingerprint(encode_corpus(find_corpus(f"folder:{folder}", tmp_path), 100))

    first = found(books)
    assert found(copy) == first
    shuffle_sentences(copy)
    changed = found(copy)
    assert {name for name in first if first[name] != changed[name]} == {"text"}
