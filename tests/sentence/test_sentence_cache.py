"""The cache of encoded corpora: damaged files, killed processes, and concurrent processes."""

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


def write_one(folder):
    (folder / "one.bin").write_bytes(b"one")
    return {"count": 1}


def test_folders_of_killed_processes_are_removed_and_locked_ones_are_not(tmp_path):
    abandoned, busy = (tmp_path / f".building-{name}" for name in ("abandoned", "busy"))
    for folder in (abandoned, busy, tmp_path / ".building-own"):
        folder.mkdir()
        (folder / "half.bin").write_bytes(b"half")
    with locked(tmp_path / "busy"):
        assert build_once(tmp_path / "own", write_one)["count"] == 1
    assert [path.name for path in tmp_path.glob(".building-*")] == [busy.name]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["manifest.json", "one.bin"]


def test_one_thread_builds_and_the_others_wait(tmp_path):
    built, results, began, may_end = [], [], threading.Event(), threading.Event()

    def build(folder):
        built.append(folder)
        began.set()
        assert may_end.wait(10)
        return write_one(folder)

    threads = [
        threading.Thread(target=lambda: results.append(build_once(tmp_path / "a", build))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    with pytest.raises(BlockingIOError), locked(tmp_path / "a", fcntl.LOCK_NB):
        pass
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert len(built) == 1
    assert [values["count"] for values in results] == [1, 1, 1]


def test_interrupted_build_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "a"
    build_once(folder, write_one)
    (folder / "one.bin").write_bytes(b"two")

    def fails(scratch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(folder, fails)
    assert (folder / "one.bin").read_bytes() == b"two"
    assert not list(tmp_path.glob(".building-*"))


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
