"""Runs without tasks: what is held out, and the scores without labels."""

import gzip
import json

import numpy as np
import pytest
import torch

from sentence.config import SentenceConfig
from sentence.corpora import find_corpus
from sentence.data import ConsecutiveBatches, encode_corpus
from sentence.encoder import TwoEncoders
from sentence.evaluate import main as evaluate_main
from sentence.held_out import MAX_HELD_OUT, hold_out, scores
from sentence.text import sentences_of
from sentence.train import main as train_main
from tests.processes import in_processes
from tests.runs import (
    as_printed,
    epochs_and_losses,
    failure_of,
    interrupted_before_step,
    printed_scores,
    result_of,
)
from tests.sentence.conftest import as_stdin, write_books, write_senteval, write_tiny_bert

CPU = torch.device("cpu")
FAST = ["--epochs", "2", "--batch-size", "20", "--device", "cpu", "--precision", "float32"]
BOW = ["--encoder", "bow", "--embedding-dim", "8"]
SCORES = {
    *("next_sentence_accuracy", "alignment", "uniformity", "effective_rank"),
    *("positive_similarity", "negative_similarity", "hardest_negative_similarity"),
}
NOWHERE = "http://127.0.0.1:1/senteval.tar"  # nobody listens there


def run_training(dataset, folder, *flags):
    encoder = [] if "--encoder" in flags else BOW
    train_main([*FAST, *encoder, "--dataset", str(dataset), "--output-dir", str(folder), *flags])


def train(dataset, folder, *flags):
    run_training(dataset, folder, "--no-download", *flags)
    return result_of(folder)


def corpus_in(folder):
    return encode_corpus(find_corpus(f"folder:{folder}", folder), 1000)


def test_command_of_the_readme_trains_without_the_data_of_any_task(books, tmp_path, monkeypatch, capsys):
    """The same words, beside a folder of novels and without SentEval."""
    monkeypatch.chdir(tmp_path)
    books.rename("novels")
    small = ["--epochs", "1", "--batch-size", "20", "--embedding-dim", "8", "--hidden", "6"]
    monkeypatch.setattr("sentence.tasks.SENTEVAL_URL", NOWHERE)
    train_main(["--dataset", "folder:novels", *small, "--device", "cpu"])
    said = capsys.readouterr()
    [path] = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["missing_tasks"] == list(SentenceConfig(beta=0.0, tau_plus=0.0).tasks)
    assert set(result["metrics"]) == set(result["untrained_metrics"]) == SCORES
    assert (result["labelled"], result["held_out_sentences"], result["evaluation"]) == (
        False,
        13,
        "held-out-1",
    )
    assert (
        f"warning: could not download {NOWHERE}: 127.0.0.1 cannot be reached; connect to the network"
        in said.err
    )
    assert "warning: no data for mr, cr, subj, mpqa, trec, msrp, sst2, stsb under" in said.err
    assert "the run is scored without labels; add them there, or set --tasks to none" in said.err
    assert "held out for the scores without labels: 13 sentences, the last ones of 3 books" in said.err
    value, untrained = (result[name]["next_sentence_accuracy"] for name in ("metrics", "untrained_metrics"))
    assert f"next_sentence_accuracy {value:.4f} (untrained {untrained:.4f})" in said.out


def test_tasks_none_is_a_run_without_labels_also_where_the_data_are(books, tmp_path, capsys):
    write_senteval(tmp_path / "data")
    where = ["--data-root", str(tmp_path / "data")]
    none = train(f"folder:{books}", tmp_path / "none", "--tasks", "none", *where)
    assert none["missing_tasks"] == []
    assert set(none["metrics"]) == SCORES
    assert "no data for" not in capsys.readouterr().err
    missing = train(f"folder:{books}", tmp_path / "missing", "--tasks", "mr", "--data-root", str(tmp_path))
    assert missing["metrics"] == none["metrics"]  # the training is the same
    labelled = train(f"folder:{books}", tmp_path / "labelled", "--tasks", "mr", *where)
    assert set(labelled["metrics"]) == {"mr_accuracy"}
    assert labelled["labelled"]
    assert "held_out_sentences" not in labelled


def test_held_out_sentences_are_never_trained_on(books):
    corpus = hold_out(corpus_in(books))
    assert corpus.books.tolist() == [0, 60, 105, 135]
    assert corpus.held_out.tolist() == [6, 4, 3]
    held_out = {*range(54, 60), *range(101, 105), *range(132, 135)}
    batches = ConsecutiveBatches(corpus, 10, 30, 0, slice(0, 10), CPU)
    seen = {int(i) for epoch in range(40) for positions in batches.positions(epoch) for i in positions}
    assert seen == set(range(135)) - held_out


