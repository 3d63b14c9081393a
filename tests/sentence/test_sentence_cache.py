"""The cache of encoded corpora: damaged files, and text outside ASCII."""

import locale
import os

import numpy as np
import pytest

from core.io.files import user_cache
from sentence.corpora import Faults, find_corpus
from sentence.data import encode_corpus
from sentence.text import sentences_of
from sentence.train import main as train_main
from tests.runs import result_of
from tests.sentence.conftest import write_books

FILES = ("manifest.json", "starts.bin", "tokenizer.json", "tokens.bin")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how != "missing":
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:half], "flipped": flipped}[how])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "flipped", "pipe"])
def test_damaged_cache_is_rebuilt(tmp_path, capsys, name, how):
    books = write_books(tmp_path / "books", (20,))
    corpus = find_corpus(f"folder:{books}", tmp_path)
    first = encode_corpus(corpus, 100)
    [folder] = (path for path in (user_cache() / "sentences").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)
    damage(folder / name, how)
    assert capsys.readouterr().err == ""
    again = encode_corpus(corpus, 100)
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {folder} is damaged and will be rebuilt: ")
    assert warning.count("\n") == 1
    for array in ("tokens", "starts", "books"):
        np.testing.assert_array_equal(getattr(again, array), getattr(first, array))
    assert again.tokenizer.to_str() == first.tokenizer.to_str()
    encode_corpus(corpus, 100)
    assert capsys.readouterr().err == ""


def test_faults_of_a_corpus_are_named_each_time_and_recorded(tmp_path, capsys):
    books = write_books(tmp_path / "books", (110,))
    (books / "bad.txt").write_bytes(b"One came.\nTwo \xff left.\n" + b"\xff came too.\n" * 4)
    named = [
        f"warning: {books / 'bad.txt'}: byte {byte} is not UTF-8 and is replaced" for byte in (14, 22, 34)
    ]
    for seed in "01":
        folder = tmp_path / seed
        flags = ["--dataset", f"folder:{books}", "--output-dir", str(folder), "--seed", seed]
        train_main([*flags, "--encoder", "bow", "--epochs", "1", "--batch-size", "50", "--tasks", "none"])
        said = capsys.readouterr().err.splitlines()
        assert [line for line in said if line.startswith("warning")] == [
            *named,
            "warning: 2 more like these",
        ]
        assert result_of(folder)["faults"] == {
            "count": 5,
            "reported": [line.removeprefix("warning: ") for line in named],
        }


def test_encoding_does_not_depend_on_the_locale(tmp_path):
    """In the C locale, ASCII is Python's default."""
    (tmp_path / "book.txt").write_text("Une rivière était froide.\nLe café était vide.\n" * 5, "utf-8")
    corpus = find_corpus(f"folder:{tmp_path}", tmp_path)
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        encoded = encode_corpus(corpus, 100)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    [(_, lines)] = corpus.books(Faults())
    assert encoded.unknown == 0
    assert len(encoded) == len(list(sentences_of(lines))) == 10
    assert encoded.tokenizer.token_to_id("rivière") is not None
