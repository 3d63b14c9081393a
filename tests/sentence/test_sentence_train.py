"""Training, resuming, exporting and evaluating sentence runs, through the commands that users type."""

import re

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.metrics.pairwise import paired_cosine_distances

import sentence
from core.io.errors import InputError
from core.losses.gradient_cache import cached
from core.training.cli import parse_config
from core.training.settings import load_config
from sentence.config import SentenceConfig, defaults_for
from sentence.data import split_sentences
from sentence.evaluate import main as evaluate_main
from sentence.quick_thought import load_model
from sentence.train import main as train_main
from sentence.transformer import PaddedTransformer
from tests.processes import in_processes
from tests.runs import (
    as_command,
    as_printed,
    counted_steps,
    epochs_and_losses,
    failure_of,
    interrupted_before_step,
    losses_of,
    metrics_of,
    printed_scores,
    result_of,
)
from tests.sentence.conftest import real_model, write_senteval, write_tiny_bert

FAST = ["--epochs", "3", "--batch-size", "20", "--device", "cpu"]
FAST += ["--precision", "float32", "--tasks", "mr", "stsb"]
BOW = ["--encoder", "bow", "--embedding-dim", "8"]
GRU = ["--encoder", "gru", "--embedding-dim", "8", "--hidden", "6"]


@pytest.fixture
def data_root(tmp_path):
    write_senteval(tmp_path / "data")
    return tmp_path / "data"


def train(books, data_root, folder, *flags):
    where = ["--dataset", f"folder:{books}", "--data-root", str(data_root), "--output-dir", str(folder)]
    train_main([*FAST, *([] if "--encoder" in flags else GRU), *where, *flags])


def trained(books, data_root, folder, *flags):
    train(books, data_root, folder, *flags)
    return result_of(folder)


def test_sentences_that_are_cut_are_counted(books, data_root, tmp_path, capsys):
    train(books, data_root, tmp_path / "run", *BOW, "--tasks", "none", "--longest", "1")
    assert " sentences have more than --longest 1 tokens: the rest is cut" in capsys.readouterr().err
    train(books, data_root, tmp_path / "other", *BOW, "--tasks", "none")
    assert "the rest is cut" not in capsys.readouterr().err


def failure(capsys, *flags):
    """The last line that a command with bad input prints; lines about the corpus may precede it."""
    return failure_of(train_main, capsys, flags)[-1]


def evaluated(capsys, model, data_root, *flags):
    """The scores that the evaluation command prints, by name, as text."""
    where = ["--data-root", data_root, "--device", "cpu"]
    return printed_scores(evaluate_main, capsys, [model, *where, *flags])


def weights_file(folder):
    [path] = (folder / "encoder").rglob("model.safetensors")
    return path


def test_dropped_sentences_are_named(books, data_root, tmp_path, capsys):
    train(books, data_root, tmp_path / "run", "--epochs", "1", "--batch-size", "37")
    message = capsys.readouterr().err
    total = int(re.search(r"books, (\d+) sentences", message)[1])
    dropped = total % 37
    assert f"{dropped} sentences are dropped in each epoch (a different {dropped} each time): they" in message


def test_short_epochs_are_named_and_trained(books, data_root, tmp_path, capsys):
    flags = ["--epochs", "2", "--batch-size", "20", "--max-steps", "3", "--checkpoint-seconds", "0"]
    result = trained(books, data_root, tmp_path / "run", *flags)
    message = capsys.readouterr().err
    assert "each epoch has 3 of 6 batches" in message
    assert "15 sentences are dropped in each epoch (a different 15 each time): they do not fill" in message
    assert result["epochs"] == 2
    assert result["metrics"] != result["untrained_metrics"]


def test_finished_run_folder_has_every_file_and_a_full_record(books, data_root, tmp_path, capsys):
    folder = tmp_path / "run"
    result = trained(books, data_root, folder, "--objective", "hard", "--beta", "2", "--seed", "3")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "README.md",
        "checkpoint",
        "config.json",
        "encoder",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    sample = load_file(folder / "sample.safetensors")
    assert len(sample["representations"]) == len(sample["labels"]) > 0
    assert sample["positives"].abs().max() <= 1.001
    assert len(sample["negatives"]) > len(sample["positives"]) > 0
    assert result["modality"] == "sentence"
    assert result["objective"] == {
        "name": "hard",
        "beta": 2.0,
        "tau_plus": 0.1,
        "temperature": None,
        "stop_gradient": False,
        "normalize": False,
        "denominator": "negatives",
        "window": 1,
        "encoder": None,
        "slug": "hard-beta2-tau0.1",
        "label": "hard, beta 2, tau_plus 0.1",
        "family": "",
        "plain_family": "",
    }
    assert set(result["metrics"]) == set(result["untrained_metrics"]) == {"mr_accuracy", "stsb_spearman"}
    assert result["missing_tasks"] == []
    assert result["evaluation"] == "senteval-2"
    assert [line["epoch"] for line in metrics_of(folder)] == [0, 1, 2, 3]
    assert "3 books, 135 sentences" in capsys.readouterr().err
    model = SentenceTransformer(str(folder / "encoder"), trust_remote_code=True, device="cpu")
    assert model.encode(["The river held."]).shape == (1, 24)


