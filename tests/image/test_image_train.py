"""Training and evaluating image runs, through the commands that users type."""

import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import image.data
from image.config import ImageConfig
from image.data import load_dataset
from image.encoder import make_model
from image.scoring import Scorer
from image.train import main as train_main
from tests.image.commands import FAST, evaluated, failure, train
from tests.processes import free_port
from tests.runs import (
    as_printed,
    losses_of,
    metrics_of,
    result_of,
)


def test_finished_run_folder_has_every_file_and_a_full_record(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(tiny_folder, folder, "--objective", "hard", "--beta", "2", "--knn-every", "2")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "README.md",
        "checkpoint",
        "config.json",
        "encoder.safetensors",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    sample = load_file(folder / "sample.safetensors")
    assert len(sample["representations"]) == len(sample["labels"]) > 0
    assert sample["positives"].abs().max() <= 1.001
    assert len(sample["negatives"]) > len(sample["positives"]) > 0
    assert result["modality"] == "image"
    assert result["objective"] == {
        "name": "hard",
        "beta": 2.0,
        "tau_plus": 0.1,
        "temperature": 0.5,
        "stop_gradient": False,
        "anneal_beta": "none",
        "negatives": "batch",
        "positives": "views",
        "encoder": None,
        "slug": "hard-beta2-tau0.1",
        "label": "hard, beta 2, tau_plus 0.1",
        "family": "",
        "plain_family": "",
    }
    assert set(result["metrics"]) == {
        "knn_accuracy",
        "linear_accuracy",
        "linear_top5_accuracy",
        "alignment",
        "uniformity",
        "positive_similarity",
        "negative_similarity",
        "hardest_negative_similarity",
        "effective_rank",
    }
    assert result["untrained_metrics"].keys() == result["metrics"].keys()
    lines = metrics_of(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert ["knn_accuracy" in line for line in lines] == [True, False, True, False]
    assert ["linear_accuracy" in line for line in lines] == [True, False, False, False]
    assert "linear_accuracy" in capsys.readouterr().out


def test_evaluate_prints_the_recorded_scores(tiny_folder, tmp_path, capsys):
    result = train(tiny_folder, tmp_path / "run", "--seed", "1")
    assert evaluated(capsys, tmp_path / "run") == as_printed(result["metrics"])


def test_evaluate_scores_another_dataset_and_the_papers_protocol(tiny_folder, tmp_path, capsys):
    train(tiny_folder, tmp_path / "run")
    for flags in (["--dataset", "digits", "--epochs", "2"], ["--protocol", "paper", "--epochs", "2"]):
        scores = evaluated(capsys, tmp_path / "run", *flags)
        assert 0 <= float(scores["linear_accuracy"]) <= float(scores["linear_top5_accuracy"]) <= 1


@pytest.mark.parametrize("protocol", ["frozen", "paper"])
def test_evaluation_changes_neither_encoder_nor_random_states(tiny_folder, tmp_path, protocol):
    """Neither weights and statistics of batch norm, nor the mode, the gradients and the random states."""
    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    torch.manual_seed(0)
    model = make_model("resnet10", 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = torch.get_rng_state()
    config = ImageConfig(dataset="tiny", beta=1.0, tau_plus=0.1, view_size=16, precision="float32")
    Scorer(model, config, dataset).evaluate(protocol, epochs=2)
    assert torch.equal(torch.get_rng_state(), expected)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_annealing_changes_the_loss(tiny_folder, tmp_path):
    """Beta falls over the three epochs: 4, 2.5, 1. The constant and the debiased objective are the bounds."""
    constant = train(tiny_folder, tmp_path / "constant", "--beta", "4", "--lr", "1e-12")
    down = train(tiny_folder, tmp_path / "down", "--beta", "4", "--lr", "1e-12", "--anneal-beta", "down")
    debiased = train(tiny_folder, tmp_path / "debiased", "--objective", "debiased", "--lr", "1e-12")
    losses = {name: losses_of(tmp_path / name) for name in ("constant", "down", "debiased")}
    assert losses["down"][0] == pytest.approx(losses["constant"][0], abs=1e-5)
    assert losses["debiased"][2] < losses["down"][2] < losses["constant"][2]
    assert down["objective"]["anneal_beta"] == "down"
    assert constant["objective"]["beta"] == down["objective"]["beta"] == 4
    assert debiased["objective"]["beta"] == 0


def test_bfloat16_has_nearly_the_same_loss_and_not_the_same(tiny_folder, tmp_path):
    for precision in ("float32", "bfloat16"):
        train(tiny_folder, tmp_path / precision, "--epochs", "1", "--precision", precision)
    low, full = losses_of(tmp_path / "bfloat16"), losses_of(tmp_path / "float32")
    assert low == pytest.approx(full, abs=0.05)
    assert low != pytest.approx(full, abs=1e-6)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_chunks_train_as_the_full_batch_only_with_group_norm(tiny_folder, tmp_path, capsys, norm):
    """Group norm normalises each image alone; batch norm depends on the other images of a chunk."""
    full, chunks = tmp_path / "full", tmp_path / "chunks"
    for folder, flags in ((full, ()), (chunks, ("--cache-chunk", "5"))):
        result = train(tiny_folder, folder, "--norm", norm, "--optimizer", "sgd", *flags)
        assert evaluated(capsys, folder)["linear_accuracy"] == f"{result['metrics']['linear_accuracy']:.4f}"
    if norm == "batch":
        assert abs(losses_of(chunks)[0] - losses_of(full)[0]) > 1e-3
        return
    assert losses_of(chunks) == pytest.approx(losses_of(full), rel=1e-5)
    expected, weights = (load_file(folder / "encoder.safetensors") for folder in (full, chunks))
    assert not any("running" in name for name in expected)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_run_of_an_older_config_without_norm_is_evaluated(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(tiny_folder, folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["norm"], settings["cache_chunk"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert evaluated(capsys, folder)["knn_accuracy"] == f"{result['metrics']['knn_accuracy']:.4f}"


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiling takes most of a minute, and several on a busy machine
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_model_has_the_same_loss(tiny_folder, tmp_path):
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    train(tiny_folder, eager, "--epochs", "1")
    train(tiny_folder, compiled, "--epochs", "1", "--compile")
    assert losses_of(compiled) == pytest.approx(losses_of(eager), rel=1e-4)
    names, expected = (load_file(folder / "encoder.safetensors").keys() for folder in (compiled, eager))
    assert names == expected


def test_true_negatives_change_the_loss_and_name_the_run(tiny_folder, tmp_path, capsys):
    losses = {}
    for negatives in ("batch", "label"):
        flags = ("--beta", "0", "--tau-plus", "0", "--negatives", negatives)
        result = train(tiny_folder, tmp_path / negatives, *flags)
        losses[negatives] = metrics_of(tmp_path / negatives)[1]["loss"]
    assert result["objective"]["label"] == "simclr, true negatives"
    assert losses["label"] < losses["batch"] - 0.1  # a third of the negatives is left out
    error = failure(capsys, "--negatives", "label", "--tile-size", "8")
    assert "--tile-size is 8; --negatives label is not supported in tiles" in error


def test_true_positives_of_unlabelled_images_are_refused(tiny_folder, tmp_path, capsys, monkeypatch):
    def without_labels(*arguments):
        dataset = load_dataset(*arguments)
        dataset.train.labels[0] = -1
        return dataset

    monkeypatch.setattr(image.data, "load_dataset", without_labels)
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "run")]
    for setting in ("positives", "negatives"):
        assert f"--{setting} label needs labels" in failure(capsys, *flags, f"--{setting}", "label")


def test_run_with_imagenets_stem_is_evaluated_again(tiny_folder, tmp_path, capsys):
    flags = ["--epochs", "1", "--batch-size", "16", "--arch", "resnet10", "--width", "4", "--device", "cpu"]
    flags += [
        "--dataset",
        f"folder:{tiny_folder}",
        "--view-size",
        "72",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    train_main(flags)
    assert load_file(tmp_path / "run" / "encoder.safetensors")["encoder.conv1.weight"].shape[-1] == 7
    assert evaluated(capsys, tmp_path / "run") == as_printed(result_of(tmp_path / "run")["metrics"])


def test_dropped_images_are_named(tiny_folder, tmp_path, capsys):
    """16 divides the number of training images, 20 does not."""
    train(tiny_folder, tmp_path / "even", "--epochs", "1")
    assert "are dropped" not in capsys.readouterr().err
    train(tiny_folder, tmp_path / "uneven", "--epochs", "1", "--batch-size", "20")
    assert "each time): they do not fill a batch of 20" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.distributed
def test_error_of_the_first_process_gives_the_other_no_traceback(tiny_folder, tmp_path):
    (tmp_path / "mine.txt").write_text("not a run")
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*torchrun, "-m", "image.train", *FAST, *where], capture_output=True, text=True)
    assert f"error: {tmp_path} holds files that are not a run's" in ended.stderr
    assert not [line for line in ended.stderr.splitlines() if line.startswith("[rank")]


@pytest.mark.slow
@pytest.mark.distributed
def test_torchrun_on_two_machines_trains_one_run(tiny_folder, tmp_path):
    """Two agents of torchrun join at one address, as on two machines, each with one process."""
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "two")]
    flags = [*FAST, "--epochs", "1", "--norm", "group", "--cache-chunk", "3"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    command = [*agent, "-m", "image.train", *flags, *where]
    agents = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        # An agent may wait five minutes for one that has left before it; the first to leave has seen all end.
        while not (ended := [agent for agent in agents if agent.poll() is not None]):
            time.sleep(0.1)
        assert ended[0].returncode == 0, ended[0].communicate()[1]
    finally:
        for process in agents:
            process.kill()
    assert result_of(tmp_path / "two")["environment"]["processes"] == 2
    assert [line["epoch"] for line in metrics_of(tmp_path / "two")] == [0, 1]
