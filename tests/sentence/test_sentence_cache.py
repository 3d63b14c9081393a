"""The cache of encoded corpora: damage, processes that are killed, and processes at the same time."""

import fcntl
import locale
import os
import threading

import numpy as np
import pytest

from core.io.files import user_cache
from sentence.cache import build_once, locked
from sentence.corpora import Faults, find_corpus
from sentence.data import encode_corpus
from sentence.text import sentences_of
from tests.sentence.conftest import write_books

FILES = ("facts.json", "starts.bin", "tokenizer.json", "tokens.bin")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how != "gone":
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:half], "flipped": flipped}[how])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "flipped", "pipe"])
def test_a_damaged_corpus_is_encoded_anew(tmp_path, capsys, name, how):
    books = write_books(tmp_path / "books", (20,))
    corpus = find_corpus(f"folder:{books}", tmp_path)
    first = encode_corpus(corpus, 100)
    [folder] = (path for path in (user_cache() / "sentences").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)
    damage(folder / name, how)
    assert capsys.readouterr().err == ""
    again = encode_corpus(corpus, 100)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {folder} is damaged and made anew: ")
    assert said.count("\n") == 1
    for array in ("tokens", "starts", "books"):
        np.testing.assert_array_equal(getattr(again, array), getattr(first, array))
    assert again.tokenizer.to_str() == first.tokenizer.to_str()
    encode_corpus(corpus, 100)
    assert capsys.readouterr().err == ""


def write_one(folder):
    (folder / "one.bin").write_bytes(b"one")
    return {"count": 1}


def test_what_killed_processes_left_is_removed_and_what_is_being_made_is_not(tmp_path):
    left, busy = (tmp_path / f".making-{name}" for name in ("left", "busy"))
    for folder in (left, busy, tmp_path / ".making-own"):
        folder.mkdir()
        (folder / "half.bin").write_bytes(b"half")
    with locked(tmp_path / "busy"):
        assert build_once(tmp_path / "own", write_one)["count"] == 1
    assert [path.name for path in tmp_path.glob(".making-*")] == [busy.name]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["facts.json", "one.bin"]


def test_one_makes_and_the_others_wait(tmp_path):
    made, found, began, may_end = [], [], threading.Event(), threading.Event()

    def make(folder):
        made.append(folder)
        began.set()
        assert may_end.wait(10)
        return write_one(folder)

    takers = [
        threading.Thread(target=lambda: found.append(build_once(tmp_path / "a", make))) for _ in range(3)
    ]
    for taker in takers:
        taker.start()
    assert began.wait(10)
    with pytest.raises(BlockingIOError), locked(tmp_path / "a", fcntl.LOCK_NB):
        pass
    may_end.set()
    for taker in takers:
        taker.join(10)
    assert len(made) == 1
    assert [facts["count"] for facts in found] == [1, 1, 1]


def test_a_make_that_fails_leaves_what_was_there(tmp_path):
    folder = tmp_path / "a"
    build_once(folder, write_one)
    (folder / "one.bin").write_bytes(b"two")

    def fails(scratch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(folder, fails)
    assert (folder / "one.bin").read_bytes() == b"two"
    assert not list(tmp_path.glob(".making-*"))


def test_the_locale_s_encoding_is_not_asked(tmp_path):
    """In the C locale Python takes ASCII where nothing else is said."""
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
