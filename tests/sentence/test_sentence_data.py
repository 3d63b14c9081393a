"""Corpora, their cache, and batches."""

import gzip
import itertools
import tracemalloc

import numpy as np
import pytest
import torch

import sentence.data
from core.io.errors import InputError
from sentence import corpora
from sentence.corpora import Corpus, Faults, embedded_topics, find_corpus
from sentence.data import Batches, encode_corpus
from sentence.text import sentences_of
from tests.sentence.conftest import write_books


def sentences_in(corpus):
    return [list(sentences_of(lines)) for _, lines in corpus.books(Faults())]


def test_the_embedded_corpus_is_prose():
    books = sentences_in(find_corpus("pydoc", None))
    everything = [sentence for book in books for sentence in book]
    assert len(everything) > 2000
    assert len(set(everything)) > 0.95 * len(everything)
    assert not set(embedded_topics()) & set(embedded_topics(held_out=True))


def test_a_folder_of_books_plain_and_compressed(books, tmp_path):
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


def test_every_sentence_is_there_in_order(books):
    corpus = encoded(books)
    expected = [sentence for book in sentences_in(find_corpus(f"folder:{books}", books)) for sentence in book]
    assert len(corpus) == len(expected) == 135
    assert corpus.books.tolist() == [0, 60, 105, 135]
    assert isinstance(corpus.tokens, np.memmap)
    for place, text in enumerate(expected):
        ids, lengths = corpus.take(np.array([place]), longest=100)
        assert ids.tolist() == corpus.tokenizer.encode(text).ids
        assert lengths.tolist() == [len(ids)]
        assert corpus.tokenizer.decode(ids.tolist()).split() == text.lower().replace(".", " .").split()
    ids, lengths = corpus.take(np.array([3, 7, 5]), longest=4)
    assert lengths.tolist() == [4, 4, 4]
    assert ids[4:8].tolist() == corpus.tokenizer.encode(expected[7]).ids[:4]


def test_words_beyond_the_vocabulary_are_counted(books):
    corpus = encoded(books, vocab_size=10)
    assert corpus.tokenizer.get_vocab_size() == 12  # with padding and unknown
    unknown = corpus.tokenizer.token_to_id("[UNK]")
    assert corpus.unknown == int((corpus.tokens == unknown).sum()) > 0
    assert encoded(books).unknown == 0


def test_encoded_once_and_again_when_text_or_settings_change(books, monkeypatch):
    made = []
    make = sentence.data._encode_into
    monkeypatch.setattr(sentence.data, "_encode_into", lambda *a: made.append(a) or make(*a))
    first, again = encoded(books), encoded(books)
    assert len(made) == 1
    np.testing.assert_array_equal(first.tokens, again.tokens)
    encoded(books, vocab_size=20)
    assert len(made) == 2
    with open(books / "book1.txt", "a") as file:
        file.write("A last morning came to the old house.\n")
    assert len(encoded(books)) == 136
    assert len(made) == 3


def test_a_cut_short_encoding_leaves_nothing(books, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sentence.data, "learn_vocabulary", fails)
    with pytest.raises(KeyboardInterrupt):
        encoded(books)
    assert not list((corpora.user_cache() / "sentences").glob(".making-*"))


def test_a_cache_that_cannot_be_written(books, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"sentences cannot be written: .*; \$XDG_CACHE_HOME names another"):
        encoded(books)


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sentence.data, "ENCODED_AT_ONCE", 50)
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