def test_evaluate_of_run_or_encoder_prints_the_recorded_scores(books, data_root, tmp_path, capsys):
    folder = tmp_path / "run"
    expected = as_printed(trained(books, data_root, folder)["metrics"])
    assert evaluated(capsys, folder, data_root) == expected
    assert evaluated(capsys, folder / "encoder", data_root, "--tasks", "mr", "stsb") == expected


def test_benchmarks_of_sentence_transformers_score_ours_alike(books, data_root, tmp_path, capsys):
    """MTEB's STS 2012: ``encode`` the sentences, then Spearman's correlation of the cosines of all pairs."""
    folder = tmp_path / "run"
    trained(books, data_root, folder)
    model = SentenceTransformer(str(folder / "encoder"), trust_remote_code=True, device="cpu")
    root = data_root / "SentEval" / "downstream" / "STS" / "STS12-en-test"
    pairs, scores = [], []
    for path in sorted(root.glob("STS.input.*")):
        gold = path.with_name(path.name.replace("input", "gs")).read_text().split("\n")
        for line, score in zip(path.read_text().split("\n"), gold, strict=True):
            if score:
                pairs.append(line.split("\t"))
                scores.append(float(score))
    first, second = (model.encode([pair[i] for pair in pairs], batch_size=4) for i in range(2))
    expected = spearmanr(1 - paired_cosine_distances(first, second), scores).statistic
    said = evaluated(capsys, folder, data_root, "--tasks", "sts12")
    assert float(said["sts12_all_spearman"]) == pytest.approx(expected, abs=1e-4)


def test_record_names_missing_tasks(books, data_root, tmp_path):
    result = trained(books, data_root, tmp_path / "run", "--tasks", "topic", "mr")
    assert result["missing_tasks"] == []
    result = trained(books, tmp_path / "no-data", tmp_path / "other", "--tasks", "topic", "mr")
    assert result["missing_tasks"] == ["mr"]
    assert set(result["metrics"]) == {"topic_accuracy"}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        (*BOW, "--objective", "quickthought", "--denominator", "all"),
        ("--normalize", "--window", "2", "--stop-gradient"),
    ],
    ids=["gru", "bow", "window 2"],
)
@pytest.mark.parametrize("step", [3, 8, 18])
def test_resumed_run_has_the_same_weights(books, data_root, tmp_path, flags, step):
    """Interrupted inside an epoch, with a checkpoint after each step: bit-identical at the end."""
    expected, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(books, data_root, expected, *flags)
    with interrupted_before_step(step):
        train(books, data_root, resumed, "--checkpoint-seconds", "0", *flags)
    torch.rand(7)  # a new process has other random states
    with counted_steps() as steps:
        train(books, data_root, resumed, "--resume", *flags)
    assert steps.call_count == 18 - (step - 1)  # no step is repeated
    assert weights_file(resumed).read_bytes() == weights_file(expected).read_bytes()
    assert epochs_and_losses(resumed) == epochs_and_losses(expected)


@pytest.mark.parametrize("encoder", [GRU, BOW], ids=["gru", "bow"])
def test_chunks_train_as_the_full_batch(books, data_root, tmp_path, encoder):
    """The batches are the same, and so are the weights up to rounding."""
    train(books, data_root, tmp_path / "full", *encoder)
    train(books, data_root, tmp_path / "chunks", *encoder, "--cache-chunk", "7")
    assert_trained_alike(tmp_path / "chunks", tmp_path / "full")


@pytest.mark.distributed
@pytest.mark.parametrize(("objective", "chunk"), [("quickthought", ()), ("hard", ("--cache-chunk", "4"))])
def test_two_processes_equal_one(books, data_root, tmp_path, objective, chunk):
    train(books, data_root, tmp_path / "one", "--objective", objective)
    in_processes(2, train, books, data_root, tmp_path / "two", "--objective", objective, *chunk)
    assert_trained_alike(tmp_path / "two", tmp_path / "one")
    assert result_of(tmp_path / "two")["environment"]["processes"] == 2


