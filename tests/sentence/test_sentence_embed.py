"""Vectors of one's own sentences: the command that writes them, and training from Python."""

import gzip
import io
import os
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import sentence
from core.io.errors import InputError
from sentence.embed import main as embed_main
from sentence.embedding import numbered
from sentence.train import main as train_main
from sentence.training import corpus_of, train_on
from tests.runs import failure_of, losses_of, result_of
from tests.sentence.conftest import as_stdin, make_sentence, write_tiny_bert

LINES = ["The cold river held a stone.", "", "A  stone.\t", "unheard-of", "   ", "the river"]
NUMBERS = [0, 2, 3, 5]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def embed(*words):
    embed_main([*map(str, words), "--device", "cpu"])


def expected(model):
    return sentence.load_encoder(model, "cpu").encode([LINES[i] for i in NUMBERS])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".safetensors"])
def test_rows_are_the_lines_that_are_not_blank(model, source, tmp_path, suffix, capsys):
    output = tmp_path / f"x{suffix}"
    embed(model, source, "--output", output)
    if suffix == ".parquet":
        rows = pd.read_parquet(output)
        ids, vectors = rows["id"], np.stack(rows["embedding"])
    elif suffix == ".csv":
        rows = pd.read_csv(output)
        ids, vectors = rows["id"], rows.drop(columns="id").to_numpy()
    elif suffix == ".npz":
        with np.load(output) as arrays:
            ids, vectors = arrays["id"], arrays["embedding"]
    else:
        tensors = load_file(output)
        ids, vectors = tensors["id"], tensors["embedding"].numpy()
    assert list(ids) == NUMBERS
    np.testing.assert_allclose(vectors, expected(model), rtol=1e-6)
    assert capsys.readouterr().out == f"{output}: 4 embeddings, one for each line\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_standard_input_is_read_as_a_file_is(model, source, tmp_path, monkeypatch, encoding):
    text = source.read_text()
    embed(model, source, "--output", tmp_path / "file.parquet")
    as_stdin(monkeypatch, text.encode(encoding))
    embed(model, "-", "--output", tmp_path / "stdin.parquet")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode(encoding)))
    embed(model, tmp_path / "packed.gz", "--output", tmp_path / "packed.parquet")
    contents = [(tmp_path / f"{name}.parquet").read_bytes() for name in ("file", "stdin", "packed")]
    assert contents[0] == contents[1] == contents[2]


def test_rows_do_not_depend_on_how_many_are_encoded_at_once(model, source, tmp_path, monkeypatch):
    embed(model, source, "--output", tmp_path / "one.npz")
    monkeypatch.setattr("sentence.embedding.SENTENCES_AT_ONCE", 3)
    embed(model, source, "--output", tmp_path / "other.npz")
    one, other = (np.load(tmp_path / name) for name in ("one.npz", "other.npz"))
    assert one["id"].tolist() == other["id"].tolist() == NUMBERS
    np.testing.assert_allclose(one["embedding"], other["embedding"], rtol=1e-6)


def test_lines_are_encoded_as_they_are_read():
    """Constant memory: no more than a batch is taken ahead."""
    taken = []
    lines = (taken.append(i) or f"line {i}\n" for i in range(10**9))
    rows = numbered(lines)
    assert [next(rows) for _ in range(3)] == [(0, "line 0"), (1, "line 1"), (2, "line 2")]
    assert len(taken) == 3


def test_long_line_counts_once():
    assert list(numbered(["a b", "c d\n", "\n", "e\n", "f"])) == [(0, "a b"), (2, "e"), (3, "f")]


def test_bytes_that_are_not_utf_8_are_replaced_and_named(model, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"The river.\nTwo \xff stones.\n")
    embed(model, tmp_path / "a.txt", "--output", tmp_path / "x.npz")
    assert "a.txt: byte 15 is not UTF-8 and is replaced" in capsys.readouterr().err
    assert len(np.load(tmp_path / "x.npz")["id"]) == 2


def test_any_sentence_transformer_embeds(source, tmp_path):
    write_tiny_bert(tmp_path / "bert")
    embed(tmp_path / "bert", source, "--output", tmp_path / "x.npz")
    assert np.load(tmp_path / "x.npz")["embedding"].shape == (4, 16)


