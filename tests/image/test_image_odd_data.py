"""Images that a run cannot be resumed on, too few to be scored, and values out of range."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import image
from image.data import load_dataset
from image.evaluate import main as evaluate_main
from image.loading import Transform
from image.scoring import CHUNK
from image.task import COMPARED, fingerprint, some_images
from image.train import main as train_main
from tests.image.commands import FAST, train
from tests.image.conftest import write_class_folders
from tests.runs import failure_of, forget_data, interrupted_before_step, result_of


def replace_pixels(root):
    """Give every image other pixels, under its name."""
    draw = np.random.default_rng(5)
    for path in root.rglob("*.png"):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(path)


def write_images(root, count):
    """Images without classes."""
    root.mkdir()
    for number in range(count):
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(root / f"{number}.png")
    return root


def interrupted(tiny_folder, folder):
    """A run that was interrupted in its second epoch."""
    with interrupted_before_step(5):
        train(tiny_folder, folder, "--checkpoint-seconds", "0")
    return folder


def test_run_does_not_resume_on_other_pixels(tiny_folder, tmp_path, capsys):
    """Names, counts and classes are the same."""
    folder = interrupted(tiny_folder, tmp_path / "run")
    replace_pixels(tiny_folder)
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder), "--resume"]
    message = failure_of(train_main, capsys, flags)[-1]
    assert f"the data are not those that the run in {folder} began with (pixels " in message


def test_checkpoint_that_does_not_know_its_pixels_resumes(tiny_folder, tmp_path):
    """Earlier versions wrote such ones."""
    folder = interrupted(tiny_folder, tmp_path / "run")
    forget_data(folder, "pixels")
    train(tiny_folder, folder, "--resume")
    assert result_of(folder)["epochs"] == 3


def test_fingerprint_is_that_of_the_pixels(tiny_folder, tmp_path):
    """Not of the place: a copy elsewhere has the same, one with another test image has another."""
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tiny_folder, copy)
    first, second = (fingerprint(load_dataset(f"folder:{root}", tmp_path)) for root in (tiny_folder, copy))
    assert first == second
    write_class_folders(copy / "test", per_class=4, seed=2)
    changed = fingerprint(load_dataset(f"folder:{copy}", tmp_path))
    assert {name for name in first if first[name] != changed[name]} == {"pixels"}


def test_at_most_a_thousand_images_are_compared_from_the_first_to_the_last():
    images = torch.arange(200_000)
    chosen = torch.stack(list(some_images(images)))
    assert (len(chosen), chosen[0], chosen[-1]) == (COMPARED, 0, 199_999)
    assert set(chosen.diff().tolist()) <= {200, 201}
    assert torch.stack(list(some_images(images[:7]))).tolist() == list(range(7))


def test_equal_images_at_the_start_do_not_pass_for_a_collapse(tmp_path):
    """As the first frames of a film; more of them than are encoded to see whether the encoder collapsed."""
    images = torch.rand(CHUNK + 88, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images[: CHUNK + 8] = 0
    small = {"arch": "resnet10", "width": 8, "view_size": 16, "batch_size": 200, "epochs": 1}
    encoder = image.train_on(images, output_dir=tmp_path / "run", device="cpu", **small)
    with torch.no_grad():
        assert encoder(encoder.transform(images[-80:])).std(dim=0).amax() > 0


def test_one_image_without_labels_cannot_be_scored(tiny_folder, tmp_path, capsys):
    train(tiny_folder, tmp_path / "run", "--epochs", "1")
    one = write_images(tmp_path / "one", 1)
    capsys.readouterr()
    flags = [str(tmp_path / "run"), "--device", "cpu", "--dataset", f"folder:{one}"]
    message = failure_of(evaluate_main, capsys, flags)[-1]
    assert message == f"error: folder:{one} has 1 image; at least 2 are needed"


@pytest.mark.parametrize(("per_class", "warns"), [(66, True), (67, False)])
def test_few_labelled_images_are_warned_of(tmp_path, capsys, per_class, warns):
    """Of at most 200 all vote, once in training and once in evaluation."""
    root = tmp_path / "few"
    write_class_folders(root / "train", per_class)
    write_class_folders(root / "test", 1, seed=1)
    line = (
        f"warning: folder:{root} has {3 * per_class} labelled images, and the 200 nearest vote in "
        "knn_accuracy: all of them do, which favours the largest class"
    )
    train(root, tmp_path / "run", "--epochs", "1", "--batch-size", "64")
    assert capsys.readouterr().err.splitlines().count(line) == warns
    evaluate_main([str(tmp_path / "run"), "--device", "cpu"])
    assert capsys.readouterr().err.splitlines().count(line) == warns


@pytest.mark.parametrize(
    ("values", "said"),
    [([0, 255], "from 0 to 255"), ([-1, 1], "from -1 to 1"), ([0, float("nan")], "nan")],
)
def test_floats_beyond_1_are_refused(values, said):
    image = torch.tensor(values).float().expand(3, 2, 2)
    with pytest.raises(ValueError, match=rf"`image` has values .*{said}.*; floats must be in \[0, 1\]$"):
        Transform(8)(image)
    assert Transform(8)(torch.empty(0, 3, 8, 8)).shape == (0, 3, 8, 8)
