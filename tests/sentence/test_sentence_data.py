"""Corpora, their cache, and batches."""

import gzip
import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sentence.data
from core.io.errors import InputError
from sentence import corpora
from sentence.corpora import Corpus, Faults, built_in_topics, find_corpus
from sentence.data import ConsecutiveBatches, encode_corpus
from sentence.text import sentences_of
from tests.sentence.conftest import write_books


def sentences_in(corpus):
    return [list(sentences_of(lines)) for _, lines in corpus.books(Faults())]


def test_embedded_corpus_is_prose():
    books = sentences_in(find_corpus("pydoc", None))
    everything = [sentence for book in books for sentence in book]
    assert len(everything) > 2000
    assert len(set(everything)) > 0.95 * len(everything)
    assert not set(built_in_topics()) & set(built_in_topics(held_out=True))


def test_folder_of_plain_or_compressed_books_is_read(books, tmp_path):
    corpus = find_corpus(f"folder:{books}", tmp_path)
    plain = sentences_in(corpus)
    assert [len(book) for book in plain] == [60, 45, 30]
    for path in corpus.files[1:]:
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert sentences_in(find_corpus(f"folder:{books}", tmp_path)) == plain
    books.rename(tmp_path / "wikitext-103")
    assert sentences_in(find_corpus("wikitext-103", tmp_path)) == plain


def encoded(folder, vocab_size=1000, **options):
    return encode_corpus(find_corpus(f"folder:{folder}", folder), vocab_size, **options)


def test_encoded_corpus_has_every_sentence_in_order(books):
    corpus = encoded(books)
    expected = [sentence for book in sentences_in(find_corpus(f"folder:{books}", books)) for sentence in book]
    assert len(corpus) == len(expected) == 135
    assert corpus.books.tolist() == [0, 60, 105, 135]
    assert isinstance(corpus.tokens, np.memmap)
    for position, text in enumerate(expected):
        ids, lengths = corpus.take(np.array([position]), max_tokens=100)
        assert ids.tolist() == corpus.tokenizer.encode(text).ids
        assert lengths.tolist() == [len(ids)]
        assert corpus.tokenizer.decode(ids.tolist()).split() == text.lower().replace(".", " .").split()
    ids, lengths = corpus.take(np.array([3, 7, 5]), max_tokens=4)
    assert lengths.tolist() == [4, 4, 4]
    assert ids[4:8].tolist() == corpus.tokenizer.encode(expected[7]).ids[:4]


def test_tokens_outside_the_vocabulary_are_counted(books):
    corpus = encoded(books, vocab_size=10)
    assert corpus.tokenizer.get_vocab_size() == 12  # with padding and unknown
    unknown = corpus.tokenizer.token_to_id("[UNK]")
    assert corpus.unknown == int((corpus.tokens == unknown).sum()) > 0
    assert encoded(books).unknown == 0


def test_corpus_is_encoded_once_and_again_when_text_or_settings_change(books, monkeypatch):
    built = []
    build = sentence.data._encode_into
    monkeypatch.setattr(sentence.data, "_encode_into", lambda *a: built.append(a) or build(*a))
    first, again = encoded(books), encoded(books)
    assert len(built) == 1
    np.testing.assert_array_equal(first.tokens, again.tokens)
    encoded(books, vocab_size=20)
    assert len(built) == 2
    with open(books / "book1.txt", "a") as file:
        file.write("A last morning came to the old house.\n")
    assert len(encoded(books)) == 136
    assert len(built) == 3


def test_interrupted_encoding_leaves_nothing(books, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sentence.data, "train_tokenizer", fails)
    with pytest.raises(KeyboardInterrupt):
        encoded(books)
    assert not list((corpora.user_cache() / "sentences").glob(".building-*"))