def assert_trained_alike(folder, expected_folder):
    weights, expected = (load_file(weights_file(run)) for run in (folder, expected_folder))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=2e-5)
    assert losses_of(folder) == pytest.approx(losses_of(expected_folder), rel=1e-5)


@pytest.fixture
def tiny_bert(tmp_path):
    return write_tiny_bert(tmp_path / "tiny-bert")


def test_transformer_is_fine_tuned_and_loads_without_our_code(books, data_root, tmp_path, tiny_bert, capsys):
    folder = tmp_path / "run"
    flags = ["--encoder", "transformer", "--model", str(tiny_bert), "--lr", "0.001", "--longest", "12"]
    result = trained(books, data_root, folder, *flags)
    losses = losses_of(folder)
    assert losses[2] < losses[0]
    assert result["objective"]["encoder"] == "tiny-bert"
    assert result["objective"]["temperature"] == 0.1
    model = SentenceTransformer(str(folder / "encoder"), device="cpu")  # without trust_remote_code
    assert model.encode(["The river held."]).shape == (1, 16)
    assert evaluated(capsys, folder, data_root) == as_printed(result["metrics"])


def test_transformer_dropout_is_the_same_in_both_passes_of_chunks(tiny_bert):
    """With gradient caching and with one graph, in train mode: the same gradient."""
    grads = []
    for is_cached in (False, True):
        pair = PaddedTransformer(load_model(str(tiny_bert), False, torch.device("cpu"))).train()
        batch = torch.arange(5, 21), torch.tensor([3, 5, 1, 4, 3])
        torch.manual_seed(0)
        if is_cached:
            f, g = cached(pair, 2, split_sentences)(*batch)
        else:
            outputs = [pair(*chunk) for chunk in split_sentences(2, *batch)]
            f, g = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        (f @ g.T).logsumexp(1).sum().backward()
        grads.append({name: parameter.grad for name, parameter in pair.named_parameters()})
    expected, cached_grads = grads
    assert any(grad is None for grad in expected.values())  # the pooler is not used
    for name, grad in expected.items():
        torch.testing.assert_close(cached_grads[name], grad, rtol=1e-4, atol=1e-6)


def test_training_on_the_embedded_corpus_beats_the_untrained_encoder(tmp_path, capsys):
    """A pretrained model, which has seen far more text, is better still."""
    train_main(["--output-dir", str(tmp_path), "--device", "cpu", "--epochs", "20"])
    result = result_of(tmp_path)
    accuracy = result["metrics"]["topic_accuracy"]
    assert accuracy > result["untrained_metrics"]["topic_accuracy"] + 0.1
    scores = evaluated(capsys, real_model(), tmp_path, "--tasks", "topic")
    assert float(scores["topic_accuracy"]) > accuracy + 0.03


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset pydok", "did you mean pydoc?"),
        ("--dataset folder:nowhere", "nowhere is not a folder"),
        ("--encoder lstm", "invalid choice 'lstm'"),
        ("--encoder transformer", "--encoder transformer and --model belong together"),
        ("--model somewhere", "--encoder transformer and --model belong together"),
        (
            "--encoder transformer --model nowhere --no-download",
            "nowhere is not a folder; name that of a run, or of a SentenceTransformer, or set --download to",
        ),
        ("--batch-size 2", "--batch-size is 2; at least 3 sentences"),
        ("--batch-size 100000", "--batch-size is 100000; it must be at most"),
        ("--window 0", "--window is 0"),
        ("--cache-chunk 0", "--cache-chunk is 0"),
        ("--longest 0", "--longest is 0"),
        ("--clip-norm 0", "--clip-norm is 0"),
        ("--temperature 0.5", "scores are inner products, which have none"),
        ("--normalize --temperature 0", "--temperature is 0"),
        (
            "--encoder bow --hidden 7 --no-bidirectional",
            "--hidden is 7, which --encoder bow does not use; leave it out",
        ),
        ("--encoder bow --no-bidirectional", "--bidirectional is False, which --encoder bow does not use"),
        ("--hidden 600", "--hidden is 600, which --encoder bow does not use"),
        *(
            (
                f"--encoder transformer --model x --{name} 7",
                f"--{name} is 7, which --encoder transformer does",
            )
            for name in ("hidden", "vocab-size", "embedding-dim")
        ),
        ("--tasks cola", "--tasks is 'cola', which is unknown"),
        ("--objective simclr", "invalid choice 'simclr'"),
        ("--objective quickthought --beta 1", "--objective quickthought has beta 0"),
        ("--seeds 0-3", "sentence training does not support --seeds and --betas: a process trains one run"),
        ("--betas=0,1", "sentence training does not support --seeds and --betas: a process trains one run"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, *flags.split())
    assert not list(tmp_path.rglob("result.json"))