def test_batches_are_those_of_the_corpus_where_nothing_is_held_out(books):
    """Bit for bit those of the released code, which read the ends of books."""
    corpus = corpus_in(books)
    batches = ConsecutiveBatches(corpus, 7, 30, 3, slice(0, 7), CPU)
    rng = np.random.default_rng((3, 2))
    expected, rests = [], [np.empty(0, np.int64)]
    for book in rng.permutation(3):
        first, end = corpus.books[book : book + 2]
        start = first + rng.integers(min(7, end - first))
        stop = start + (end - start) // 7 * 7
        expected += list(np.arange(start, stop).reshape(-1, 7))
        rests += [np.arange(first, start), np.arange(stop, end)]
    rest = np.concatenate(rests)
    expected += list(rest[: len(rest) // 7 * 7].reshape(-1, 7))
    order = rng.permutation(len(expected))
    assert [part.tolist() for part in batches.positions(2)] == [expected[i].tolist() for i in order]


def test_at_most_a_batch_is_held_out_of_the_longest_books(tmp_path):
    folder = write_books(tmp_path / "many", sizes=[15, 2000, 700, *[30] * 9])
    held_out = hold_out(corpus_in(folder)).held_out
    lengths = np.diff(corpus_in(folder).books)
    assert sorted(held_out.tolist()) == [*[0] * 4, *[3] * 6, 50, 50]
    assert held_out.sum() <= MAX_HELD_OUT
    assert (held_out <= lengths / 10).all()


def reference(f, g, positions, books, temperature):
    """Accuracy, alignment, uniformity and similarities by loops, in float64."""
    unit = [[row / np.linalg.norm(row) for row in side] for side in (f, g)]
    rows = unit if temperature else (f, g)
    is_next = lambda i, j: books[i] == books[j] and positions[j] == positions[i] + 1  # noqa: E731
    pairs = [(i, j) for i in range(len(f)) for j in range(len(f)) if is_next(i, j)]
    correct, positive, hardest, others = [], [], [], []
    for i, j in pairs:
        negatives = [k for _, k in pairs if books[k] != books[i] or abs(positions[k] - positions[i]) > 1]
        correct.append(rows[0][i] @ rows[1][j] > max(rows[0][i] @ rows[1][k] for k in negatives))
        positive.append(unit[0][i] @ unit[1][j])
        cosines = [unit[0][i] @ unit[1][k] for k in negatives]
        others += cosines
        hardest.append(max(cosines))
    squared = [np.sum((unit[0][i] - unit[0][k]) ** 2) for i, _ in pairs for k, _ in pairs if i != k]
    shares = np.linalg.svd(np.concatenate([f, g], axis=1), compute_uv=False)
    shares = shares / shares.sum()
    return {
        "next_sentence_accuracy": np.mean(correct),
        "alignment": np.mean([2 - 2 * cosine for cosine in positive]),
        "uniformity": np.log(np.mean(np.exp(-2 * np.array(squared)))),
        "positive_similarity": np.mean(positive),
        "negative_similarity": np.mean(others),
        "hardest_negative_similarity": np.mean(hardest),
        "effective_rank": np.exp(-np.sum(shares * np.log(shares))),
    }


@pytest.mark.parametrize("temperature", [None, 0.1])
@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_scores_equal_a_loop_over_pairs(books, kind, temperature):
    corpus = hold_out(corpus_in(books))
    torch.manual_seed(1)
    module = TwoEncoders(corpus.tokenizer, kind, 6, 5, True, 30)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    positions = [*range(54, 60), *range(101, 105), *range(132, 135)]
    books_of = [0] * 6 + [1] * 4 + [2] * 3
    with torch.no_grad():
        alone = [module.embed_pair(*corpus.take(np.array([position]), 30)) for position in positions]
    f, g = (torch.cat(side).double().numpy() for side in zip(*alone, strict=True))
    measured = scores(module, corpus, 30, temperature, CPU, "float32")
    assert measured == pytest.approx(reference(f, g, positions, books_of, temperature), rel=1e-4)
    assert 0 < measured["next_sentence_accuracy"] < 1


def test_constant_embeddings_find_no_sentence(books):
    corpus = hold_out(corpus_in(books))
    module = TwoEncoders(corpus.tokenizer, "bow", 6, 5, True, 30)
    for parameter in module.parameters():
        torch.nn.init.ones_(parameter)
    measured = scores(module, corpus, 30, False, CPU, "float32")
    assert measured["next_sentence_accuracy"] == 0
    assert measured["effective_rank"] == pytest.approx(1)


def test_training_finds_more_sentences_than_the_untrained_encoder(tmp_path):
    """Neighbours share a topic's word, so that they can be found without having been seen."""
    draw = np.random.default_rng(0)
    topics = [f"word{i}" for i in range(40)]
    pages = [topics[draw.integers(40)] for _ in range(700)]
    lines = [f"{topic} {' '.join(draw.choice(['a', 'b', 'c', 'd'], 3))}\n" for topic in pages for _ in "12"]
    (tmp_path / "pages.txt").write_text("".join(lines))
    flags = ["--epochs", "8", "--batch-size", "50", "--lr", "0.02", "--objective", "quickthought"]
    result = train(f"lines:{tmp_path / 'pages.txt'}", tmp_path / "run", "--tasks", "none", *flags)
    trained, untrained = (result[name]["next_sentence_accuracy"] for name in ("metrics", "untrained_metrics"))
    assert result["held_out_sentences"] == 140
    assert trained > untrained + 0.1


def test_resumed_run_without_labels_is_the_same(books, tmp_path):
    flags = ["--tasks", "none"]
    expected = train(f"folder:{books}", tmp_path / "one", *flags)
    with interrupted_before_step(8):
        train(f"folder:{books}", tmp_path / "two", *flags, "--checkpoint-seconds", "0")
    resumed = train(f"folder:{books}", tmp_path / "two", *flags, "--resume")
    assert resumed["metrics"] == expected["metrics"]
    assert resumed["untrained_metrics"] == expected["untrained_metrics"]
    assert epochs_and_losses(tmp_path / "two") == epochs_and_losses(tmp_path / "one")


@pytest.mark.distributed
def test_two_processes_score_as_one(books, tmp_path):
    one = train(f"folder:{books}", tmp_path / "one", "--tasks", "none")
    in_processes(2, run_training, f"folder:{books}", tmp_path / "two", "--tasks", "none")
    two = result_of(tmp_path / "two")
    assert two["environment"]["processes"] == 2
    assert two["untrained_metrics"] == one["untrained_metrics"]
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-3)


def test_transformer_is_scored_without_labels(books, tmp_path):
    write_tiny_bert(tmp_path / "bert")
    flags = [
        "--tasks",
        "none",
        "--encoder",
        "transformer",
        "--model",
        str(tmp_path / "bert"),
        "--longest",
        "12",
    ]
    metrics = train(f"folder:{books}", tmp_path / "run", *flags)["metrics"]
    assert set(metrics) == SCORES
    assert 1 < metrics["effective_rank"] < 13


def flags_of(books, folder, tasks):
    return [*FAST, *BOW, "--dataset", f"folder:{books}", "--output-dir", str(folder), "--tasks", tasks]


def test_resuming_where_a_task_s_data_appeared_is_refused(books, tmp_path, capsys):
    """The labelled run would train on the sentences that were held out."""
    flags = flags_of(books, tmp_path / "run", "mr")
    flags += ["--data-root", str(tmp_path / "data"), "--no-download"]
    with interrupted_before_step(8):
        train_main([*flags, "--checkpoint-seconds", "0"])
    write_senteval(tmp_path / "data")
    error = failure_of(train_main, capsys, [*flags, "--resume"])[-1]
    assert "the data are not those that the run" in error
    assert "sentences 122 there, 135 now" in error


def test_corpus_too_small_to_hold_out_trains_without_scores(tmp_path, capsys):
    folder = write_books(tmp_path / "books", sizes=[40])
    result = train(f"folder:{folder}", tmp_path / "run", "--tasks", "none")
    assert "warning: a tenth of the corpus has fewer than 10 sentences: nothing is held out" in (
        capsys.readouterr().err
    )
    assert (result["metrics"], result["held_out_sentences"], result["labelled"]) == ({}, 0, False)


def test_largest_batch_leaves_the_held_out_sentences_out(books, tmp_path, capsys):
    flags = flags_of(books, tmp_path / "run", "none")
    error = failure_of(train_main, capsys, [*flags, "--batch-size", "130"])[-1]
    assert "must be at most 122, the sentences of the corpus without the 13 held out" in error
    train(f"folder:{books}", tmp_path / "other", "--tasks", "none", "--batch-size", "122")


def test_tasks_none_is_used_alone(books, tmp_path, capsys):
    flags = ["--dataset", f"folder:{books}", "--output-dir", str(tmp_path / "run"), "--tasks", "none", "mr"]
    [line] = failure_of(train_main, capsys, flags)
    assert line == "error: --tasks is none mr; none is used alone"


def test_text_of_a_file_or_standard_input_is_scored(books, tmp_path, capsys, monkeypatch):
    """The sentences that a run held out have the scores of its record."""
    sentences = [f"{text}\n" for path in sorted(books.iterdir()) for text in sentences_of([path.read_text()])]
    (tmp_path / "all.txt").write_text("".join(sentences))
    result = train(f"lines:{tmp_path / 'all.txt'}", tmp_path / "run", "--tasks", "none")
    held_out = "\n".join(sentences[-result["held_out_sentences"] :])
    flags = [str(tmp_path / "run"), "--device", "cpu", "--text"]
    capsys.readouterr()
    as_stdin(monkeypatch, held_out.encode())
    assert printed_scores(evaluate_main, capsys, [*flags, "-"]) == as_printed(result["metrics"])
    (tmp_path / "part.txt").write_text(held_out)
    scores = printed_scores(
        evaluate_main, capsys, [*flags, str(tmp_path / "part.txt"), "--tasks", "neighbours"]
    )
    assert scores.pop("neighbours_accuracy")
    assert scores == as_printed(result["metrics"])
    as_stdin(monkeypatch, b"One line.\n")
    assert failure_of(evaluate_main, capsys, [*flags, "-"]) == [
        "error: the text has 1 sentences; at least 10 are needed"
    ]
    [line] = failure_of(evaluate_main, capsys, [*flags, "no-such-file"])
    assert line.startswith("error: no-such-file cannot be read: No such file or directory")


def test_evaluating_a_run_without_tasks_asks_for_some(books, tmp_path, capsys):
    train(f"folder:{books}", tmp_path / "run", "--tasks", "none")
    capsys.readouterr()
    error = failure_of(evaluate_main, capsys, [str(tmp_path / "run"), "--device", "cpu"])[-1]
    assert error == (
        "error: there is no task to evaluate on; name some with --tasks, or a --text; the run's own scores "
        f"are in {tmp_path / 'run'}/README.md"
    )
    evaluate_main([str(tmp_path / "run"), "--device", "cpu", "--tasks", "neighbours"])
    assert "neighbours_accuracy" in capsys.readouterr().out


LINES = ["She came. He left.", "HELLO   WORLD", "ok", "and this one goes further"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a", "a.list"])
def test_lines_are_sentences_of_a_file_of_any_name(tmp_path, name):
    text = "".join(f"{line}\n\n" for line in LINES).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    source = find_corpus(f"lines:{tmp_path / name}", tmp_path)
    assert source.files == (tmp_path / name,)
    assert len(encode_corpus(source, 100)) == 4


def test_lines_of_a_folder_are_those_of_its_files(tmp_path):
    for name in ("a.txt", "b.TXT", "c.md", ".d.txt"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in LINES))
    source = find_corpus(f"lines:{tmp_path}", tmp_path)
    assert [path.name for path in source.files] == ["a.txt", "b.TXT"]
    assert (source.other_files, source.hidden) == (1, 1)


def test_the_dataset_says_how_lines_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("")
    modes = {name: find_corpus(name, tmp_path).lines for name in ("pydoc", f"folder:{tmp_path}")}
    assert set(modes.values()) == {"auto"}
    assert find_corpus(f"lines:{tmp_path}", tmp_path).lines == "sentences"
    assert find_corpus(f"lines:{tmp_path / 'a.txt'}", tmp_path).lines == "sentences"


@pytest.mark.parametrize(
    ("content", "dataset", "message"),
    [
        (b"", "lines:a.txt", "lines:a.txt has no file with 2 sentences; at least one is needed"),
        (b"One only.\n", "lines:a.txt", "lines:a.txt has no file with 2 sentences; at least one is needed"),
        (b"a\0b\n", "lines:a.txt", "a.txt is binary: byte 1 is 0"),
        (b"", "lines:b.txt", "b.txt is not a file or a folder; lines:PATH needs a text file with one"),
        (b"", "lines:", "lines: has no path; it must be lines:PATH"),
        (
            b"",
            "folder:a.txt",
            "a.txt is not a folder; folder:PATH needs one with a .txt or .txt.gz for each book; for a",
        ),
    ],
    ids=["empty", "one sentence", "binary", "missing", "no path", "file as a folder"],
)
def test_bad_lines_end_in_one_line(tmp_path, monkeypatch, capsys, content, dataset, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(content)
    *warnings, error = failure_of(train_main, capsys, ["--dataset", dataset, "--tasks", "none"])
    assert message in error
    assert all(line.startswith("warning: a.txt has ") for line in warnings)
    assert not list(tmp_path.rglob("result.json"))
