"""Images without labels: which trees have none, training, and scores."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.io.errors import InputError
from image.config import ImageConfig
from image.data import load_dataset, load_datasets
from image.embed import main as embed_main
from image.evaluate import main as evaluate_main
from image.folders import read_tree
from image.skipped import Skipped
from image.train import main as train_main
from tests.image.conftest import CLASSES, write_class_folders
from tests.image.test_image_folders import said
from tests.runs import as_printed, failure_of, metrics_of, printed_scores, result_of

FAST = ["--epochs", "2", "--batch-size", "16", "--arch", "resnet10", "--width", "4", "--view-size", "16"]
FAST += ["--image-size", "16", "--device", "cpu", "--precision", "float32"]
LABEL_FREE = {
    "alignment",
    "uniformity",
    "positive_similarity",
    "negative_similarity",
    "hardest_negative_similarity",
    "effective_rank",
}


@pytest.fixture
def flat(tmp_path) -> Path:
    """30 images in one folder, named as in their class folders."""
    write_class_folders(tmp_path / "classes", per_class=10)
    root = tmp_path / "flat"
    root.mkdir()
    for path in (tmp_path / "classes").rglob("*.png"):
        shutil.copy(path, root)
    return root


def load(root, **options):
    return load_dataset(f"folder:{root}", root, image_size=16, **options)


def train(root, folder, *flags):
    train_main([*FAST, "--dataset", f"folder:{root}", "--output-dir", str(folder), *flags])
    return result_of(folder)


def test_flat_folder_is_read_whole_without_labels(flat, capsys):
    dataset = load(flat)
    assert dataset.train is dataset.labelled is dataset.test
    assert (dataset.classes, dataset.has_labels) == ((), False)
    assert dataset.train.labels.tolist() == [-1] * 30
    expected = [np.asarray(Image.open(path)) for path in sorted(flat.iterdir())]
    assert torch.equal(dataset.train.images, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))
    why = "no labels are used; they need two or more folders, one for each class (see --labels)"
    assert said(dataset, capsys) == f"folder:{flat}: {why}\n"
    assert said(load(flat, labels="none"), capsys) == ""


def test_tree_of_any_depth_is_read_whole(tmp_path):
    write_class_folders(tmp_path / "x" / "photos" / "2020", per_class=2)
    (tmp_path / "x" / "notes").mkdir()
    (tmp_path / "x" / "notes" / "a.txt").write_text("")
    dataset = load(tmp_path / "x")
    assert (len(dataset.train), dataset.has_labels) == (6, False)
    assert dataset.why_unlabelled == "they need two or more folders, one for each class"
    assert dataset.skipped.as_record() == {"extensions": {".txt": 1}}


def test_image_outside_of_the_class_folders_says_why_there_are_no_labels(tmp_path, capsys):
    root = write_class_folders(tmp_path / "x", per_class=10)
    assert load(root).has_labels
    shutil.copy(root / "dots" / "001.png", root / "overview.png")
    dataset = load(root)
    assert (len(dataset.train), dataset.has_labels) == (31, False)
    assert dataset.why_unlabelled == "1 image lies outside of its class folders"
    assert said(dataset, capsys) == (
        f"folder:{root}: no labels are used; 1 image lies outside of its class folders (see --labels)\n"
    )
    assert load(root, labels="folders").classes == CLASSES


def test_splits_without_class_folders_are_read_whole(flat, tmp_path):
    root = tmp_path / "splits"
    for split in ("train", "test"):
        shutil.copytree(flat, root / split)
    dataset = load(root)
    assert (len(dataset.train), dataset.why_unlabelled) == (
        60,
        "there are no class folders in test and train",
    )


def test_labels_of_class_folders_splits_and_published_names_can_be_left_out(tiny_folder, tmp_path):
    assert load(tiny_folder).has_labels
    dataset = load(tiny_folder, labels="none")
    assert (len(dataset.train), dataset.has_labels, dataset.why_unlabelled) == (60, False, "")
    digits = load_dataset("digits", tmp_path)
    unlabelled = load_dataset("digits", tmp_path, labels="none")
    assert torch.equal(unlabelled.train.images, digits.train.images)  # test images stay unseen
    assert not unlabelled.has_labels
    assert unlabelled.resized(8).test.images.shape[2] == 8


def test_trained_whole_and_scored_without_labels_before_and_after(flat, tmp_path, capsys):
    result = train(flat, tmp_path / "run")
    assert set(result["metrics"]) == set(result["untrained_metrics"]) == LABEL_FREE
    assert result["metrics"] != result["untrained_metrics"]
    assert 1 <= result["metrics"]["effective_rank"] <= 30
    assert result["labelled"] is False
    assert set(metrics_of(tmp_path / "run")[0]) >= LABEL_FREE
    scores = printed_scores(evaluate_main, capsys, [tmp_path / "run", "--device", "cpu"])
    assert scores == as_printed(result["metrics"])


def test_flag_decides_whether_class_folders_are_labels(tmp_path):
    root = write_class_folders(tmp_path / "x" / "train", per_class=10)
    with_labels = train(root, tmp_path / "labelled", "--labels", "folders")
    assert with_labels["labelled"] is True
    assert set(with_labels["metrics"]) > LABEL_FREE
    without = train(root, tmp_path / "unlabelled", "--labels", "none")
    assert set(without["metrics"]) == LABEL_FREE


def test_unlabelled_run_is_scored_on_another_labelled_set(flat, tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(flat, folder, "--probe-dataset", f"folder:{tiny_folder}", "--knn-every", "1")
    assert set(result["metrics"]) == LABEL_FREE | {
        "knn_accuracy",
        "linear_accuracy",
        "linear_top5_accuracy",
    }
    assert (result["labelled"], result["evaluation"]) == (False, "probe-size-2")
    assert [line["knn_accuracy"] for line in metrics_of(folder)][-1] == result["metrics"]["knn_accuracy"]
    scores = printed_scores(evaluate_main, capsys, [folder, "--device", "cpu"])
    assert scores == as_printed(result["metrics"])
    transfer = ["--dataset", f"folder:{tiny_folder}", "--device", "cpu"]
    others = printed_scores(evaluate_main, capsys, [folder, *transfer])
    assert others["linear_accuracy"] == scores["linear_accuracy"]
    assert others["alignment"] != scores["alignment"]
    unlabelled = printed_scores(evaluate_main, capsys, [folder, *transfer, "--labels", "none"])
    assert set(unlabelled) == LABEL_FREE
    [line] = failure_of(evaluate_main, capsys, [str(folder), "--labels", "none"])
    assert line.startswith("error: --labels is none, which is for another --dataset; ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--knn-every", "1"],
            "--knn-every is 1, but folder:{flat} has no labels; leave it out, or set --probe",
        ),
        (["--positives", "label"], "--positives label needs labels, and folder:{flat} trains on unlabelled"),
        (["--labels", "folders"], "{flat} contains no class folders"),
        (["--probe-dataset", "cifar"], "--probe-dataset is 'cifar', which is unknown; did you mean cifar10?"),
        (
            ["--probe-dataset", "folder:{flat}"],
            "{flat} contains no class folders; add them\n",
        ),
    ],
)
def test_what_needs_labels_is_refused_without(flat, tmp_path, capsys, flags, message):
    flags = [flag.format(flat=flat) for flag in flags]
    flags = [*FAST, "--dataset", f"folder:{flat}", "--output-dir", str(tmp_path / "run"), *flags]
    line = failure_of(train_main, capsys, flags)[-1]
    assert f"{line}\n".startswith(f"error: {message.format(flat=flat)}")


def config_of(root, **settings) -> ImageConfig:
    return ImageConfig(dataset=f"folder:{root}", beta=1, tau_plus=0.1, **settings)


def test_probe_dataset_is_read_by_its_class_folders_in_the_size_of_the_run_s_images(flat, tmp_path, capsys):
    """An image beside them is left out: of a probe that is what can be meant."""
    root = write_class_folders(tmp_path / "probe", per_class=10)
    shutil.copy(root / "dots" / "001.png", root / "overview.png")
    config = config_of(flat, image_size=24, view_size=16, probe_dataset=f"folder:{root}")
    dataset, probed = load_datasets(config)
    assert (probed.classes, len(probed.train), len(probed.test)) == (CLASSES, 24, 6)
    assert probed.image_size == dataset.image_size == 24
    assert f"folder:{root}: skipped: 1 outside of class folders" in capsys.readouterr().err
    for name in ("bars", "plain"):
        shutil.rmtree(root / name)
    message = f"`probe_dataset` is 'folder:{root}', which has 1 class; at least 2 are needed"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_datasets(config)


def test_evaluation_without_labels_refuses_settings_of_the_probe(flat, tmp_path, capsys):
    train(flat, tmp_path / "run")
    capsys.readouterr()
    for flags in (["--protocol", "paper"], ["--epochs", "3"]):
        line = failure_of(evaluate_main, capsys, [str(tmp_path / "run"), "--device", "cpu", *flags])[-1]
        assert line == (
            f"error: {' is '.join(flags)}, of the linear probe, but folder:{flat} has no labels for one; "
            "leave it out, or name a labelled --dataset"
        )


@pytest.mark.slow
@pytest.mark.data("cifar10")
def test_flattened_cifar10_gives_vectors_whose_neighbours_share_a_class(data_root, tmp_path):
    """From 1,000 images in one folder, named by number, to vectors; classes are used to check them alone."""
    root, classes = tmp_path / "flat", {}
    root.mkdir()
    folders = sorted((data_root / "cifar10" / "test").iterdir())
    files = [path for folder in folders for path in sorted(folder.iterdir())[:100]]
    for i, path in enumerate(files):
        (root / f"{i:04}{path.suffix}").symlink_to(path.absolute())
        classes[f"{i:04}{path.suffix}"] = path.parent.name
    run = tmp_path / "run"
    flags = ["--epochs", "4", "--batch-size", "100", "--arch", "resnet10", "--width", "8", "--device", "cpu"]
    flags += ["--image-size", "32", "--precision", "float32", "--lr", "2e-3"]
    train_main([*flags, "--dataset", f"folder:{root}", "--output-dir", str(run)])
    losses = [line["loss"] for line in metrics_of(run)[1:]]
    assert losses[-1] < losses[0]
    result = result_of(run)
    assert result["metrics"]["uniformity"] < result["untrained_metrics"]["uniformity"]

    embed_main([str(run), f"folder:{root}", "--output", str(tmp_path / "x.npz"), "--device", "cpu"])
    file = np.load(tmp_path / "x.npz")
    assert file["id"].tolist() == sorted(classes)
    vectors = file["embedding"] / np.linalg.norm(file["embedding"], axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    names = np.array([classes[name] for name in file["id"]])
    share = (names[similarity.argmax(axis=1)] == names).mean()
    assert share > 0.2  # chance is 0.1


def test_folder_without_images_and_one_image_are_one_line(tmp_path, capsys):
    root = tmp_path / "x"
    root.mkdir()
    flags = [*FAST, "--dataset", f"folder:{root}", "--output-dir", str(tmp_path / "run")]
    assert failure_of(train_main, capsys, flags) == [f"error: {root} contains no images"]
    (root / "a.heic").write_text("")
    assert failure_of(train_main, capsys, flags) == [
        f"error: {root} contains no images: its files are 1 .heic"
    ]
    Image.new("RGB", (16, 16)).save(root / "a.png")
    assert failure_of(train_main, capsys, flags)[-1] == (
        f"error: folder:{root} has 1 training image; at least 2 are needed"
    )
    (root / "a.png").write_bytes(b"")
    for _ in ("damaged", "a broken link"):
        assert failure_of(train_main, capsys, [*flags, "--skip-unreadable"]) == [
            "error: none of the 1 images can be read"
        ]
        (root / "a.png").unlink()
        (root / "a.png").symlink_to("nowhere")


def test_tree_for_embedding_has_every_image_with_its_class(tiny_folder, flat, tmp_path):
    tree = read_tree(tiny_folder, "auto", Skipped())
    assert len(tree.files) == 60
    assert tree.labels == [Path(path).parent.name for path in tree.files]
    assert read_tree(tiny_folder, "none", Skipped()).labels is None
    assert read_tree(flat, "auto", Skipped()) == (sorted(map(str, flat.iterdir())), None)
    few = write_class_folders(tmp_path / "few", per_class=2)  # too few to test a probe
    assert read_tree(few, "auto", Skipped()).labels == [name for name in CLASSES for _ in range(2)]
    with pytest.raises(InputError, match="is not a folder"):
        read_tree(tmp_path / "nowhere", "auto", Skipped())
