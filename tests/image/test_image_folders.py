"""Class folders as people have them: other files, hidden folders, links, names of splits, damaged images."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.io.errors import InputError
from image import decoding
from image.data import load_dataset, warn_skipped
from image.evaluate import main as evaluate_main
from image.folders import split_folders
from image.skipped import Skipped
from image.train import main as train_main
from tests.image.conftest import CLASSES, write_class_folders
from tests.runs import failure_of, printed_scores, result_of

FAST = ["--epochs", "1", "--batch-size", "8", "--arch", "resnet10", "--width", "4", "--view-size", "16"]
FAST += ["--image-size", "16", "--device", "cpu", "--precision", "float32"]


@pytest.fixture
def root(tmp_path) -> Path:
    """Ten images of each class, no splits: 8 of each are for training."""
    return write_class_folders(tmp_path / "images", per_class=10)


def load(root: Path, **options):
    return load_dataset(f"folder:{root}", root, image_size=16, **options)


def said(dataset, capsys) -> str:
    capsys.readouterr()
    warn_skipped(dataset)
    return capsys.readouterr().err


def refusal(root: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        load(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def counts(dataset) -> tuple[int, int, tuple[str, ...]]:
    return len(dataset.train), len(dataset.test), dataset.classes


def test_folder_of_images_alone_says_and_records_nothing(root, capsys):
    dataset = load(root)
    assert counts(dataset) == (24, 6, CLASSES)
    assert said(dataset, capsys) == ""
    assert dataset.skipped.as_record() == {}


def test_files_beside_images_are_skipped_by_extension_and_counted(root, capsys):
    for name in ("README.txt", "Thumbs.db", "desktop.ini", "labels.JSON", "a.json", "LICENSE"):
        (root / "dots" / name).write_text("not an image")
    (root / "README.md").write_text("beside the classes")
    shutil.copy(root / "dots" / "001.png", root / "overview.png")
    dataset = load(root, labels="folders")
    assert counts(dataset) == (24, 6, CLASSES)
    assert said(dataset, capsys) == (
        f"folder:{root}: skipped: 7 of other file types (2 .json, 1 without extension, 1 .db, "
        "1 .ini, 1 .md, 1 .txt); 1 outside of class folders\n"
    )
    extensions = {".json": 2, ".md": 1, ".ini": 1, "": 1, ".txt": 1, ".db": 1}
    assert dataset.skipped.as_record() == {"extensions": extensions, "outside": 1}


def test_numbers_as_extensions_do_not_fill_the_screen():
    skipped = Skipped()
    skipped.extensions.update({f".{number:04}": 1 for number in range(500)} | {".txt": 3})
    assert skipped.describe().startswith("skipped: 503 of other file types (3 .txt, 1 .0000, ")
    assert skipped.describe().endswith("1 .0018, 481 others)")


def test_extensions_count_in_any_case(root):
    for name in CLASSES:
        for path in (root / name).iterdir():
            path.rename(path.with_suffix(".PNG" if int(path.stem) % 2 else ".Png"))
    assert counts(load(root)) == (24, 6, CLASSES)


def test_class_folder_of_other_files_says_which(root):
    (root / "scans").mkdir()
    for name in ("1.heic", "2.HEIC", "3.dcm"):
        (root / "scans" / name).write_text("")
    assert refusal(root) == (
        f"{root / 'scans'} is a class folder without images: its files are 2 .heic, 1 .dcm; move it "
        "elsewhere, or set `labels` none"
    )


def test_hidden_folders_are_no_classes_and_their_images_count_once(root, capsys):
    expected = load(root)
    for parent in (root, root / "dots"):
        shutil.copytree(root / "bars", parent / ".ipynb_checkpoints")
        shutil.copytree(root / "bars", parent / "__MACOSX" / "bars")
    (root / "dots" / "._001.png").write_bytes(b"\0\5\26\7")  # AppleDouble
    (root / ".DS_Store").write_bytes(b"\0")
    dataset = load(root)
    assert counts(dataset) == (24, 6, CLASSES)
    assert torch.equal(dataset.train.images, expected.train.images)
    assert said(dataset, capsys) == f"folder:{root}: skipped: 6 hidden\n"


def test_hidden_folders_are_no_classes_in_splits(tiny_folder):
    for split in ("train", "test"):
        shutil.copytree(tiny_folder / split / "dots", tiny_folder / split / ".ipynb_checkpoints")
    shutil.copytree(tiny_folder / "test", tiny_folder / ".ipynb_checkpoints")
    dataset = load(tiny_folder)
    assert counts(dataset) == (48, 12, CLASSES)
    assert dataset.skipped.as_record() == {"hidden": 3}


def test_hidden_folder_that_is_asked_for_by_name_is_read(root):
    root.rename(root.with_name(".images"))
    assert counts(load(root.with_name(".images"))) == (24, 6, CLASSES)


def test_published_name_reads_class_folders_by_the_same_rules(tmp_path):
    for split in ("Train", "Test"):
        folder = write_class_folders(tmp_path / "cifar10" / split, per_class=2, size=32)
        shutil.copytree(folder / "dots", folder / ".ipynb_checkpoints")
        (folder / "dots" / "README.txt").write_text("")
    dataset = load_dataset("cifar10", tmp_path)
    assert counts(dataset) == (6, 6, CLASSES)
    assert dataset.skipped.as_record() == {"extensions": {".txt": 2}, "hidden": 2}


def test_links_are_followed_once_and_cycles_end(root, tmp_path):
    shutil.move(root / "dots", tmp_path / "store")
    (root / "dots").symlink_to(tmp_path / "store")  # a class
    (root / "bars" / "more").symlink_to(tmp_path / "more")  # a part of a class
    write_class_folders(tmp_path / "all", per_class=5, seed=1)
    (tmp_path / "all" / "bars").rename(tmp_path / "more")
    (tmp_path / "more" / "again").symlink_to(tmp_path / "more")
    (root / "bars" / "twice").symlink_to(tmp_path / "more")
    (root / "plain" / "up").symlink_to(root)
    dataset = load(root)
    labels = torch.cat([dataset.train.labels, dataset.test.labels])
    assert labels.bincount().tolist() == [15, 10, 10]


@pytest.mark.parametrize("train", ["train", "Train", "training", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "valid", "Validation", "DEV"])
def test_splits_are_known_by_their_usual_names(tiny_folder, train, test):
    (tiny_folder / "train").rename(tiny_folder / "x")
    (tiny_folder / "test").rename(tiny_folder / test)
    (tiny_folder / "x").rename(tiny_folder / train)
    assert counts(load(tiny_folder)) == (48, 12, CLASSES)


def test_test_is_used_before_validation_and_the_rest_is_named(tiny_folder, capsys):
    expected = load(tiny_folder).test.images
    write_class_folders(tiny_folder / "validation", per_class=3, seed=2)
    (tiny_folder / "extra").mkdir()
    dataset = load(tiny_folder)
    assert torch.equal(dataset.test.images, expected)
    assert said(dataset, capsys) == (
        f"folder:{tiny_folder}: skipped: folders that are not used (extra, validation)\n"
    )


def test_validation_is_used_if_test_has_no_class_folders(tiny_folder, capsys):
    """As where the labels of the test images are not published."""
    expected = load(tiny_folder).test.images
    (tiny_folder / "test").rename(tiny_folder / "val")
    (tiny_folder / "test").mkdir()
    Image.new("RGB", (16, 16)).save(tiny_folder / "test" / "0.png")
    dataset = load(tiny_folder)
    assert torch.equal(dataset.test.images, expected)
    assert said(dataset, capsys) == f"folder:{tiny_folder}: skipped: folders that are not used (test)\n"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train"], "has a folder train, but no test or val folder; add it, or, if train is a class, rename"),
        (["Training", "a"], "has a folder Training, but no test or val folder"),
        (["test"], "has a folder test, but no train folder; add it, or, if test is a class, rename it"),
        (["validation", "a"], "has a folder validation, but no train folder"),
        (["valid", "test"], "has a folder test, but no train folder"),
        (["train", "Train", "test"], "has Train and train, which both mean train; keep one of them"),
        (["train", "val", "dev"], "has dev and val, which both mean val; keep one of them"),
    ],
)
def test_split_without_its_partner_says_what_is_missing(tmp_path, names, message):
    for name in names:
        write_class_folders(tmp_path / "x" / name, per_class=5)
    assert f"{tmp_path / 'x'} {message}" in refusal(tmp_path / "x")


def test_classes_of_splits_are_compared_under_the_names_of_their_folders(tiny_folder):
    (tiny_folder / "test").rename(tiny_folder / "Validation")
    shutil.rmtree(tiny_folder / "Validation" / "dots")
    assert refusal(tiny_folder).endswith("only one of train and Validation has the class dots")


def damage(root: Path) -> list[str]:
    """Make four of 30 images unreadable, each in another way; returns their paths."""
    paths = [root / name for name in ("bars/003.png", "dots/004.png", "dots/007.png", "plain/002.png")]
    paths[0].write_bytes(paths[0].read_bytes()[:-60])
    paths[1].write_bytes(b"")
    paths[2].unlink()
    paths[2].symlink_to("nowhere")
    Image.fromarray(np.full((16, 16), 7, np.float32)).save(paths[3], "TIFF")
    return [str(path) for path in paths]


def test_all_unreadable_images_are_named_together(root):
    paths = damage(root)
    message = refusal(root)
    assert message.startswith("4 unreadable images: ")
    assert all(path in message for path in paths)
    assert message.endswith("; repair or remove them, or set `skip_unreadable` to continue without")
    for path in paths[1:]:
        os.unlink(path)
    message = refusal(root)
    assert message.startswith(f"{paths[0]} cannot be read as an image (")
    assert message.endswith("; repair or remove it, or set `skip_unreadable` to continue without")


def test_unreadable_images_of_both_splits_are_named_together(tiny_folder):
    for split in ("train", "test"):
        (tiny_folder / split / "dots" / "001.png").write_bytes(b"")
    assert refusal(tiny_folder).startswith("2 unreadable images: ")


def test_names_of_unreadable_images_are_limited_and_the_rest_counted(root):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    message = refusal(root)
    assert message.count("cannot be read as an image (it is not a PNG, JPEG, ") == 1  # once for all of them
    assert message.startswith("30 unreadable images: ")
    assert message.count(".png") == 20
    assert "; and 10 more; repair" in message


def test_training_without_the_unreadable_images_says_and_records_them(root, tmp_path, capsys):
    paths = damage(root)
    flags = [*FAST, "--dataset", f"folder:{root}", "--output-dir", str(tmp_path / "run")]
    [line] = failure_of(train_main, capsys, flags)
    assert line.startswith("error: 4 unreadable images: ")
    assert "set --skip-unreadable to continue without" in line

    train_main([*flags, "--skip-unreadable"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "unreadable" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"folder:{root}: skipped: 4 unreadable (")
    assert all(path in lines[0] for path in paths)
    skipped = result_of(tmp_path / "run")["skipped"]
    assert list(skipped) == ["unreadable"]
    assert sorted(skipped["unreadable"]) == sorted(paths)
    assert skipped["unreadable"][paths[2]].startswith("cannot be read: [Errno 2] No such file")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["skip_unreadable"] is True

    scores = printed_scores(evaluate_main, capsys, [tmp_path / "run", "--device", "cpu"])
    assert scores["knn_accuracy"] == f"{result_of(tmp_path / 'run')['metrics']['knn_accuracy']:.4f}"


def test_another_dataset_is_evaluated_without_its_unreadable_images(root, tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    train_main([*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)])
    damage(root)
    flags = [str(folder), "--dataset", f"folder:{root}", "--device", "cpu", "--epochs", "1"]
    line = failure_of(evaluate_main, capsys, flags)[-1]
    assert line.startswith("error: 4 unreadable images: ")
    assert "knn_accuracy" in printed_scores(evaluate_main, capsys, [*flags, "--skip-unreadable"])


def test_readable_images_keep_their_order_and_labels(root):
    before = load(root)
    damage(root)
    after = load(root, skip_unreadable=True)
    assert len(after.train) + len(after.test) == 26
    names = [path for path, _ in split_folders(root, Skipped())[0]]
    dropped = {"bars/003.png", "dots/004.png", "dots/007.png", "plain/002.png"}
    kept = [i for i, path in enumerate(names) if os.path.relpath(path, root) not in dropped]
    assert torch.equal(after.train.images, before.train.images[kept])
    assert torch.equal(after.train.labels, before.train.labels[kept])


def test_class_without_a_readable_image_is_an_error_even_if_skipped(root):
    for path in (root / "dots").iterdir():
        path.write_bytes(b"")
    message = refusal(root, skip_unreadable=True)
    assert message == "none of the training images of the class dots can be read"


def test_images_that_become_readable_again_are_not_missing_from_the_cache(root, monkeypatch):
    """An error of the disk or of permissions changes neither size nor time of a file."""
    decode = decoding.decode

    def refuse(path, size):
        if path.endswith("003.png"):
            raise OSError(errno.EIO, "Input/output error")
        return decode(path, size)

    with monkeypatch.context() as broken:
        broken.setattr(decoding, "decode", refuse)
        assert "Input/output error" in refusal(root)
        assert len(load(root, skip_unreadable=True).train) == 23
    assert len(load(root).train) == 24


def test_unreadable_images_are_found_again_without_decoding_the_others(root, monkeypatch):
    damage(root)
    load(root, skip_unreadable=True)
    names = []
    decode = decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda path, size: names.append(os.path.basename(path)) or decode(path, size)
    )
    dataset = load(root, skip_unreadable=True)
    assert sorted(names) == ["002.png", "003.png", "004.png"]  # the broken link is not opened
    assert len(dataset.skipped.unreadable) == 4


def test_images_of_several_frames_are_counted_from_the_cache_too(root, capsys):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for name in ("x.gif", "y.tif"):
        frames[0].save(root / "dots" / name, save_all=True, append_images=frames[1:])
    for _ in range(2):
        assert said(load(root), capsys) == (
            f"folder:{root}: only the first frame is used of 2 images with several\n"
        )


def test_class_folders_may_have_names_that_are_not_utf8(root, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    (root / "dots").rename(root / name)
    (root / name / "001.png").rename(root / name / os.fsdecode(b"\xff.png"))
    flags = ["--dataset", f"folder:{root}", "--output-dir", str(tmp_path / "run")]
    train_main([*FAST, *flags])
    assert result_of(tmp_path / "run")["epochs"] == 1
    (root / name / os.fsdecode(b"\xff.png")).write_bytes(b"")
    (root / name / os.fsdecode(b"\xff\n.txt")).write_bytes(b"")
    line = failure_of(train_main, capsys, [*FAST, *flags[:2], "--output-dir", str(tmp_path / "other")])[-1]
    assert "caf\\xe9/\\xff.png cannot be read as an image" in line.replace("\\udc", "\\x")
    train_main([*FAST, *flags[:2], "--output-dir", str(tmp_path / "third"), "--skip-unreadable"])
    [path] = result_of(tmp_path / "third")["skipped"]["unreadable"]
    assert path.endswith("/caf\\udce9/\\udcff.png")


def test_dataset_whose_own_path_is_not_utf8_trains(root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = root.with_name(os.fsdecode(b"bilder-\xfc"))
    root.rename(other)
    train_main([*FAST, "--dataset", f"folder:{other}"])
    assert "run folder: runs/image/folder-" in capsys.readouterr().out


def test_constant_images_are_named_instead_of_a_smaller_learning_rate(root, tmp_path, capsys):
    for path in root.rglob("*.png"):
        Image.new("RGB", (16, 16), "black").save(path)
    flags = ["--dataset", f"folder:{root}", "--output-dir", str(tmp_path / "run")]
    [line] = failure_of(train_main, capsys, [*FAST, *flags])
    assert line == (
        f"error: all 24 training images of folder:{root} are equal after resizing; there is nothing to learn"
    )


def test_folder_that_cannot_be_listed_is_an_error(root, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "dots":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert f"{root / 'dots'} cannot be read: [Errno 13] Permission denied" in refusal(root)
