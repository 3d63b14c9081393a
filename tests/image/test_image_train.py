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
from core.training.seeding import epoch_order
from image.batches import ViewBatches
from image.config import ImageConfig, defaults_for
from image.data import load_dataset
from image.encoder import make_model
from image.evaluate import main as evaluate_main
from image.scoring import evaluate
from image.task import annealed
from image.train import main as train_main
from image.views import Views
from tests.processes import free_port
from tests.runs import (
    as_command,
    as_printed,
    counted_steps,
    epochs_and_losses,
    failure_of,
    losses_of,
    metrics_of,
    printed_scores,
    result_of,
)

FAST = ["--epochs", "3", "--batch-size", "16", "--arch", "resnet10", "--width", "4", "--view-size", "16"]
FAST += ["--image-size", "16", "--device", "cpu", "--precision", "float32"]


def train(tiny_folder, folder, *flags):
    train_main([*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder), *flags])
    return result_of(folder)


def failure(capsys, *flags):
    """The one line that a command with bad input prints."""
    [line] = failure_of(train_main, capsys, flags)
    return line


def evaluated(capsys, folder, *flags):
    """The scores that the evaluation command prints for a run, by name, as text."""
    return printed_scores(evaluate_main, capsys, [folder, "--device", "cpu", *flags])


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
    evaluate(model, dataset, Views(16), 0, "float32", protocol, epochs=2)
    assert torch.equal(torch.get_rng_state(), expected)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


VIEWS_BEFORE = 2  # made before the first step, to score the untrained encoder


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--optimizer", "lars", "--schedule", "cosine", "--warmup", "1"),
        ("--positives", "label"),
        ("--cache-chunk", "5"),
    ],
    ids=["adam", "lars", "true positives", "chunks"],
)
@pytest.mark.parametrize("step", [2, 4, 7])
def test_resumed_run_has_the_same_weights(tiny_folder, tmp_path, monkeypatch, flags, step):
    """Interrupted at a step of the first, second or third epoch: bit-identical at the end."""
    expected, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(tiny_folder, expected, *flags)
    made_views, forward = [], Views.forward

    def interrupt(views, images, generator):
        made_views.append(views)
        if len(made_views) == VIEWS_BEFORE + 2 * step:
            raise KeyboardInterrupt
        return forward(views, images, generator)

    monkeypatch.setattr(Views, "forward", interrupt)
    with pytest.raises(SystemExit):
        train(tiny_folder, resumed, "--checkpoint-seconds", "0", *flags)
    monkeypatch.setattr(Views, "forward", forward)
    assert not (resumed / "result.json").exists()
    torch.rand(7)  # a new process has other random states
    with counted_steps() as steps:
        train(tiny_folder, resumed, "--resume", *flags)
    assert steps.call_count == 9 - (step - 1)  # no step is repeated
    encoders = [(folder / "encoder.safetensors").read_bytes() for folder in (expected, resumed)]
    assert encoders[0] == encoders[1]
    assert epochs_and_losses(resumed) == epochs_and_losses(expected)


def make_batches(tiny_folder, tmp_path, **settings):
    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    config = ImageConfig(dataset="tiny", beta=1.0, tau_plus=0.1, batch_size=16, view_size=16, **settings)
    return ViewBatches(dataset.train, Views(16), config), dataset


def test_batches_depend_only_on_seed_and_epoch(tiny_folder, tmp_path):
    batches, _ = make_batches(tiny_folder, tmp_path)
    first = list(batches.epoch(1))
    second = list(batches.epoch(2))
    again = list(batches.epoch(1))
    assert len(first) == batches.steps == 3
    for (view1, view2), same, other in zip(first, again, second, strict=True):
        assert view1.shape == view2.shape == (16, 3, 16, 16)
        assert torch.equal(view1, same[0])
        assert torch.equal(view2, same[1])
        assert not torch.equal(view1, view2)
        assert not torch.equal(view1, other[0])
    other_seed, _ = make_batches(tiny_folder, tmp_path, seed=1)
    assert not torch.equal(next(other_seed.epoch(1))[0], first[0][0])


def test_true_positives_are_uniform_over_other_images_of_the_class(tiny_folder, tmp_path):
    batches, dataset = make_batches(tiny_folder, tmp_path, positives="label")
    labels = dataset.train.labels
    counts = torch.zeros(48, 48)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(1, 101):
        order = torch.randperm(48, generator=generator)
        others = batches._others_of_class(order, epoch)
        assert torch.equal(labels[order], labels[others])
        assert (order != others).all()
        counts[order, others] += 1
    # Every other image of the class is drawn, about equally often: 100 / 15 times.
    same_class = counts[(labels[:, None] == labels) & ~torch.eye(48, dtype=torch.bool)]
    assert same_class.min() >= 0
    assert (same_class > 0).float().mean() > 0.99
    assert same_class.std() < 4
    for view1, view2 in batches.epoch(1):
        assert view1.shape == view2.shape == (16, 3, 16, 16)