def test_existing_output_is_kept_unless_overwrite(model, source, tmp_path, capsys):
    output = tmp_path / "x.csv"
    output.write_text("mine")
    error = failure_of(embed_main, capsys, [str(model), str(source), "--output", str(output)])[-1]
    assert error == f"error: --output {output} exists; set --overwrite to replace it, or choose another path"
    assert output.read_text() == "mine"
    embed(model, source, "--output", output, "--overwrite")
    assert list(pd.read_csv(output)["id"]) == NUMBERS


def test_bad_input_is_one_line_and_writes_nothing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in (("graph", '{"modality": "graph"}'), ("unfinished", '{"modality": "sentence"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    for name, content in (
        ("empty.txt", b""),
        ("blank.txt", b"\n \n"),
        ("binary.txt", b"a\0b\n"),
        ("a.txt", b"a b\n"),
    ):
        (tmp_path / name).write_bytes(content)
    files = sorted(os.listdir(tmp_path))
    for words, message in (
        (
            "nowhere a.txt --output x.csv --no-download",
            "nowhere is not a folder; name that of a run, or of a SentenceTr",
        ),
        ("graph a.txt --output x.csv", "graph holds a run of modality graph; a run of sentence is needed"),
        ("unfinished a.txt --output x.csv", "is missing: the run is not finished; resume it with --resume"),
        (
            "model b.txt --output x.csv",
            "b.txt cannot be read: No such file or directory; name a file with one",
        ),
        ("model graph --output x.csv", "graph is a folder; name it folder:graph if its files are books"),
        ("model empty.txt --output x.csv", "empty.txt has no line with text; at least one is needed"),
        ("model blank.txt --output x.csv", "blank.txt has no line with text; at least one is needed"),
        ("model binary.txt --output x.csv", "binary.txt is binary: byte 1 is 0; it must be plain text"),
        ("model a.txt --output x.txt", "--output is x.txt; its suffix must be one of .parquet, .npz"),
        ("model a.txt", "--output"),
    ):
        lines = failure_of(embed_main, capsys, words.split())
        assert len(lines) == 1
        assert message in lines[0]
        assert sorted(os.listdir(tmp_path)) == files
    as_stdin(monkeypatch, b"")
    [line] = failure_of(embed_main, capsys, ["model", "-", "--output", "x.csv"])
    assert line == "error: standard input has no line with text; at least one is needed"
    monkeypatch.setattr(sys, "stdin", None)
    [line] = failure_of(embed_main, capsys, ["model", "-", "--output", "x.csv"])
    assert line == "error: standard input is closed; send it lines of text, or name a file"
    with open("/proc/self/mem", "rb") as unreadable:  # at its start there is no memory
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(unreadable))
        [line] = failure_of(embed_main, capsys, ["model", "-", "--output", "x.csv"])
    assert line == "error: standard input cannot be read: Input/output error"


FAST = {"epochs": 2, "batch_size": 20, "encoder": "bow", "embedding_dim": 8, "device": "cpu"}
FLAGS = [word for name, value in FAST.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def make_texts(count=120):
    import random

    draw = random.Random(0)
    return [make_sentence(draw) for _ in range(count)]


def test_training_on_texts_is_that_of_the_command(tmp_path):
    """The same losses, scores and vectors as a file with these lines."""
    texts = make_texts()
    model = train_on(texts, output_dir=tmp_path / "texts", **FAST)
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts))
    where = ["--dataset", f"lines:{tmp_path / 'a.txt'}", "--output-dir", str(tmp_path / "lines")]
    train_main([*FLAGS, *where, "--tasks", "none"])
    assert losses_of(tmp_path / "texts") == losses_of(tmp_path / "lines")
    texts_result, lines_result = (result_of(tmp_path / name) for name in ("texts", "lines"))
    assert texts_result["metrics"] == lines_result["metrics"]
    vectors = sentence.load_encoder(tmp_path / "lines", "cpu").encode(texts)
    np.testing.assert_array_equal(model.encode(texts), vectors)
    by_path = sentence.train_on(tmp_path / "a.txt", output_dir=tmp_path / "path", **FAST)
    np.testing.assert_array_equal(by_path.encode(texts), vectors)


