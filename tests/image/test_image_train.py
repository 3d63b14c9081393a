"""Training, resuming and evaluating image runs, through the commands that users type."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import image.task
from core.training.checkpoints import Checkpoints
from core.training.cli import parse_config
from image.batches import ViewBatches
from image.config import ImageConfig, defaults_for
from image.data import load_dataset
from image.encoder import make_model
from image.evaluate import main as evaluate_main
from image.task import annealed
from image.train import main as train_main
from image.views import Views
from tests.processes import free_port
from tests.runs import as_command, failure_of, metrics_of

FAST = ["--epochs", "3", "--batch-size", "16", "--arch", "resnet10", "--width", "4", "--view-size", "16"]
FAST += ["--image-size", "16", "--device", "cpu", "--precision", "float32"]


def train(tiny_folder, folder, *flags):
    train_main([*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder), *flags])
    return json.loads((folder / "result.json").read_text())


def failure(capsys, *flags):
    """The one line that a command with bad input prints."""
    [line] = failure_of(train_main, capsys, flags)
    return line


def test_a_run_folder(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(tiny_folder, folder, "--objective", "hard", "--beta", "2", "--knn-every", "2")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoint",
        "config.json",
        "encoder.safetensors",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    kept = load_file(folder / "sample.safetensors")
    assert len(kept["representations"]) == len(kept["labels"]) > 0
    assert kept["positives"].abs().max() <= 1.001
    assert len(kept["negatives"]) > len(kept["positives"]) > 0
    assert result["modality"] == "image"
    assert result["objective"] == {
        "name": "hard",
        "beta": 2.0,
        "tau_plus": 0.1,
        "temperature": 0.5,
        "stop_gradient": False,
        "anneal_beta": "none",
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
    }
    assert result["untrained_metrics"].keys() == result["metrics"].keys()
    lines = metrics_of(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert ["knn_accuracy" in line for line in lines] == [True, False, True, False]
    assert ["linear_accuracy" in line for line in lines] == [True, False, False, False]
    assert "linear_accuracy" in capsys.readouterr().out


def test_evaluate_repeats_the_numbers(tiny_folder, tmp_path, capsys):
    result = train(tiny_folder, tmp_path / "run", "--seed", "1")
    capsys.readouterr()
    evaluate_main([str(tmp_path / "run"), "--device", "cpu"])
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert said == {name: f"{value:.4f}" for name, value in result["metrics"].items()}


def test_transfer_and_the_paper_s_protocol(tiny_folder, tmp_path, capsys):
    train(tiny_folder, tmp_path / "run")
    for flags in (["--dataset", "digits", "--epochs", "2"], ["--protocol", "paper", "--epochs", "2"]):
        capsys.readouterr()
        evaluate_main([str(tmp_path / "run"), "--device", "cpu", *flags])
        said = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert 0 <= float(said["linear_accuracy"]) <= float(said["linear_top5_accuracy"]) <= 1


@pytest.mark.parametrize("protocol", ["frozen", "paper"])
def test_evaluation_leaves_the_encoder_as_it_is(tiny_folder, tmp_path, protocol):
    """Batch norm's statistics, the mode, the gradients and the random states do not move."""
    from image.scoring import evaluate

    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    torch.manual_seed(0)
    model = make_model("resnet10", 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = torch.get_rng_state()
    evaluate(model, dataset, Views(16), 0, "float32", protocol, epochs=2)
    assert torch.equal(torch.get_rng_state(), expected)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


EVALUATED = 2  # views made before the first step, to score the untrained encoder
RESUMED = [(), ("--optimizer", "lars", "--schedule", "cosine", "--warmup", "1"), ("--positives", "label")]
RESUMED += [("--cache-chunk", "5")]


@pytest.mark.parametrize("flags", RESUMED)
@pytest.mark.parametrize("stopped_at", [2, 4, 7])
def test_a_resumed_run_ends_in_the_same_weights(tiny_folder, tmp_path, monkeypatch, flags, stopped_at):
    """Stopped at a step, of the first, second and third epoch: bit-identical to the end."""
    train(tiny_folder, tmp_path / "whole", *flags)
    taken = []
    views = Views.forward

    def stop(self, images, generator):
        taken.append(1)
        if len(taken) == EVALUATED + 2 * stopped_at:
            raise KeyboardInterrupt
        return views(self, images, generator)

    monkeypatch.setattr(Views, "forward", stop)
    with pytest.raises(SystemExit):
        train(tiny_folder, tmp_path / "stopped", "--checkpoint-seconds", "0", *flags)
    monkeypatch.setattr(Views, "forward", views)
    assert not (tmp_path / "stopped" / "result.json").exists()
    torch.rand(7)  # another process would have other random states
    train(tiny_folder, tmp_path / "stopped", "--resume", *flags)
    whole, stopped = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    assert [line.get("loss") for line in metrics_of(tmp_path / "whole")] == [
        line.get("loss") for line in metrics_of(tmp_path / "stopped")
    ]


def batches_of(tiny_folder, tmp_path, **settings):
    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    config = ImageConfig(dataset="tiny", beta=1.0, tau_plus=0.1, batch_size=16, view_size=16, **settings)
    return ViewBatches(dataset.train, Views(16), config), dataset


def test_batches_depend_on_seed_and_epoch_alone(tiny_folder, tmp_path):
    batches, _ = batches_of(tiny_folder, tmp_path)
    first = list(batches.epoch(1))
    second = list(batches.epoch(2))
    again = list(batches.epoch(1))
    assert len(first) == batches.steps == 3
    for pair, same, other in zip(first, again, second, strict=True):
        assert pair[0].shape == pair[1].shape == (16, 3, 16, 16)
        assert torch.equal(pair[0], same[0])
        assert torch.equal(pair[1], same[1])
        assert not torch.equal(pair[0], pair[1])
        assert not torch.equal(pair[0], other[0])
    other_seed, _ = batches_of(tiny_folder, tmp_path, seed=1)
    assert not torch.equal(next(other_seed.epoch(1))[0], first[0][0])


def test_true_positives_are_other_images_of_the_class(tiny_folder, tmp_path):
    batches, dataset = batches_of(tiny_folder, tmp_path, positives="label")
    labels = dataset.train.labels
    seen = torch.zeros(48, 48)
    for epoch in range(1, 101):
        order = torch.randperm(48)
        others = batches._others_of_class(order, epoch)
        assert torch.equal(labels[order], labels[others])
        assert (order != others).all()
        seen[order, others] += 1
    # Every other image of the class is drawn, about equally often: 100 / 15 times.
    of_class = seen[(labels[:, None] == labels) & ~torch.eye(48, dtype=torch.bool)]
    assert of_class.min() >= 0
    assert (of_class > 0).float().mean() > 0.99
    assert of_class.std() < 4
    for view1, view2 in batches.epoch(1):
        assert view1.shape == view2.shape == (16, 3, 16, 16)


def test_a_class_of_one_image_has_itself_as_positive(tiny_folder, tmp_path):
    batches, dataset = batches_of(tiny_folder, tmp_path, positives="label")
    dataset.train.labels[0] = 3
    batches = ViewBatches(dataset.train, Views(16), batches.config)
    order = torch.arange(48)
    others = batches._others_of_class(order, 1)
    assert others[0] == 0
    assert (others[1:] != order[1:]).all()


def test_beta_goes_down_in_nine_steps():
    betas = [annealed(2.0, "down", epoch, 400) for epoch in range(1, 401)]
    assert sorted(set(betas), reverse=True) == [2.0 - 0.25 * step for step in range(9)]
    assert betas[0] == 2.0
    assert betas[-1] == 0.0
    assert betas == sorted(betas, reverse=True)
    assert annealed(2.0, "none", 400, 400) == 2.0


def test_annealing_reaches_the_objective(tiny_folder, tmp_path):
    """At beta 0 from the start of the last epoch on: its loss is that of the debiased objective there."""
    constant = train(tiny_folder, tmp_path / "constant", "--beta", "4", "--lr", "1e-12")
    down = train(tiny_folder, tmp_path / "down", "--beta", "4", "--lr", "1e-12", "--anneal-beta", "down")
    debiased = train(tiny_folder, tmp_path / "debiased", "--objective", "debiased", "--lr", "1e-12")
    losses = {
        name: [line["loss"] for line in metrics_of(tmp_path / name)[1:]]
        for name in ("constant", "down", "debiased")
    }
    assert losses["down"][0] == pytest.approx(losses["constant"][0], abs=1e-5)
    assert losses["debiased"][2] < losses["down"][2] < losses["constant"][2]
    assert down["objective"]["anneal_beta"] == "down"
    assert constant["objective"]["beta"] == down["objective"]["beta"] == 4
    assert debiased["objective"]["beta"] == 0


def test_half_precision_keeps_the_loss(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "full", "--epochs", "1")
    train(tiny_folder, tmp_path / "half", "--epochs", "1", "--precision", "bfloat16")
    losses = [metrics_of(tmp_path / name)[1]["loss"] for name in ("full", "half")]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_chunks_of_a_batch_train_as_the_whole(tiny_folder, tmp_path, capsys):
    """Group norm treats images one by one; batch norm does not."""
    losses = {}
    for norm in ("group", "batch"):
        for name, flags in (("whole", ()), ("chunks", ("--cache-chunk", "5"))):
            folder = tmp_path / norm / name
            result = train(tiny_folder, folder, "--norm", norm, "--optimizer", "sgd", *flags)
            losses[norm, name] = [line["loss"] for line in metrics_of(folder)[1:]]
            capsys.readouterr()
            evaluate_main([str(folder), "--device", "cpu"])
            assert f"linear_accuracy {result['metrics']['linear_accuracy']:.4f}" in capsys.readouterr().out
    assert losses["group", "chunks"] == pytest.approx(losses["group", "whole"], rel=1e-5)
    assert abs(losses["batch", "chunks"][0] - losses["batch", "whole"][0]) > 1e-3
    whole, chunks = (
        load_file(tmp_path / "group" / name / "encoder.safetensors") for name in ("whole", "chunks")
    )
    assert not any("running" in name for name in whole)
    for name, weights in whole.items():
        torch.testing.assert_close(chunks[name], weights, rtol=1e-3, atol=1e-5)


def test_a_run_from_before_there_was_a_choice_of_norm(tiny_folder, tmp_path, capsys):
    result = train(tiny_folder, folder := tmp_path / "run")
    settings = json.loads((folder / "config.json").read_text())
    del settings["norm"], settings["cache_chunk"]
    (folder / "config.json").write_text(json.dumps(settings))
    capsys.readouterr()
    evaluate_main([str(folder), "--device", "cpu"])
    assert f"knn_accuracy {result['metrics']['knn_accuracy']:.4f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)  # the compiler's time: most of a minute, many on a busy machine
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compilation_keeps_the_loss(tiny_folder, tmp_path):
    result = {}
    for flags in ((), ("--compile",)):
        folder = tmp_path / f"run{len(flags)}"
        train(tiny_folder, folder, "--epochs", "1", *flags)
        result[flags] = metrics_of(folder)[1]["loss"]
    assert result["--compile",] == pytest.approx(result[()], rel=1e-4)
    assert load_file(tmp_path / "run1" / "encoder.safetensors").keys() == (
        load_file(tmp_path / "run0" / "encoder.safetensors").keys()
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "cifar11"], "did you mean cifar10?"),
        (
            ["--dataset", "stl10", "--data-root", "nowhere"],
            "nowhere/stl10_binary does not exist, nor do",
        ),
        (["--arch", "resnet99"], "invalid choice 'resnet99'"),
        (["--batch-size", "1"], "--batch-size is 1; at least 2 images"),
        (["--batch-size", "5000"], "--batch-size is 5000; shapes has 4000 training images"),
        (["--view-size", "64"], "--view-size is 64; the images of shapes are 32 pixels wide"),
        (["--view-size", "4"], "--view-size is 4; it must be at least 8"),
        (["--temperature", "0"], "--temperature is 0.0; it must be above 0"),
        (["--crop-scale", "0"], "--crop-scale is 0.0"),
        (["--weight-decay", "-1"], "--weight-decay is -1.0"),
        (["--warmup", "-1"], "--warmup is -1"),
        (["--tile-size", "0"], "--tile-size is 0"),
        (["--cache-chunk", "0", "--norm", "group"], "--cache-chunk is 0; it must be at least 1"),
        (["--cache-chunk", "1"], "--cache-chunk is 1; batch norm needs at least 2 images"),
        (["--norm", "layer"], "invalid choice 'layer'"),
        (["--objective", "simclr", "--beta", "1"], "--objective simclr has beta 0"),
        (["--objective", "infograph"], "invalid choice 'infograph'"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    assert said in failure(capsys, *flags)
    assert not list(tmp_path.rglob("result.json"))


def test_true_positives_need_labels(tiny_folder, tmp_path, capsys, monkeypatch):
    def without_labels(*arguments):
        dataset = load_dataset(*arguments)
        dataset.train.labels[0] = -1
        return dataset

    monkeypatch.setattr(image.task, "load_dataset", without_labels)
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "run")]
    assert "--positives label needs labels" in failure(capsys, *flags, "--positives", "label")