NO_BOOK = "has no book with 2 sentences; at least one is needed"
EMPTY_BOOK = "a.txt has 0 sentences; at least 2 are needed for neighbours; without --strict this"


@pytest.mark.parametrize(
    ("book", "flags", "message"),
    [
        pytest.param(b"", [], NO_BOOK, id="empty"),
        pytest.param(b"Only one sentence here.\n", [], NO_BOOK, id="one sentence"),
        pytest.param(b"", ["--strict"], EMPTY_BOOK, id="empty, strict"),
        pytest.param(
            b"One came.\nTwo \xff\xfe left.\n",
            ["--strict"],
            "a.txt: byte 14 is not UTF-8 and is replaced",
            id="not UTF-8, strict",
        ),
    ],
)
def test_bad_book_ends_the_command_in_one_line(tmp_path, capsys, book, flags, message):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_bytes(book)
    flags = ["--dataset", f"folder:{tmp_path / 'books'}", "--tasks", "neighbours", *flags]
    *warnings, error = failure_of(train_main, capsys, [*flags, "--output-dir", str(tmp_path / "run")])
    assert message in error
    assert all(line.startswith(f"warning: {tmp_path / 'books' / 'a.txt'} has ") for line in warnings)
    assert not (tmp_path / "run" / "result.json").exists()


def test_failed_download_of_tasks_is_one_line_and_leaves_no_file(
    books, served, tmp_path, capsys, monkeypatch
):
    """A run trains without them; an evaluation ends."""
    monkeypatch.setattr("sentence.tasks.SENTEVAL_URL", f"{served[1]}/senteval.tar")
    where = ["--data-root", str(tmp_path / "data"), "--device", "cpu"]
    run = str(tmp_path / "run")
    train_main([*FAST, "--dataset", f"folder:{books}", "--output-dir", run, "--tasks", "mr", *where])
    message = f"could not download {served[1]}/senteval.tar: 404"
    assert f"warning: {message}" in capsys.readouterr().err
    assert result_of(tmp_path / "run")["missing_tasks"] == ["mr"]
    [error] = failure_of(evaluate_main, capsys, [run, "--tasks", "mr", *where])
    assert error.startswith(f"error: {message}")
    assert not list((tmp_path / "data" / "SentEval").iterdir())


def test_command_line_reports_bad_input_without_a_traceback(capsys):
    [line] = failure_of(as_command("sentence.train"), capsys, ["--dataset", "pydok"])
    assert line.startswith("error: --dataset is 'pydok', which is unknown")


def parsed(*flags):
    return parse_config(SentenceConfig, defaults_for, flags, "test")


def test_corpus_name_brings_the_published_settings():
    config = parsed("--dataset", "bookcorpus")
    published = {"embedding_dim": 620, "hidden": 600, "bidirectional": True, "vocab_size": 50_000}
    published |= {"longest": 30, "batch_size": 400, "epochs": 1, "lr": 5e-4, "clip_norm": 5.0}
    published |= {"window": 1, "normalize": False}
    assert {name: getattr(config, name) for name in published} == published


@pytest.mark.parametrize("dataset", ["pydoc", "bookcorpus"])
def test_transformer_is_fine_tuned_in_small_steps_on_cosines(dataset):
    config = parsed("--dataset", dataset, "--encoder", "transformer", "--model", "x")
    usual = {"batch_size": 64, "lr": 2e-5, "normalize": True, "temperature": 0.1, "epochs": 1}
    assert {name: getattr(config, name) for name in usual} == usual


@pytest.mark.parametrize(
    ("flags", "slug"),
    [
        ("", "hard-beta1-tau0.1"),
        ("--encoder gru", "hard-beta1-tau0.1-gru"),
        ("--dataset books", "hard-beta1-tau0.1"),
        ("--dataset books --encoder bow --objective quickthought", "quickthought-bow"),
        ("--normalize --denominator all", "hard-beta1-tau0.1-normalized-all"),
        ("--encoder transformer --model a/tiny-bert", "hard-beta1-tau0.1-tiny-bert-normalized"),
    ],
)
def test_slug_names_encoder_and_changed_options(flags, slug):
    assert parsed(*flags.split()).objective_slug() == slug


def test_run_that_was_recorded_with_a_setting_without_effect_is_loaded(tmp_path):
    config = SentenceConfig(beta=1.0, tau_plus=0.1, encoder="bow", hidden=7, output_dir=tmp_path)
    (tmp_path / "config.json").write_text(config.as_text())
    assert load_config(tmp_path, SentenceConfig) == config
    with pytest.raises(InputError, match="`hidden` is 7, which `encoder` bow does not use; leave it out"):
        sentence.train_on(["One came.", "Two left."], encoder="bow", hidden=7)