def test_true_positive_in_a_class_of_one_image_is_the_image_itself(tiny_folder, tmp_path):
    batches, dataset = make_batches(tiny_folder, tmp_path, positives="label")
    dataset.train.labels[0] = 3
    batches = ViewBatches(dataset.train, Views(16), batches.config)
    order = torch.arange(48)
    others = batches._others_of_class(order, 1)
    assert others[0] == 0
    assert (others[1:] != order[1:]).all()


def test_annealed_beta_falls_to_0_in_nine_steps():
    betas = [annealed(2.0, "down", epoch, 400) for epoch in range(1, 401)]
    assert sorted(set(betas), reverse=True) == [2.0 - 0.25 * step for step in range(9)]
    assert betas[0] == 2.0
    assert betas[-1] == 0.0
    assert betas == sorted(betas, reverse=True)
    assert annealed(2.0, "none", 400, 400) == 2.0


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


def test_bfloat16_has_nearly_the_same_loss(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "float32", "--epochs", "1")
    train(tiny_folder, tmp_path / "bfloat16", "--epochs", "1", "--precision", "bfloat16")
    assert losses_of(tmp_path / "bfloat16") == pytest.approx(losses_of(tmp_path / "float32"), abs=0.05)


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset cifar11", "did you mean cifar10?"),
        ("--dataset stl10 --no-download --data-root nowhere", "nowhere/stl10_binary does not exist, nor do"),
        ("--arch resnet99", "invalid choice 'resnet99'"),
        ("--batch-size 1", "--batch-size is 1; at least 2 images"),
        ("--batch-size 5000", "--batch-size is 5000; shapes has 4000 training images"),
        ("--view-size 64", "--view-size is 64; the images of shapes are 32 pixels wide"),
        ("--view-size 4", "--view-size is 4; it must be at least 8"),
        ("--temperature 0", "--temperature is 0.0; it must be above 0"),
        ("--crop-scale 0", "--crop-scale is 0.0"),
        ("--weight-decay -1", "--weight-decay is -1.0"),
        ("--warmup -1", "--warmup is -1"),
        ("--tile-size 0", "--tile-size is 0"),
        ("--cache-chunk 0 --norm group", "--cache-chunk is 0; it must be at least 1"),
        ("--cache-chunk 1", "--cache-chunk is 1; batch norm needs at least 2 images"),
        ("--norm layer", "invalid choice 'layer'"),
        ("--objective simclr --beta 1", "--objective simclr has beta 0"),
        ("--objective infograph", "invalid choice 'infograph'"),
        ("--seeds 0-3", "image training does not support --seeds and --betas: a process trains one run"),
        ("--betas=0,1", "image training does not support --seeds and --betas: a process trains one run"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, *flags.split())
    assert not list(tmp_path.rglob("result.json"))


def test_labels_of_true_negatives_are_those_of_the_views(tiny_folder, tmp_path):
    """The views are those of the same epoch without labels."""
    batches, dataset = make_batches(tiny_folder, tmp_path, negatives="label")
    plain, _ = make_batches(tiny_folder, tmp_path)
    order = epoch_order(48, batches.config.seed, 3)
    labels = []
    for (view1, view2, own), expected in zip(batches.epoch(3), plain.epoch(3), strict=True):
        assert torch.equal(view1, expected[0])
        assert torch.equal(view2, expected[1])
        labels.append(own)
    assert torch.equal(torch.cat(labels), dataset.train.labels[order])


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

    monkeypatch.setattr(image.task, "load_dataset", without_labels)
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "run")]
    for setting in ("positives", "negatives"):
        assert f"--{setting} label needs labels" in failure(capsys, *flags, f"--{setting}", "label")


def test_run_starts_from_the_weights_of_another(tiny_folder, tmp_path, capsys):
    first = train(tiny_folder, tmp_path / "first")
    result = train(tiny_folder, tmp_path / "second", "--init", str(tmp_path / "first"), "--lr", "1e-12")
    assert result["untrained_metrics"] == first["metrics"]
    before, after = (load_file(tmp_path / name / "encoder.safetensors") for name in ("first", "second"))
    torch.testing.assert_close(after["encoder.conv1.weight"], before["encoder.conv1.weight"])
    assert not torch.equal(after["encoder.bn1.running_mean"], before["encoder.bn1.running_mean"])
    assert losses_of(tmp_path / "second")[0] < losses_of(tmp_path / "first")[0]


