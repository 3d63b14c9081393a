"""Settings of image runs: defaults, names, and bad input."""

import pytest

from core.training.cli import parse_config
from core.training.settings import load_config
from image.config import ImageConfig, defaults_for
from image.task import annealed
from tests.image.commands import failure
from tests.runs import (
    as_command,
    failure_of,
)


def test_what_only_hardness_has_is_compared_with_the_plain_objective():
    config = parsed("--anneal-beta", "down", "--positives", "label", "--stop-gradient", "--tau-plus", "0")
    assert config.objective_family() == "annealed, weights constant, true positives"
    assert config.objective_family(plain=True) == "true positives"


def test_beta_that_is_0_cannot_be_annealed(capsys):
    message = failure(capsys, "--objective", "simclr", "--anneal-beta", "down")
    assert message == "error: --anneal-beta is down, but --beta is 0 from the start"


def test_annealed_beta_falls_to_0_in_nine_steps():
    betas = [annealed(2.0, "down", epoch, 400) for epoch in range(1, 401)]
    assert sorted(set(betas), reverse=True) == [2.0 - 0.25 * step for step in range(9)]
    assert betas[0] == 2.0
    assert betas[-1] == 0.0
    assert betas == sorted(betas, reverse=True)
    assert annealed(2.0, "none", 400, 400) == 2.0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset cifar11", "did you mean cifar10?"),
        ("--dataset stl10 --no-download --data-root nowhere", "nowhere/stl10_binary does not exist, nor do"),
        ("--arch resnet99", "--arch is 'resnet99', which is unknown"),
        ("--batch-size 1", "--batch-size is 1; at least 2 images"),
        ("--batch-size 5000", "--batch-size is 5000; it must be at most 4000, the training images of shapes"),
        ("--view-size 64", "--view-size is 64; the images of shapes are 32 pixels wide"),
        ("--view-size 4", "--view-size is 4; it must be at least 8"),
        ("--temperature 0", "--temperature is 0.0; it must be above 0"),
        ("--crop-scale 0", "--crop-scale is 0.0"),
        ("--weight-decay -1", "--weight-decay is -1.0"),
        ("--warmup -1", "--warmup is -1"),
        ("--warmup 30 --epochs 1", "--warmup is 30, which never ends; it must be below --epochs 1"),
        ("--warmup 2 --epochs 2", "--warmup is 2, which never ends"),
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


def test_command_line_reports_bad_input_without_a_traceback(capsys):
    [line] = failure_of(as_command("image.train"), capsys, ["--dataset", "cifar11"])
    assert line.startswith("error: --dataset is 'cifar11', which is unknown")


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


def test_temperature_sets_an_objective_apart():
    config = parsed("--objective", "simclr", "--temperature", "0.1")
    assert config.objective_slug() == "simclr-temperature0.1"
    assert config.objective_label() == "simclr, temperature 0.1"
    assert config.objective_family() == config.objective_family(plain=True) == "temperature 0.1"


def test_slug_names_changed_options():
    config = parsed("--anneal-beta", "down", "--positives", "label", "--stop-gradient")
    assert config.objective_slug() == "hard-beta1-tau0.1-annealed-stopgradient-truepositives"


@pytest.mark.parametrize("settings", [{"warmup": 30, "epochs": 1}, {"beta": 0.0, "anneal_beta": "down"}])
def test_run_that_was_recorded_with_a_setting_without_effect_is_loaded(tmp_path, settings):
    config = ImageConfig(**({"beta": 1.0, "tau_plus": 0.1} | settings))
    (tmp_path / "config.json").write_text(config.as_text())
    loaded = load_config(tmp_path, ImageConfig)
    assert {name: getattr(loaded, name) for name in settings} == settings


def test_help_says_whose_defaults_it_shows(capsys):
    for flags, dataset in (([], "shapes"), (["--dataset", "cifar10"], "cifar10")):
        with pytest.raises(SystemExit):
            parse_config(ImageConfig, defaults_for, [*flags, "--help"], "train")
        text = " ".join(capsys.readouterr().out.split())
        assert f"Defaults are those of --dataset {dataset}; give --dataset NAME before --help" in text