def test_images_that_fill_no_batch_are_named(tiny_folder, tmp_path, capsys):
    """Of tiny_folder's training images, whose number 16 divides and 20 does not."""
    train(tiny_folder, tmp_path / "even", "--epochs", "1")
    assert "dropped" not in capsys.readouterr().err
    train(tiny_folder, tmp_path / "uneven", "--epochs", "1", "--batch-size", "20")
    assert (
        "images are dropped in each epoch (others each time): they do not fill a batch of 20"
        in capsys.readouterr().err
    )


def test_an_encoder_of_another_architecture(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_folder, folder)
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)]
    said = failure(capsys, *FAST, *where, "--width", "8", "--norm", "group")
    assert 'holds a run of other settings (width 4 there, 8 now; norm "batch" there, "group" now)' in said
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"arch": "resnet18"}))
    with pytest.raises(SystemExit) as exit_:
        evaluate_main([str(folder), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "encoder.safetensors does not hold this encoder" in capsys.readouterr().err


def test_a_loss_that_is_no_number(tiny_folder, tmp_path, capsys, monkeypatch):
    """The last good checkpoint is kept."""
    views = Views.forward
    taken = []

    def broken_later(self, images, generator):
        taken.append(1)
        return views(self, images, generator) * (float("nan") if len(taken) > EVALUATED + 2 * 4 else 1.0)

    monkeypatch.setattr(Views, "forward", broken_later)
    with pytest.raises(SystemExit) as exit_:
        train(tiny_folder, tmp_path / "run", "--checkpoint-seconds", "0")
    assert exit_.value.code == 1
    said = capsys.readouterr().err
    assert "the loss became nan in epoch 2, step 2" in said
    assert "try a smaller --lr than 0.001" in said
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert (state["progress"]["epoch"], len(state["progress"]["step_statistics"])) == (2, 1)
    assert all(value.isfinite().all() for value in state["model"].values())


def test_as_a_command_without_a_traceback(capsys):
    [line] = failure_of(as_command("image.train"), capsys, ["--dataset", "cifar11"])
    assert line.startswith("error: --dataset is 'cifar11', which is unknown")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_machines_train_as_one(tiny_folder, tmp_path):
    """Two agents of torchrun that meet at an address, as on two machines, with one process each."""
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "two")]
    flags = [*FAST, "--epochs", "1", "--norm", "group", "--cache-chunk", "3"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    command = [*agent, "-m", "image.train", *flags, *where]
    agents = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in agents:
            _, said = process.communicate(timeout=240)
            assert process.returncode == 0, said
    finally:
        for process in agents:
            process.kill()
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["environment"]["processes"] == 2
    assert [line["epoch"] for line in metrics_of(tmp_path / "two")] == [0, 1]


def test_a_dataset_s_name_brings_the_paper_s_settings():
    config = parse_config(ImageConfig, defaults_for, ["--dataset", "cifar10"], "test")
    paper = {
        "arch": "resnet50",
        "width": 64,
        "batch_size": 256,
        "epochs": 400,
        "lr": 1e-3,
        "weight_decay": 1e-6,
    }
    paper |= {"temperature": 0.5, "tau_plus": 0.1, "beta": 1.0, "optimizer": "adam", "crop_scale": 0.08}
    assert {name: getattr(config, name) for name in paper} == paper
    config = parse_config(
        ImageConfig, defaults_for, ["--dataset", "cifar10", "--objective", "simclr", "--lr", "0.5"], "test"
    )
    assert (config.beta, config.tau_plus, config.lr) == (0, 0, 0.5)
    annealing = ["--anneal-beta", "down", "--positives", "label", "--stop-gradient"]
    config = parse_config(ImageConfig, defaults_for, annealing, "test")
    assert config.objective_slug() == "hard-beta1-tau0.1-annealed-stopgradient-truepositives"