def test_run_that_another_cannot_start_from_is_one_line(tiny_folder, tmp_path, capsys):
    train(tiny_folder, tmp_path / "first")
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "second"), "--init"]
    assert failure(capsys, *flags, str(tmp_path / "first"), "--width", "8", "--norm", "group") == (
        f"error: --init is {tmp_path / 'first'}, whose encoder has width 4, not 8 and norm batch, not group"
    )
    assert "nowhere is not a run folder" in failure(capsys, *flags, "nowhere")
    (tmp_path / "first" / "result.json").unlink()
    assert "first, which is not finished; resume it with --resume" in failure(
        capsys, *flags, str(tmp_path / "first")
    )
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("flags", "stem", "image_size"),
    [
        (["--view-size", "80"], "imagenet", 80),
        (["--view-size", "80", "--image-size", "96"], "imagenet", 96),
        (["--view-size", "80", "--stem", "small"], "small", 80),
        (["--view-size", "64"], "small", None),
        (["--dataset", "stl10", "--view-size=96"], "imagenet", None),
    ],
)
def test_views_above_64_pixels_bring_imagenets_stem(flags, stem, image_size):
    config = parse_config(ImageConfig, defaults_for, ["--dataset", "folder:x", *flags], "image.train")
    assert (config.stem, config.image_size) == (stem, image_size)


@pytest.mark.parametrize("size", ["eighty", "99999999999", "-3", "2000"])
def test_view_size_that_cannot_be_one_is_one_line(capsys, size):
    assert "view-size" in failure(capsys, f"--view-size={size}")


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
    assert "dropped" not in capsys.readouterr().err
    train(tiny_folder, tmp_path / "uneven", "--epochs", "1", "--batch-size", "20")
    assert (
        "images are dropped in each epoch (others each time): they do not fill a batch of 20"
        in capsys.readouterr().err
    )


def test_encoder_of_another_architecture_is_refused(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_folder, folder)
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)]
    message = failure(capsys, *FAST, *where, "--width", "8", "--norm", "group")
    assert 'holds a run of other settings (width 4 there, 8 now; norm "batch" there, "group" now)' in message
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"arch": "resnet18"}))
    with pytest.raises(SystemExit) as exit_:
        evaluate_main([str(folder), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "encoder.safetensors does not hold this encoder" in capsys.readouterr().err


def test_non_finite_loss_keeps_the_last_good_checkpoint(tiny_folder, tmp_path, capsys, monkeypatch):
    made_views, forward = [], Views.forward

    def nan_from_step_5(views, images, generator):
        made_views.append(views)
        return forward(views, images, generator) * (float("nan") if len(made_views) > VIEWS_BEFORE + 8 else 1)

    monkeypatch.setattr(Views, "forward", nan_from_step_5)
    with pytest.raises(SystemExit) as exit_:
        train(tiny_folder, tmp_path / "run", "--checkpoint-seconds", "0")
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert "the loss became nan in epoch 2, step 2" in message
    assert "try a smaller --lr than 0.001" in message
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert (state["progress"]["epoch"], len(state["progress"]["step_statistics"])) == (2, 1)
    assert all(value.isfinite().all() for value in state["model"].values())


def test_command_line_reports_bad_input_without_a_traceback(capsys):
    [line] = failure_of(as_command("image.train"), capsys, ["--dataset", "cifar11"])
    assert line.startswith("error: --dataset is 'cifar11', which is unknown")


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
        errors = [process.communicate(timeout=240)[1] for process in agents]
        assert [process.returncode for process in agents] == [0, 0], "\n\n".join(errors)
    finally:
        for process in agents:
            process.kill()
    assert result_of(tmp_path / "two")["environment"]["processes"] == 2
    assert [line["epoch"] for line in metrics_of(tmp_path / "two")] == [0, 1]


def parsed(*flags):
    return parse_config(ImageConfig, defaults_for, flags, "test")


def test_dataset_name_brings_the_papers_settings():
    config = parsed("--dataset", "cifar10")
    paper = {"arch": "resnet50", "width": 64, "batch_size": 256, "epochs": 400}
    paper |= {"optimizer": "adam", "lr": 1e-3, "weight_decay": 1e-6, "crop_scale": 0.08}
    paper |= {"temperature": 0.5, "tau_plus": 0.1, "beta": 1.0}
    assert {name: getattr(config, name) for name in paper} == paper
    config = parsed("--dataset", "cifar10", "--objective", "simclr", "--lr", "0.5")
    assert (config.beta, config.tau_plus, config.lr) == (0, 0, 0.5)


def test_slug_names_changed_options():
    config = parsed("--anneal-beta", "down", "--positives", "label", "--stop-gradient")
    assert config.objective_slug() == "hard-beta1-tau0.1-annealed-stopgradient-truepositives"
