"""Encoders of runs outside of the project's commands: loading, embedding, training from Python."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

import image
from core.io.errors import InputError
from core.training.settings import load_config
from image.config import KNOWN, ImageConfig
from image.data import load_dataset
from image.decoding import decode
from image.embed import main as embed_main
from image.evaluate import main as evaluate_main
from image.loading import IMAGE_SIZES, Transform, evaluation_size, load_encoder
from image.scoring import represent_all
from image.train import main as train_main
from image.training import dataset_of
from shared_eval.probes import knn_accuracy
from tests.image.conftest import CLASSES, make_images
from tests.runs import counted_steps, failure_of, printed_scores, result_of

SMALL = {"epochs": 1, "batch_size": 16, "arch": "resnet10", "width": 4, "view_size": 16}
SMALL |= {"device": "cpu", "precision": "float32"}
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def run(tiny_folder, tmp_path) -> Path:
    """A finished run on ``tiny_folder``; its images are read with 24 pixels, its views have 16."""
    folder = tmp_path / "run"
    dataset = ["--dataset", f"folder:{tiny_folder}", "--image-size", "24"]
    train_main([*FLAGS, *dataset, "--output-dir", str(folder)])
    return folder


def evaluated(run) -> torch.Tensor:
    """The representations of the test images that ``image.evaluate`` scores: [N, D]."""
    config = load_config(run, ImageConfig)
    dataset = load_dataset(config.dataset, run, image_size=config.image_size)
    return represent_all(load_encoder(run), dataset.test, "float32")


def embed(run, source, output, *flags) -> None:
    embed_main([str(run), str(source), "--output", str(output), "--device", "cpu", *flags])


def test_loaded_encoder_equals_what_evaluation_computes(run, tiny_folder):
    encoder = image.load_encoder(run)
    assert not encoder.training
    files = sorted((tiny_folder / "test").rglob("*.png"))
    with torch.no_grad():
        ours = encoder(torch.stack([encoder.transform(Image.open(path)) for path in files]))
    assert ours.shape == (12, encoder.dim)
    torch.testing.assert_close(ours, evaluated(run), rtol=1e-5, atol=1e-5)


def test_loaded_encoder_has_torchvisions_names_and_can_be_copied(tiny_folder, tmp_path):
    train_main(
        [
            *(*FLAGS, "--dataset", f"folder:{tiny_folder}", "--image-size", "16"),
            *("--arch", "resnet18", "--width", "64", "--output-dir", str(tmp_path / "run")),
        ]
    )
    encoder = load_encoder(str(tmp_path / "run"))
    theirs = torchvision.models.resnet18()
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(encoder.state_dict())
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(encoder(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)
    assert copy.deepcopy(encoder).transform.size == 16


def test_transform_takes_pil_images_and_tensors():
    transform = Transform(8)
    pixels, _ = make_images(2, 8, seed=0)
    tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    batch = transform(tensors)
    assert batch.shape == (2, 3, 8, 8)
    assert batch.dtype == torch.float32
    for one in (Image.fromarray(pixels[0]), tensors[0], tensors[0] / 255):
        torch.testing.assert_close(transform(one), batch[0])
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        narrow = transform((tensors / 255).to(dtype).repeat(1, 1, 2, 1))
        assert (narrow.dtype, narrow.shape) == (torch.float32, (2, 3, 8, 8))
        torch.testing.assert_close(narrow, transform(tensors.repeat(1, 1, 2, 1) / 255), rtol=0, atol=0.03)
    wide = torch.zeros(3, 16, 48, dtype=torch.uint8)
    wide[:, :, 16:32] = 255  # the centre
    assert transform(wide).shape == (3, 8, 8)
    for one in (wide, wide / 255, Image.fromarray(wide.permute(1, 2, 0).numpy())):
        assert transform(one).amin() > 0
    with pytest.raises(ValueError, match=r"has shape \[1, 8, 8\]; it must be \[3, H, W\]"):
        transform(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"is torch\.int64; it must be uint8"):
        transform(torch.zeros(3, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="`image` is a str; it must be a tensor or an image of Pillow"):
        transform("a.png")


def test_floats_that_rounding_or_a_filter_leaves_outside_are_clamped():
    torch.manual_seed(0)
    edges = (torch.rand(4, 3, 8, 8) > 0.5).float()
    for outside in (1e-6, 0.1):
        around = torch.where(edges > 0, 1 + outside, -outside)
        assert torch.equal(Transform(8)(around), Transform(8)(edges))
        assert torch.equal(dataset_of(around).train.images, dataset_of(edges).train.images)
    enlarged = torch.nn.functional.interpolate(edges, (31, 31), mode="bicubic")
    assert enlarged.min() < -0.1
    assert Transform(31)(enlarged).shape == (4, 3, 31, 31)
    for other in (edges * 255, edges * 2 - 1, torch.where(edges > 0, torch.nan, 0.0)):
        with pytest.raises(ValueError, match=r"`image` has values from .*; floats must be in \[0, 1\]"):
            Transform(8)(other)


def test_size_of_evaluation_is_the_datasets_own(tmp_path):
    assert IMAGE_SIZES.keys() | {"folder:PATH"} == set(KNOWN)
    for name in ("shapes", "digits"):
        config = ImageConfig(dataset=name, beta=1, tau_plus=0.1)
        assert evaluation_size(config) == load_dataset(name, tmp_path).image_size
    sizes = {"cifar10": 32, "stl10": 96, "tinyimagenet": 64, "folder:x": 64}
    for name, size in sizes.items():
        assert evaluation_size(ImageConfig(dataset=name, beta=1, tau_plus=0.1)) == size


def test_what_is_no_finished_image_run_is_one_line(run, tmp_path, capsys):
    settings = json.loads((run / "config.json").read_text())
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "config.json").write_text(json.dumps(settings | {"modality": "graph"}))
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "encoder.safetensors").unlink()
    expected = {
        tmp_path / "nowhere": "nowhere does not exist; name a run's folder",
        tmp_path: f"{tmp_path.name} is not a run folder: it has no config.json",
        tmp_path / "graph": "holds a run of modality graph; a run of image is needed",
        unfinished: "encoder.safetensors is missing: the run is not finished; resume it with",
    }
    for folder, message in expected.items():
        with pytest.raises(InputError, match=message):
            load_encoder(folder)
        flags = [folder, "digits", "--output", tmp_path / "x.npz", "--device", "cpu"]
        [line] = failure_of(embed_main, capsys, list(map(str, flags)))
        assert message in line
    assert not (tmp_path / "x.npz").exists()


def test_embedded_folder_has_paths_classes_and_the_vectors_of_evaluation(run, tiny_folder, tmp_path, capsys):
    capsys.readouterr()
    embed(run, f"folder:{tiny_folder / 'test'}", tmp_path / "x.parquet")
    assert capsys.readouterr() == (f"{tmp_path / 'x.parquet'}: 12 embeddings\n", "")
    table = pd.read_parquet(tmp_path / "x.parquet")
    files = sorted((tiny_folder / "test").rglob("*.png"))
    assert table["id"].tolist() == [path.relative_to(tiny_folder / "test").as_posix() for path in files]
    assert table["label"].tolist() == [path.parent.name for path in files]
    np.testing.assert_allclose(np.stack(table["embedding"]), evaluated(run), rtol=1e-5, atol=1e-5)


def test_embedding_in_chunks_without_labels_gives_the_same_rows(run, tiny_folder, tmp_path, monkeypatch):
    embed(run, f"folder:{tiny_folder}", tmp_path / "a.npz")
    monkeypatch.setattr("image.embedding.CHUNK", 7)
    embed(run, f"folder:{tiny_folder}", tmp_path / "b.npz", "--labels", "none")
    whole, chunks = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    assert whole["id"].tolist() == chunks["id"].tolist()
    assert len(whole["id"]) == 60
    assert set(whole["label"]) == set(CLASSES)
    assert "label" not in chunks.files
    np.testing.assert_allclose(whole["embedding"], chunks["embedding"], rtol=1e-4, atol=1e-5)


def test_projections_are_the_heads_output_of_unit_length(run, tiny_folder, tmp_path):
    embed(run, f"folder:{tiny_folder}", tmp_path / "x.npz", "--projections")
    embed(run, f"folder:{tiny_folder}", tmp_path / "y.npz")
    projections, representations = (np.load(tmp_path / name)["embedding"] for name in ("x.npz", "y.npz"))
    assert projections.shape == (60, 128)
    np.testing.assert_allclose(np.linalg.norm(projections, axis=1), 1, rtol=1e-5)
    assert representations.shape == (60, load_encoder(run).dim)


def test_gallery_shows_images_with_their_neighbours(run, tiny_folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = [str(run), f"folder:{tiny_folder}", "--output", str(tmp_path / "x.npz"), "--gallery", str(page)]
    embed_main(words)
    assert capsys.readouterr().out.endswith(f"{page}\n")
    text = page.read_text()
    vectors = np.load(tmp_path / "x.npz")
    unit = vectors["embedding"] / np.linalg.norm(vectors["embedding"], axis=1, keepdims=True)
    cosines = unit @ unit[0]
    nearest = vectors["id"][1 + cosines[1:].argmax()]
    first = text[text.index("<section>") : text.index("</section>")]
    assert first.index(vectors["id"][0]) < first.index(nearest)
    assert f"{nearest} <b>{cosines[1:].max():.2f}</b>" in first
    [line] = failure_of(embed_main, capsys, [*words[:3], str(tmp_path / "y.npz"), *words[4:]])
    assert line == f"error: --gallery {page} exists; set --overwrite to replace it, or choose another path"


def test_dataset_by_name_is_embedded_with_its_splits(run, tmp_path):
    embed(run, "digits", tmp_path / "x.npz")
    table = np.load(tmp_path / "x.npz")
    digits = load_dataset("digits", tmp_path)
    assert table["id"][[0, -1]].tolist() == ["train/0", f"test/{len(digits.test) - 1}"]
    assert table["label"].tolist() == [
        str(label) for part in (digits.train, digits.test) for label in part.labels.tolist()
    ]
    embed(run, "digits", tmp_path / "y.npz", "--labels", "none")
    unlabelled = np.load(tmp_path / "y.npz")
    assert unlabelled["id"].tolist() == table["id"].tolist()
    assert "label" not in unlabelled.files


def test_other_dataset_is_evaluated_on_the_vectors_that_are_embedded(run, tmp_path, capsys):
    embed(run, "digits", tmp_path / "x.npz")
    table = np.load(tmp_path / "x.npz")
    count = len(load_dataset("digits", tmp_path).train)
    vectors, labels = torch.from_numpy(table["embedding"]), torch.from_numpy(table["label"].astype(int))
    expected = knn_accuracy(vectors[:count], labels[:count], vectors[count:], labels[count:])
    flags = [run, "--dataset", "digits", "--device", "cpu", "--epochs", "1"]
    assert printed_scores(evaluate_main, capsys, flags)["knn_accuracy"] == f"{expected:.4f}"


def test_unreadable_images_are_named_or_left_out(run, tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("image.embedding.CHUNK", 5)
    for name in ("bars/000.png", "plain/002.png"):
        (tiny_folder / "train" / name).write_bytes(b"")
    (tiny_folder / "test" / "dots" / "001.png").unlink()
    os.mkfifo(tiny_folder / "test" / "dots" / "001.png")
    source, output = f"folder:{tiny_folder}", tmp_path / "x.parquet"
    flags = [str(run), source, "--output", str(output), "--device", "cpu"]
    capsys.readouterr()
    [line] = failure_of(embed_main, capsys, flags)
    assert line.startswith("error: 3 unreadable images: ")
    assert "000.png" in line
    assert "001.png cannot be read: " in line
    assert "set --skip-unreadable to continue without" in line
    assert not list(tmp_path.glob("*x.parquet*"))
    embed_main([*flags, "--skip-unreadable"])
    table = pd.read_parquet(output)
    assert len(table) == 57
    assert not table["id"].isin(["train/bars/000.png", "test/dots/001.png", "train/plain/002.png"]).any()
    assert (table["label"] == [Path(name).parent.name for name in table["id"]]).all()
    assert "skipped: 3 unreadable (" in capsys.readouterr().err


def test_bad_source_or_output_is_one_line_before_anything_is_read(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.csv").write_text("mine")
    for source, output, message in (
        ("cifar", "x.csv", "source is 'cifar', which is unknown; did you mean cifar10? Known: shapes"),
        (str(tmp_path / "empty"), "x.csv", f"; did you mean folder:{tmp_path / 'empty'}? Known"),
        ("folder:nowhere", "x.csv", "nowhere is not a folder"),
        (f"folder:{tmp_path / 'empty'}", "x.csv", "empty contains no images"),
        ("digits", "old.csv", "old.csv exists; set --overwrite to replace it"),
        ("digits", "x.txt", "x.txt; its suffix must be one of .parquet, .npz"),
    ):
        flags = [str(run), source, "--output", str(tmp_path / output), "--device", "cpu"]
        assert message in failure_of(embed_main, capsys, flags)[-1]
    assert (tmp_path / "old.csv").read_text() == "mine"
    embed(run, "digits", tmp_path / "old.csv", "--overwrite")
    assert len(pd.read_csv(tmp_path / "old.csv")) == 1797


def tensor_images(count=40, size=16):
    pixels, labels = make_images(count, size, seed=0)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def test_training_on_a_tensor_gives_the_encoder_that_its_folder_holds(tmp_path):
    images, _ = tensor_images()
    encoder = image.train_on(images, output_dir=tmp_path / "run", objective="simclr", **SMALL)
    result = result_of(tmp_path / "run")
    assert (result["labelled"], result["objective"]["name"]) == (False, "simclr")
    loaded = load_encoder(tmp_path / "run")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert encoder.transform.size == 16
    # The second is in a temporary folder.
    floats = image.train_on(images / 255, objective="simclr", image_size=None, **SMALL)
    assert floats.transform.size == 16
    assert torch.equal(floats.conv1.weight, encoder.conv1.weight)


def test_training_on_a_folder_equals_the_command(run, tiny_folder, tmp_path):
    encoder = image.train_on(tiny_folder, output_dir=tmp_path / "python", image_size=24, **SMALL)
    assert result_of(tmp_path / "python")["metrics"] == result_of(run)["metrics"]
    assert torch.equal(encoder.conv1.weight, load_encoder(run).conv1.weight)
    with counted_steps() as steps:  # the run is finished
        image.train_on(tiny_folder, output_dir=tmp_path / "python", image_size=24, **SMALL)
    assert steps.call_count == 0


def test_folder_of_a_tensor_refuses_another_tensor(tmp_path):
    """A finished run is not trained again, so the images must be part of what identifies it."""
    images, labels = tensor_images()
    image.train_on(images, output_dir=tmp_path / "run", **SMALL)
    for others in ((images.flip(0),), (images, labels)):
        with pytest.raises(
            InputError, match=r'other settings \(dataset "tensor-\w+" there, "tensor-\w+" now\)'
        ):
            image.train_on(*others, output_dir=tmp_path / "run", **SMALL)


def test_targets_of_a_tensor_are_scored(tmp_path):
    images, labels = tensor_images()
    image.train_on(images, labels * 10 + 3, output_dir=tmp_path / "run", **SMALL)
    result = result_of(tmp_path / "run")
    assert result["labelled"] is True
    encoder = load_encoder(tmp_path / "run")
    with torch.no_grad():
        vectors = encoder(encoder.transform(images)).double().numpy()
    assert result["metrics"]["knn_accuracy"] == pytest.approx(neighbour_accuracy(vectors, labels.numpy()))


def neighbour_accuracy(vectors, labels):
    """Every fifth image of a class is classified by all others: each votes with e^(2 cosine)."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in set(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    correct = []
    for vector, label in zip(vectors[is_test], labels[is_test], strict=True):
        votes = np.exp(2 * vectors[~is_test] @ vector)
        correct.append(label == max(set(labels), key=lambda each: votes[labels[~is_test] == each].sum()))
    return np.mean(correct)