def test_cache_that_cannot_be_written_is_an_error(books, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"sentences cannot be written: .*; set \$XDG_CACHE_HOME to another"):
        encoded(books)


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sentence.data, "CHUNK_SENTENCES", 50)
    monkeypatch.setattr("sentence.text.SAMPLED_LINES", 20)
    peaks = []
    encoded(write_books(tmp_path / "warm-up", (100,)))
    for size in (1000, 8000):
        folder = write_books(tmp_path / str(size), (size,))
        tracemalloc.start()
        encoded(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def error_message(folder, **options):
    with pytest.raises(InputError) as error:
        encoded(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_undecodable_bytes_are_a_warning_or_an_error_if_strict(books, capsys):
    path = books / "book0.txt"
    intact = path.read_bytes()
    position = intact.index(b"\n") + 4
    path.write_bytes(intact[:position] + b"\xff\xfe" + intact[position:])
    corpus = encoded(books)
    assert len(corpus) >= 134
    assert f"warning: {path}: byte {position} is not UTF-8 and is replaced" in capsys.readouterr().err
    with open(path, "a") as file:
        file.write("\n")
    assert f"byte {position} is not UTF-8" in error_message(books, strict=True)


def test_lines_that_end_with_carriage_returns_are_named(tmp_path, capsys):
    """They are one line, that of a whole book; those of Windows end with a line feed too."""
    (tmp_path / "windows.txt").write_bytes(b"She came in.\r\nHe left again.\r\n")
    (tmp_path / "dos.txt").write_text("She came in.\r\nHe left again.\r\n", "utf-16", newline="")
    assert len(encoded(tmp_path)) == 4
    assert "carriage return" not in capsys.readouterr().err
    (tmp_path / "old.txt").write_bytes(b"She came in.\rHe left again.\r")
    (tmp_path / "wide.txt").write_text("She came in.\rHe left again.\r", "utf-16", newline="")
    encoded(tmp_path)
    said = capsys.readouterr().err
    assert f"warning: {tmp_path / 'old.txt'}: byte 12 is a carriage return inside a line; lines end" in said
    assert f"warning: {tmp_path / 'wide.txt'}: line 1 has a carriage return inside a line; lines end" in said


def test_unusable_files_are_warnings_or_errors(books, tmp_path, capsys):
    (books / "empty.txt").write_text("")
    encoded(books)
    assert "empty.txt has 0 sentences; at least 2 are needed" in capsys.readouterr().err
    (books / "one.txt").write_text("A book of one sentence only.\n")
    encoded(books)
    assert "one.txt has 1 sentences" in capsys.readouterr().err
    assert "empty.txt has 0 sentences" in error_message(books, strict=True)
    (books / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert "picture.txt is binary: byte 8 is 0" in error_message(books)
    (books / "picture.txt").unlink()
    (books / "cut.txt.gz").write_bytes(gzip.compress(b"Some text of a book.\n" * 100)[:-20])
    assert "cut.txt.gz cannot be read" in error_message(books)
    (tmp_path / "hollow").mkdir()
    assert "contains no .txt or .txt.gz files" in error_message(tmp_path / "hollow")
    (tmp_path / "hollow" / "a.txt").write_text("Only one sentence here.\n")
    assert "has no book with 2 sentences" in error_message(tmp_path / "hollow")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bookcorpu", "which is unknown; did you mean bookcorpus?"),
        ("folder:nowhere", "nowhere is not a folder"),
        ("books", "put one .txt or .txt.gz a book there"),
        ("bookcorpus", "set `download` to fetch it from https://huggingface.co/datasets/rojagtap/bookcorpus"),
    ],
)
def test_unknown_or_missing_corpus_is_an_error(tmp_path, name, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        find_corpus(name, tmp_path)


def test_hub_corpus_is_downloaded_once(tmp_path, monkeypatch, capsys):
    import datasets

    requested = []

    def load_dataset(path, configuration, split, streaming):
        requested.append((path, configuration, split, streaming))
        return [
            {"text": "The first line came early."},
            {"text": ""},
            {"text": "The second line came late.\n"},
        ]

    def load_dataset_builder(path, configuration):
        return SimpleNamespace(info=SimpleNamespace(download_size=191_984_949, splits=None))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    for _ in range(2):
        corpus = find_corpus("wikitext-103", tmp_path, download=True)
        assert sentences_in(corpus) == [["The first line came early.", "The second line came late."]]
    assert requested == [("Salesforce/wikitext", "wikitext-103-raw-v1", "train", True)]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("downloading https://huggingface.co/datasets/Salesforce/wikitext to ")
    assert line.endswith("corpora/wikitext-103.txt (192.0 MB)")

    def fails(*arguments, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(
        InputError,
        match=r"could not download https://huggingface.co/datasets/rojagtap/bookcorpus: no route; connect",
    ):
        find_corpus("bookcorpus", tmp_path, download=True)
    assert [path.name for path in (corpora.user_cache() / "corpora").iterdir()] == ["wikitext-103.txt"]


def make_batches(books, size=20, seed=0, part=slice(None), max_steps=None):
    corpus = encoded(books)
    return corpus, ConsecutiveBatches(corpus, size, 30, seed, part, torch.device("cpu"), max_steps)


def test_batches_are_consecutive_sentences_of_one_book_or_the_rests_of_several(tmp_path):
    """A sentence that is a book of its own is in no batch: across the end of a book none is consecutive."""
    corpus, batches = make_batches(write_books(tmp_path / "books", (60, 1, 45, 1, 30)))
    assert np.diff(corpus.books).tolist() == [60, 1, 45, 1, 30]
    for epoch in range(1, 20):
        all_positions = batches.positions(epoch)
        assert len(all_positions) == batches.steps == 135 // 20
        assert [len(positions) for positions in all_positions] == [20] * 6
        assert len(np.unique(np.concatenate(all_positions))) == 120
        consecutive = [positions for positions in all_positions if (np.diff(positions) == 1).all()]
        # 60, 45 and 30 sentences: at least 2 + 1 + 0 batches of one book, wherever the first begins.
        assert len(consecutive) >= 3
        for positions in consecutive:
            assert len(set(np.searchsorted(corpus.books, positions, side="right"))) == 1
    mixed = [
        positions
        for epoch in range(1, 20)
        for positions in batches.positions(epoch)
        if (np.diff(positions) != 1).any()
    ]
    assert any(len(set(np.searchsorted(corpus.books, positions, side="right"))) > 1 for positions in mixed)


def test_all_neighbours_share_a_batch_in_some_epoch(books):
    _, batches = make_batches(books)
    pairs = set()
    for epoch in range(1, 60):
        for positions in batches.positions(epoch):
            pairs |= {(int(a), int(b)) for a, b in itertools.pairwise(positions) if b == a + 1}
    assert pairs >= {
        (a, a + 1) for first, end in ((0, 60), (60, 105), (105, 135)) for a in range(first, end - 1)
    }


def test_batches_depend_on_seed_and_epoch_alone(books):
    _, batches = make_batches(books)
    _, others = make_batches(books, seed=1)
    first = np.concatenate(batches.positions(1)).tolist()
    assert np.concatenate(batches.positions(2)).tolist() != first
    assert np.concatenate(batches.positions(1)).tolist() == first
    assert np.concatenate(others.positions(1)).tolist() != first


def test_short_epoch_has_the_first_batches_of_a_whole_one(books):
    _, whole = make_batches(books)
    for max_steps, steps in ((2, 2), (6, 6), (7, 6)):
        _, short = make_batches(books, max_steps=max_steps)
        assert short.steps == steps
        for epoch in (1, 2):
            assert np.array_equal(short.positions(epoch), whole.positions(epoch)[:steps])


def test_process_gets_the_tokens_of_its_part_and_all_positions(books):
    corpus, batches = make_batches(books, part=slice(5, 10))
    batch = next(batches.epoch(1))
    assert len(batch.lengths) == 5
    assert len(batch.positions) == len(batch.book) == 20
    ids, lengths = corpus.take(batch.positions[5:10].numpy(), 30)
    assert torch.equal(batch.ids, ids)
    assert torch.equal(batch.lengths, lengths)
    for position, book in zip(batch.positions.tolist(), batch.book.tolist(), strict=True):
        assert corpus.books[book - 1] <= position < corpus.books[book]


def test_batch_larger_than_the_corpus_is_an_error(books):
    with pytest.raises(
        InputError, match="`batch_size` is 500; it must be at most 135, the sentences of the corpus"
    ):
        make_batches(books, size=500)


@pytest.mark.data("books")
def test_shared_books_are_split_into_sentences(data_root):
    corpus = find_corpus("books", data_root)
    assert len(corpus.files) == 97
    wrapped = Corpus("two", tuple(path for path in corpus.files if "Forster_Howards" in path.name))
    [sentences] = sentences_in(wrapped)
    assert len(sentences) > 5000
    lengths = sorted(len(sentence) for sentence in sentences)
    assert lengths[-1] < 2000  # no sentences were joined
