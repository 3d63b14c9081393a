"""Training that starts from the weights of others: torchvision's and timm's files."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from core.io.digests import file_checksum
from image.encoder import make_encoder
from image.loading import load_encoder
from image.train import main as train_main
from tests.runs import counted_steps, failure_of, result_of

# A step is too small to change the weights visibly.
FLAGS = ["--epochs", "1", "--batch-size", "16", "--arch", "resnet18", "--stem", "imagenet"]
FLAGS += ["--view-size", "32", "--image-size", "32", "--lr", "1e-12", "--device", "cpu"]
FLAGS += ["--precision", "float32"]


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return torchvision.models.resnet18()


@pytest.fixture
def checkpoint(theirs, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    return path


def flags_for(tiny_folder, tmp_path, init, *flags):
    folder = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "run")]
    return [*FLAGS, *folder, "--init", str(init), *flags]


def test_run_starts_from_torchvisions_weights_and_names_the_file(
    tiny_folder, tmp_path, theirs, checkpoint, capsys
):
    train_main(flags_for(tiny_folder, tmp_path, checkpoint))
    assert f"{checkpoint}: the classifier is left out (fc.bias, fc.weight)" in capsys.readouterr().out
    digest = file_checksum(checkpoint)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["init"], config["init_sha256"]) == (str(checkpoint), digest)
    init = result_of(tmp_path / "run")["init"]
    assert init == {"file": str(checkpoint), "sha256": digest, "left_out": ["fc.bias", "fc.weight"]}
    own, expected = load_encoder(tmp_path / "run").state_dict(), theirs.state_dict()
    for name in ("conv1.weight", "layer4.1.bn2.weight", "layer2.0.downsample.0.weight"):
        torch.testing.assert_close(own[name], expected[name])


def test_finished_run_is_known_without_the_file_and_refuses_another(
    tiny_folder, tmp_path, theirs, checkpoint, capsys
):
    flags = flags_for(tiny_folder, tmp_path, checkpoint)
    train_main(flags)
    content = checkpoint.read_bytes()
    checkpoint.unlink()
    with counted_steps() as steps:
        train_main(flags)
    assert steps.call_count == 0
    checkpoint.write_bytes(content[:-1] + b"\x01")
    assert "holds a run of other settings (init-sha256 " in failure_of(train_main, capsys, flags)[-1]


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state, "epoch": 3}])
def test_pickled_weights_are_read_without_running_code(tiny_folder, tmp_path, theirs, wrap):
    state = {f"module.{name}": value.half() for name, value in theirs.state_dict().items()}
    torch.save(wrap(state), tmp_path / "weights.pth")
    train_main(flags_for(tiny_folder, tmp_path, tmp_path / "weights.pth"))
    own = load_encoder(tmp_path / "run").state_dict()
    torch.testing.assert_close(own["conv1.weight"], theirs.conv1.weight.detach(), rtol=1e-3, atol=1e-3)


def test_weights_that_do_not_fit_are_one_line(tiny_folder, tmp_path, checkpoint, capsys):
    refuse = {
        ("--stem", "small"): "has stem imagenet, not small; set --stem imagenet",
        ("--arch", "resnet50"): "has arch resnet18, not resnet50; set --arch resnet18",
        ("--width", "32"): "has width 64, not 32; set --width 64",
        ("--norm", "group"): "has norm batch, not group; set --norm batch",
        ("--init-sha256", "0" * 64): f"whose SHA-256 is {file_checksum(checkpoint)}, not --init-sha256",
    }
    for flags, message in refuse.items():
        [line] = failure_of(train_main, capsys, flags_for(tiny_folder, tmp_path, checkpoint, *flags))
        assert line.startswith(f"error: --init is {checkpoint}, whose ")
        assert message in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "which cannot be read: No such file or directory"),
        ("model.onnx", b"x", "must be a run's folder, or a checkpoint in .safetensors, .pth, .pt"),
        ("a.safetensors", b"x", "which cannot be read as weights: "),
        ("a.pt", b"x", "which cannot be read as weights: "),
        ("b.pt", [1, 2], "which holds other things than tensors by name"),
        (
            "c.pt",
            torch.nn.Identity(),
            "which cannot be read as weights: it is damaged, or holds a whole model or other objects; save "
            "model.state_dict() instead\n",
        ),
        (
            "d.safetensors",
            {"conv1.weight": torch.tensor([0, np.nan])},
            "whose conv1.weight has values that are",
        ),
        ("e.pt", {"model": {"a": torch.tensor([-np.inf])}}, "whose a has values that are not finite\n"),
        (
            "graph.safetensors",
            {"mlps.0.0.weight": torch.zeros(2), "mlps.0.0.bias": torch.zeros(2)},
            "which does not hold the encoder resnet18: it lacks conv1.weight and 99 others; it has "
            "mlps.0.0.bias and 1 other",
        ),
    ],
)
def test_files_of_another_kind_are_one_line(tiny_folder, tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith(".safetensors"):
        safetensors.torch.save_file(content, path)
    elif content is not None:
        torch.save(content, path)
    [line] = failure_of(train_main, capsys, flags_for(tiny_folder, tmp_path, path))
    assert line.startswith(f"error: --init is {path}")
    assert message in f"{line}\n"


def test_digest_without_a_file_is_one_line(tiny_folder, tmp_path, capsys):
    flags = flags_for(tiny_folder, tmp_path, tmp_path, "--init-sha256", "0")
    del flags[flags.index("--init") : flags.index("--init") + 2]
    assert "--init-sha256 is of the file that --init names" in failure_of(train_main, capsys, flags)[-1]


def test_model_of_timm_starts_from_its_checkpoint(tiny_folder, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet")
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    flags = flags_for(tiny_folder, tmp_path, tmp_path / "model.safetensors", "--arch", "timm:test_resnet")
    del flags[flags.index("--stem") : flags.index("--stem") + 2]
    train_main(flags)
    own = load_encoder(tmp_path / "run").state_dict()
    torch.testing.assert_close(own["conv1.0.weight"], theirs.conv1[0].weight.detach())


def test_names_of_timms_resnet_are_ours():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    assert state.keys() == make_encoder("resnet18", stem="imagenet").state_dict().keys()