def test_run_on_a_tensor_is_evaluated_on_a_named_dataset(tmp_path, capsys):
    image.train_on(tensor_images()[0], output_dir=tmp_path / "run", **SMALL)
    flags = ["--device", "cpu", "--epochs", "1"]
    assert "knn_accuracy" in printed_scores(
        evaluate_main, capsys, [tmp_path / "run", "--dataset", "digits", *flags]
    )
    [line] = failure_of(evaluate_main, capsys, [str(tmp_path / "run"), *flags])
    assert line == (f"error: {tmp_path / 'run'} was trained on a tensor, which is not kept; name a --dataset")


@pytest.mark.parametrize(
    ("data", "targets", "settings", "message"),
    [
        (
            torch.zeros(4, 16, 16, 3),
            None,
            {},
            r"`data` has shape \[4, 16, 16, 3\]; it must be \[N, 3, S, S\]",
        ),
        (torch.zeros(0, 3, 16, 16), None, {}, r"`data` has shape \[0, 3, 16, 16\]"),
        (torch.full((4, 3, 16, 16), 255.0), None, {}, r"`data` has values from 255 to 255; floats must be"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.int64), None, {}, r"`data` is torch\.int64; it must be uint8"),
        (torch.zeros(20, 3, 16, 16), torch.zeros(3), {}, r"`targets` has shape \[3\]; `data` has 20 images"),
        (torch.zeros(20, 3, 16, 16), torch.zeros(20), {}, r"`targets` names 1 class; at least 2 are needed"),
        (torch.rand(20, 3, 16, 16), torch.arange(20), {}, r"fewer than 5 images in every class"),
        (torch.rand(8, 3, 16, 16), [0] * 5 + [1] * 3, {}, r"`targets` gives 1 test image, every fifth"),
        (
            [torch.rand(3, 16, 16)],
            None,
            {},
            r"`data` is of type list; it must be a tensor \[N, 3, S, S\], or",
        ),
        (
            torch.rand(20, 3, 16, 16),
            ["a", "b"] * 10,
            {},
            "`targets` must be a number for each image: too many",
        ),
        (torch.rand(20, 3, 16, 16), [None] * 20, {}, "`targets` must be a number for each image: "),
        (
            torch.rand(20, 3, 16, 16),
            torch.arange(20) % 2,
            {"labels": "none"},
            "`labels` is none, but those of a tensor are its `targets`; leave it out",
        ),
        (
            torch.rand(20, 3, 16, 16),
            None,
            {"labels": "folders"},
            "`labels` is folders, but those of a tensor",
        ),
        (
            torch.rand(20, 3, 16, 16),
            None,
            {"dataset": "digits"},
            "`dataset` is digits, but train_on takes `data`",
        ),
        (
            "nowhere",
            None,
            {"dataset": "digits"},
            "`dataset` is digits, but train_on takes `data` instead; leave it out",
        ),
        (torch.rand(4, 3, 16, 16), [0.0, 1.0, 0.0, float("nan")], {}, "`targets` has NaN or infinite numb"),
        ("nowhere", None, {}, "nowhere is not a folder"),
        ("nowhere", torch.zeros(3), {}, "`targets` are those of a tensor"),
        (torch.rand(1, 3, 16, 16), None, {}, r"tensor-\w+ has 1 training image; at least 2 are needed"),
        (
            torch.rand(4, 3, 16, 16),
            None,
            {"epoch": 3},
            "`epoch` is not a setting of image training; did you mean",
        ),
        (torch.rand(4, 3, 16, 16), None, {"epochs": "3"}, '`epochs` is "3"; it must be int'),
        (
            torch.rand(4, 3, 16, 16),
            None,
            {},
            "`batch_size` is 16; it must be at most 4, the training",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(tmp_path, monkeypatch, data, targets, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        image.train_on(data, targets, **(SMALL | settings))


@pytest.mark.parametrize(
    ("kind", "tags"), [(np.uint16, {262: 0}), (np.float32, {340: 0.0, 341: 63.0})], ids=["inverted", "scaled"]
)
def test_transform_reads_tiffs_as_training_does(tmp_path, kind, tags):
    """The tags that say what a pixel means are kept: white is zero, or the largest sample is 63."""
    path = tmp_path / "a.tif"
    Image.fromarray(np.arange(64).reshape(8, 8).astype(kind)).save(path, tiffinfo=tags)
    pixels, _ = decode(path, 8)
    wanted = Transform(8)(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    with Image.open(path) as opened:
        torch.testing.assert_close(Transform(8)(opened), wanted)
