"""Encoders of timm: trained, evaluated, resumed, loaded and embedded like the project's own."""

import numpy as np
import pytest
import torch

import image.config
from core.training.cli import parse_config
from image.config import RESNETS, ImageConfig, defaults_for
from image.embed import main as embed_main
from image.encoder import ARCHITECTURES, make_encoder
from image.evaluate import main as evaluate_main
from image.loading import load_encoder
from image.train import main as train_main
from tests.runs import as_printed, counted_steps, failure_of, printed_scores, result_of

FLAGS = ["--epochs", "2", "--batch-size", "16", "--view-size", "32", "--image-size", "48"]
FLAGS += ["--device", "cpu", "--precision", "float32"]


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is not installed")


def train(tiny_folder, folder, name, *flags):
    dataset = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)]
    train_main([*FLAGS, *dataset, "--arch", f"timm:{name}", *flags])
    return result_of(folder)


def failure(capsys, tmp_path, *flags):
    return failure_of(train_main, capsys, ["--output-dir", str(tmp_path / "refused"), *flags])[-1]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_model_of_timm_is_trained_evaluated_resumed_loaded_and_embedded(
    timm, tiny_folder, tmp_path, monkeypatch, capsys, name
):
    run = tmp_path / "run"
    result = train(tiny_folder, run, name)
    scores = printed_scores(evaluate_main, capsys, [run, "--device", "cpu"])
    assert scores == as_printed(result["metrics"])

    encoder = load_encoder(run)
    assert not encoder.training
    theirs = timm.create_model(name, num_classes=0, **({"img_size": 32} if name == "test_vit" else {}))
    theirs.load_state_dict(encoder.state_dict())
    images = encoder.transform(torch.rand(3, 3, 32, 32))
    assert images.shape == (3, 3, 48, 48)
    images = images[..., :32, :32]
    torch.testing.assert_close(encoder(images), theirs.eval()(images))
    assert encoder(images).shape == (3, encoder.dim)

    embed_main([str(run), f"folder:{tiny_folder}", "--output", str(tmp_path / "x.npz"), "--device", "cpu"])
    assert np.load(tmp_path / "x.npz")["embedding"].shape == (60, encoder.dim)

    (run / "result.json").unlink()
    with counted_steps() as steps:  # all are in the checkpoint
        again = train(tiny_folder, run, name, "--resume")
    assert steps.call_count == 0
    assert again["metrics"] == result["metrics"]


def test_run_of_timm_starts_another(timm, tiny_folder, tmp_path):
    first = train(tiny_folder, tmp_path / "first", "test_resnet")
    second = train(tiny_folder, tmp_path / "second", "test_resnet", "--init", str(tmp_path / "first"))
    assert second["untrained_metrics"] == first["metrics"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--arch timm:test_resnt", "does not have; did you mean test_resnet?"),
        ("--arch timm:hf-hub:someone/model", "does not have"),
        (
            "--arch timm:levit_128s --image-size 64",
            "--arch is timm:levit_128s, which does not take images of 64 x 64 pixels (",
        ),
    ],
)
def test_what_timm_cannot_make_is_one_line(timm, tmp_path, capsys, flags, message):
    assert message in failure(capsys, tmp_path, "--dataset", "digits", "--device", "cpu", *flags.split())


def test_batch_norm_of_its_own_kind_is_refused_in_several_processes(timm, monkeypatch):
    from core.io.errors import InputError
    from image.timm_models import check_timm_encoder

    encoder = make_encoder("timm:mobilenetv3_small_050")
    check_timm_encoder(encoder, "timm:mobilenetv3_small_050", [32, 48])
    assert encoder.training
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="whose BatchNormAct2d is not supported in several processes"):
        check_timm_encoder(encoder, "timm:mobilenetv3_small_050", [32])


def test_missing_timm_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(image.config, "find_spec", lambda name: None)
    line = failure(capsys, tmp_path, "--arch", "timm:resnet18")
    assert line == "error: --arch is timm:resnet18, which needs timm: pip install timm"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--arch resnet19", "is 'resnet19', which is unknown; did you mean resnet18? Known: resnet10, "),
        ("--arch timm:resnet18 --width 32", "--width is 32, but --arch timm:resnet18 has its own"),
        ("--arch timm:resnet18 --norm group", "--norm is group, but --arch timm:resnet18 has its own"),
        ("--arch timm:resnet18 --stem imagenet", "--stem is imagenet, but --arch timm:resnet18 has"),
    ],
)
def test_settings_that_do_not_fit_the_encoder_are_one_line(tmp_path, capsys, flags, message):
    assert message in failure(capsys, tmp_path, *flags.split())


def test_defaults_of_a_dataset_fit_every_encoder():
    for dataset in ("shapes", "cifar10"):
        config = defaults_for(dataset=dataset, view_size=128)
        flags = ["--dataset", dataset, "--arch", "timm:resnet18", "--view-size", "128"]
        assert config.stem == "imagenet"
        assert ImageConfig.checked(parse_config_without_timm(flags)).arch == "timm:resnet18"
    assert set(RESNETS) == ARCHITECTURES.keys()


def parse_config_without_timm(flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image.config, "find_spec", lambda name: True)
        return parse_config(ImageConfig, defaults_for, flags, "python -m image.train")
