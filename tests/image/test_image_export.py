"""Encoders of runs in files for other programs."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from PIL import Image

import image.export
import image.exporting
from image.export import main as export_main
from image.loading import load_encoder
from image.train import main as train_main
from tests.runs import failure_of

FLAGS = ["--epochs", "1", "--batch-size", "16", "--image-size", "32", "--view-size", "32"]
FLAGS += ["--device", "cpu", "--precision", "float32"]
needs_onnx = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")), reason="onnx or onnxruntime is not installed"
)


@pytest.fixture
def make_run(tiny_folder, tmp_path):
    def make(*flags):
        folder = tmp_path / "run"
        train_main([*FLAGS, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder), *flags])
        return folder

    return make


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_torchvision_loads_the_file_by_the_lines_that_are_printed(make_run, tmp_path, capsys, stem):
    run = make_run("--arch", "resnet18", "--stem", stem)
    capsys.readouterr()
    export_main([str(run), "--to", "torchvision", "--output", str(tmp_path / "new/x.safetensors")])
    code = capsys.readouterr().out
    assert code.count("\n") == {"small": 12, "imagenet": 10}[stem]
    names = {"torch": torch, "torchvision": torchvision, "safetensors": safetensors}
    exec(code, names)
    encoder = load_encoder(run)
    size = encoder.transform.size
    images = torch.randint(256, (3, size, size + 4, 3), dtype=torch.uint8)
    pictures = [Image.fromarray(image.numpy()) for image in images]
    theirs = names["model"](torch.stack([names["transform"](picture) for picture in pictures]))
    ours = encoder(torch.stack([encoder.transform(picture) for picture in pictures]))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    with safetensors.safe_open(tmp_path / "new/x.safetensors", "pt") as file:
        mean = json.loads(file.metadata()["mean"])
    assert mean == pytest.approx(encoder.transform.normalise.mean.flatten().tolist())


@needs_onnx
@pytest.mark.parametrize("arch", ["resnet10", "timm:test_vit"])
def test_onnx_graph_takes_batches_of_any_size(make_run, tmp_path, capsys, arch):
    import onnxruntime

    if arch.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed")
    run = make_run("--arch", arch)
    capsys.readouterr()
    export_main([str(run), "--to", "onnx", "--output", str(tmp_path / "x.onnx")])
    encoder = load_encoder(run)
    said = f"x.onnx: images [batch, 3, 32, 32], from 0 to 1, to embeddings [batch, {encoder.dim}]\n"
    assert capsys.readouterr().out.endswith(said)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = torch.rand(batch, 3, 32, 32)
        [found] = session.run(["embeddings"], {"images": images.numpy()})
        with torch.no_grad():
            expected = encoder(encoder.transform(images))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@needs_onnx
def test_graph_that_computes_something_else_is_not_written(make_run, tmp_path, capsys, monkeypatch):
    run = make_run("--arch", "resnet10", "--width", "4")
    monkeypatch.setattr(image.exporting, "Normalise", lambda: Half())
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda network, *a, **k: export(network[1:], *a, **k))
    flags = [str(run), "--to", "onnx", "--output", str(tmp_path / "x.onnx")]
    message = "error: the exported encoder does not compute what the run's does, for 1 images"
    capsys.readouterr()
    assert failure_of(export_main, capsys, flags) == [message]
    assert not list(tmp_path.glob("*x.onnx*"))


class Half(torch.nn.Module):
    def forward(self, images):
        return images / 2


def test_what_cannot_be_exported_is_one_line(make_run, tmp_path, capsys, monkeypatch):
    run = make_run("--arch", "resnet10", "--width", "4")
    (tmp_path / "old.safetensors").write_text("mine")
    monkeypatch.setattr(image.export, "find_spec", lambda name: None)
    for flags, message in {
        ("torchvision", "x.safetensors"): "whose ResNets have arch resnet18 or resnet34 or resnet50, and the",
        ("torchvision", "x.pt"): "x.pt; its suffix must be .safetensors",
        ("torchvision", "old.safetensors"): "old.safetensors exists; set --overwrite to replace it",
        ("onnx", "x.onnx"): "--to is onnx, which needs two packages: pip install onnx onnxruntime",
    }.items():
        to, name = flags
        line = failure_of(export_main, capsys, [str(run), "--to", to, "--output", str(tmp_path / name)])[-1]
        assert message in line
    assert (tmp_path / "old.safetensors").read_text() == "mine"
    (run / "encoder.safetensors").unlink()
    (tmp_path / "x.onnx").write_text("mine")
    monkeypatch.undo()
    if find_spec("onnx") and find_spec("onnxruntime"):
        flags = [str(run), "--to", "onnx", "--output", str(tmp_path / "x.onnx"), "--overwrite"]
        assert (
            "the run is not finished; resume it with --resume" in failure_of(export_main, capsys, flags)[-1]
        )
        assert (tmp_path / "x.onnx").read_text() == "mine"