def said(capsys, folder, **options):
    with pytest.raises(InputError) as error:
        encoded(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_bytes_are_reported_and_counted_or_refused(books, capsys):
    path = books / "book0.txt"
    whole = path.read_bytes()
    position = whole.index(b"\n") + 4
    path.write_bytes(whole[:position] + b"\xff\xfe" + whole[position:])
    corpus = encoded(books)
    assert len(corpus) >= 134
    assert f"warning: {path}: byte {position} is no UTF-8 and is replaced" in capsys.readouterr().err
    with open(path, "a") as file:
        file.write("\n")
    assert f"byte {position} is no UTF-8" in said(capsys, books, strict=True)


def test_bad_files(books, tmp_path, capsys):
    (books / "empty.txt").write_text("")
    encoded(books)
    assert "warning: empty has 0 sentences; it has no neighbours" in capsys.readouterr().err
    (books / "one.txt").write_text("A book of one sentence only.\n")
    encoded(books)
    assert "one has 1 sentences" in capsys.readouterr().err
    assert "empty has 0 sentences" in said(capsys, books, strict=True)
    (books / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert "picture.txt is binary: byte 8 is 0" in said(capsys, books)
    (books / "picture.txt").unlink()
    (books / "cut.txt.gz").write_bytes(gzip.compress(b"Some text of a book.\n" * 100)[:-20])
    assert "cut.txt.gz cannot be read" in said(capsys, books)
    (tmp_path / "hollow").mkdir()
    assert "holds no .txt or .txt.gz files" in said(capsys, tmp_path / "hollow")
    (tmp_path / "hollow" / "a.txt").write_text("Only one sentence here.\n")
    assert "no book of two sentences" in said(capsys, tmp_path / "hollow")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bookcorpu", "did you mean bookcorpus?"),
        ("folder:nowhere", "nowhere is no folder"),
        ("books", "put one .txt or .txt.gz a book there"),
        ("bookcorpus", "add --download to fetch it from https://huggingface.co/datasets/rojagtap/bookcorpus"),
    ],
)
def test_a_corpus_that_is_not_there(tmp_path, name, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        find_corpus(name, tmp_path)


def test_a_hub_corpus_is_fetched_once(tmp_path, monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, configuration, split, streaming):
        asked.append((path, configuration, split, streaming))
        return [
            {"text": "The first line came early."},
            {"text": ""},
            {"text": "The second line came late.\n"},
        ]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for _ in range(2):
        corpus = find_corpus("wikitext-103", tmp_path, download=True)
        assert sentences_in(corpus) == [["The first line came early.", "The second line came late."]]
    assert asked == [("Salesforce/wikitext", "wikitext-103-raw-v1", "train", True)]

    def fails(*arguments, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(
        InputError, match=r"could not download https://huggingface.co/datasets/rojagtap/bookcorpus.*no route"
    ):
        find_corpus("bookcorpus", tmp_path, download=True)
    assert not list((corpora.user_cache() / "corpora").glob("*.partial"))


def batches_of(books, size=20, seed=0, part=slice(None)):
    corpus = encoded(books)
    return corpus, Batches(corpus, size, 30, seed, part, torch.device("cpu"))


def test_batches_are_runs_of_one_book_and_then_what_is_left_of_several(books):
    corpus, batches = batches_of(books)
    for epoch in range(1, 20):
        runs = batches.runs(epoch)
        assert len(runs) == batches.steps == 135 // 20
        assert [len(run) for run in runs] == [20] * 6
        assert len({int(place) for run in runs for place in run}) == 120
        of_one_book = [run for run in runs if (np.diff(run) == 1).all()]
        # 60, 45 and 30 sentences: at least 2 + 1 + 0 whole runs, wherever they begin.
        assert len(of_one_book) >= 3
        for run in of_one_book:
            assert len({int(np.searchsorted(corpus.books, place, side="right")) for place in run}) <= 2
    mixed = [run for epoch in range(1, 20) for run in batches.runs(epoch) if (np.diff(run) != 1).any()]
    assert any(len(set(np.searchsorted(corpus.books, run, side="right"))) > 1 for run in mixed)


def test_over_the_epochs_all_neighbours_meet(books):
    _, batches = batches_of(books)
    met = set()
    for epoch in range(1, 60):
        for run in batches.runs(epoch):
            met |= {(int(a), int(b)) for a, b in itertools.pairwise(run) if b == a + 1}
    assert met >= {
        (a, a + 1) for first, end in ((0, 60), (60, 105), (105, 135)) for a in range(first, end - 1)
    }


def test_batches_depend_on_seed_and_epoch_alone(books):
    _, batches = batches_of(books)
    _, others = batches_of(books, seed=1)
    first = [run.tolist() for run in batches.runs(1)]
    batches.runs(2)
    assert [run.tolist() for run in batches.runs(1)] == first
    assert [run.tolist() for run in batches.runs(2)] != first
    assert [run.tolist() for run in others.runs(1)] != first


def test_a_process_gets_its_part_and_knows_all_places(books):
    corpus, batches = batches_of(books, part=slice(5, 10))
    batch = next(batches.of_epoch(1))
    assert len(batch.lengths) == 5
    assert len(batch.places) == len(batch.book) == 20
    ids, lengths = corpus.take(batch.places[5:10].numpy(), 30)
    assert torch.equal(batch.ids, ids)
    assert torch.equal(batch.lengths, lengths)
    for place, book in zip(batch.places.tolist(), batch.book.tolist(), strict=True):
        assert corpus.books[book - 1] <= place < corpus.books[book]


def test_a_batch_larger_than_the_corpus(books):
    with pytest.raises(
        InputError, match="--batch-size is 500; the corpus has 135 sentences, fewer than a batch"
    ):
        batches_of(books, size=500)


@pytest.mark.data("books")
def test_the_shared_books(data_root):
    corpus = find_corpus("books", data_root)
    assert len(corpus.files) == 97
    wrapped = Corpus("two", tuple(path for path in corpus.files if "Forster_Howards" in path.name))
    [sentences] = sentences_in(wrapped)
    assert len(sentences) > 5000
    lengths = sorted(len(sentence) for sentence in sentences)
    assert lengths[-1] < 2000  # nothing was glued together
