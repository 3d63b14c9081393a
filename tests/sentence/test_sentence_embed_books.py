"""Vectors of the sentences of books, and of lines that are wrapped prose."""

import gzip
import shutil
import textwrap

import numpy as np
import pytest

import sentence
from sentence.corpora import Faults, find_corpus
from sentence.text import sentences_of
from tests.runs import failure_of
from tests.sentence.conftest import write_books
from tests.sentence.test_sentence_embed import FLAGS, embed, embed_main, train_main

PROSE = (
    "The cold river held a stone. The old house kept a letter, and the garden saw the morning road. "
    "A stone left the window."
)


@pytest.fixture
def library(tmp_path):
    """Two books of one name in two folders, and a file and a hidden file that are none."""
    library = write_books(tmp_path / "library", sizes=(5, 4))
    (library / "more").mkdir()
    shutil.copy(library / "book0.txt", library / "more" / "book0.txt")
    (library / "more" / "book0.txt").write_text("CHAPTER ONE\n\nThe river held a stone.\n")
    (library / "notes.doc").write_text("x")
    (library / ".hidden.txt").write_text("x")
    return library


def arrays(path):
    with np.load(path) as loaded:
        return loaded["id"].tolist(), loaded["embedding"]


def test_folder_has_a_row_for_each_sentence_of_its_books(model, library, tmp_path, capsys):
    output = tmp_path / "x.npz"
    embed(model, f"folder:{library}", "--output", output)
    ids, vectors = arrays(output)
    assert ids == [f"book0.txt:{i}" for i in range(5)] + [f"book1.txt:{i}" for i in range(4)] + [
        "more/book0.txt:0"
    ]
    corpus = find_corpus(f"folder:{library}", tmp_path)
    texts = [text for _, lines in corpus.books(Faults()) for text in sentences_of(lines)]
    np.testing.assert_allclose(vectors, sentence.load_encoder(model, "cpu").encode(texts), rtol=1e-6)
    printed = capsys.readouterr()
    assert printed.out == f"{output}: 10 embeddings, one for each sentence\n"
    assert printed.err.splitlines() == [
        "left out of the folder: 1 files that are not .txt or .txt.gz and 1 hidden files and folders",
        "left out of the text: 1 pieces that are not sentences (one word; or capitals, numbers and signs "
        "alone)",
    ]


def test_books_are_read_as_in_training(model, tmp_path):
    """Compressed, with a byte-order mark, with a byte that is not UTF-8."""
    novels = tmp_path / "novels"
    novels.mkdir()
    (novels / "a.txt").write_bytes(b"\xef\xbb\xbfThe cold river \xff held. The stone left.\n")
    (novels / "b.txt.gz").write_bytes(gzip.compress(b"The old house kept.\n"))
    embed(model, f"folder:{novels}", "--output", tmp_path / "x.npz")
    ids, vectors = arrays(tmp_path / "x.npz")
    assert ids == ["a.txt:0", "a.txt:1", "b.txt.gz:0"]
    texts = ["The cold river \ufffd held.", "The stone left.", "The old house kept."]
    np.testing.assert_allclose(vectors, sentence.load_encoder(model, "cpu").encode(texts), rtol=1e-6)


def test_folder_of_lines_has_a_row_for_each_line_that_is_not_blank(model, library, tmp_path):
    embed(model, f"lines:{library / 'more'}", "--output", tmp_path / "x.npz")
    assert arrays(tmp_path / "x.npz")[0] == ["book0.txt:0", "book0.txt:2"]


def test_file_of_lines_is_the_file(model, library, tmp_path):
    file = library / "book0.txt"
    embed(model, f"lines:{file}", "--output", tmp_path / "lines.npz")
    embed(model, file, "--output", tmp_path / "file.npz")
    (ids, vectors), (file_ids, file_vectors) = (arrays(tmp_path / f"{x}.npz") for x in ("lines", "file"))
    assert ids == file_ids == list(range(len(ids)))
    np.testing.assert_array_equal(vectors, file_vectors)


@pytest.mark.parametrize("prefix", ["", "lines:"])
def test_wrapped_lines_are_warned_of(model, tmp_path, capsys, prefix):
    path = tmp_path / "wrapped.txt"
    path.write_text("\n".join(textwrap.wrap(PROSE * 5, 30)))
    embed(model, f"{prefix}{path}", "--output", tmp_path / "x.npz")
    [line] = capsys.readouterr().err.splitlines()
    assert "wrapped.txt seems to be wrapped: most lines do not end a sentence" in line
    assert "folder:PATH" in line


@pytest.mark.parametrize(
    "text",
    ["A stone.\n" * 20, "the cold river\n" * 3, "river\na cold river stone and a letter\nthe road\n" * 9],
)
def test_sentences_names_and_few_lines_are_not_warned_of(model, tmp_path, capsys, text):
    (tmp_path / "a.txt").write_text(text)
    embed(model, tmp_path / "a.txt", "--output", tmp_path / "x.npz")
    assert not capsys.readouterr().err


def test_training_on_wrapped_lines_is_warned_of(tmp_path, capsys):
    path = tmp_path / "wrapped.txt"
    path.write_text("\n".join(textwrap.wrap(PROSE * 20, 30)))
    for dataset, warned in ((f"lines:{path}", True), (f"folder:{tmp_path}", False)):
        where = ["--dataset", dataset, "--output-dir", str(tmp_path / str(warned))]
        train_main([*FLAGS, *where, "--tasks", "none"])
        assert ("wrapped.txt seems to be wrapped" in capsys.readouterr().err) == warned


def test_missing_or_empty_folders_are_one_line(model, tmp_path, capsys):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("ONE\n")
    for source, message in (
        (f"folder:{tmp_path / 'nowhere'}", "nowhere is not a folder; folder:PATH needs one with a .txt"),
        (f"folder:{model}", "model contains no .txt or .txt.gz files"),
        (f"folder:{tmp_path / 'books'}", "books has no sentence; at least one is needed"),
        (f"lines:{tmp_path / 'nowhere'}", "nowhere is not a file or a folder; lines:PATH needs a text file"),
    ):
        [line] = failure_of(
            embed_main, capsys, [str(model), source, "--output", str(tmp_path / "x.npz"), "--device", "cpu"]
        )
        assert message in line
        assert not (tmp_path / "x.npz").exists()