def test_training_in_memory_leaves_and_names_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = sentence.train_on(make_texts(), **FAST)
    printed = capsys.readouterr().out
    assert "run folder" not in printed
    assert "(untrained" in printed
    assert model.encode(["The river."]).shape == (1, 16)
    assert not list(tmp_path.iterdir())


def test_books_of_sentences_are_books(tmp_path, books, capsys):
    texts = make_texts()
    sentence.train_on([texts[:70], (text for text in texts[70:])], output_dir=tmp_path / "run", **FAST)
    assert "2 books, 120 sentences" in capsys.readouterr().err
    sentence.train_on(books, output_dir=tmp_path / "folder", **FAST)
    assert "3 books, 135 sentences" in capsys.readouterr().err


def test_a_folder_of_other_texts_is_refused_and_resumed_is_finished(tmp_path, capsys):
    texts = make_texts()
    first = train_on(texts, output_dir=tmp_path / "run", **FAST)
    again = train_on(texts, output_dir=tmp_path / "run", **FAST)
    np.testing.assert_array_equal(first.encode(texts), again.encode(texts))
    with pytest.raises(InputError, match="holds a run of other settings"):
        train_on(texts[:-1], output_dir=tmp_path / "run", **FAST)


def test_texts_are_named_by_what_their_sentences_are():
    names = {corpus_of(texts).name for texts in (["ab", "c"], ["a", "bc"], [["ab"], ["c"]], [["ab", "c"]])}
    assert len(names) == 3  # one book is the same as its sentences
    assert corpus_of(["ab", "c"]).fingerprint() != corpus_of(["a", "bc"]).fingerprint()


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "`texts` is empty; at least 2 sentences are needed"),
        ([[]], {}, "`texts` is empty; at least 2 sentences are needed"),
        (["One only."], {}, "has no text with 2 sentences; at least one is needed"),
        ("One. Two.", {}, "`texts` is one text; it must be a list of sentences, or a Path"),
        (
            ["One.", ["Two.", "Three."]],
            {},
            "`texts` has sentences beside lists of sentences; it must have one of",
        ),
        (None, {}, "`texts` is of type NoneType; it must be a list of sentences, or a Path"),
        (pd.DataFrame({"text": ["a b"]}), {}, "`texts` is of type DataFrame; it must be a list of"),
        ([b"a b", b"c"], {}, "`texts` has b'a b'; it must be sentences, or lists of sentences"),
        ([1, 2], {}, "`texts` has 1; it must be sentences, or lists of sentences"),
        ([["a", None]], {}, "`texts` has None; it must be sentences, or lists of sentences"),
        (["a b"] * 50, {"epoch": 3}, "`epoch` is not a setting of sentence training; did you mean epochs"),
        (["a b"] * 50, {"epochs": "3"}, '`epochs` is "3"; it must be int'),
        (["a b"] * 50, {"dataset": "books"}, "`dataset` is books, but train_on takes `texts` instead"),
        (["a b"] * 50, {"batch_size": 51}, "`batch_size` is 51; it must be at most 50, the"),
    ],
)
def test_bad_texts_or_settings_are_one_line(tmp_path, texts, settings, message):
    with pytest.raises(InputError, match=message):
        train_on(texts, output_dir=tmp_path / "run", **(FAST | settings))


def test_gallery_shows_sentences_with_their_neighbours(model, source, tmp_path, capsys):
    page = tmp_path / "page.html"
    embed(model, source, "--output", tmp_path / "x.npz", "--gallery", page)
    assert capsys.readouterr().out.endswith(f"{page}\n")
    vectors = np.load(tmp_path / "x.npz")["embedding"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = LINES[NUMBERS[1 + int((unit[1:] @ unit[0]).argmax())]]
    text = page.read_text()
    first = text[text.index("<section>") : text.index("</section>")]
    assert LINES[0] in first
    assert " ".join(nearest.split()) in first[: first.index("</li>")]
    [line] = failure_of(embed_main, capsys, [str(model), str(source), "--output", "y.npz", "--gallery", "y"])
    assert line == "error: --gallery is y; its suffix must be .html"


def test_array_of_numpy_strings_is_a_list_of_sentences():
    sentences = ["The cat sat.", "It was warm.", "It slept."]
    assert corpus_of(np.array(sentences)).name == corpus_of(sentences).name
    assert corpus_of([sentences[0], *np.array(sentences[1:])]).name == corpus_of(sentences).name
