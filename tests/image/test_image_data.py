"""Image datasets: built-in, published layouts, class folders, caches, downloads, and damaged files."""

import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.filesize import decimal
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from core.io.errors import InputError
from core.io.files import user_cache
from image import data, decoding, published
from image.data import Images, load_dataset
from image.decoded import IMAGES_FILE
from image.folders import list_class_folders
from image.shapes import CLASSES, make_shapes
from image.skipped import Skipped
from image.train import main as train_main
from tests.image.conftest import make_images, read_class_folders, write_class_folders
from tests.runs import failure_of


def test_shapes_are_ten_balanced_classes_drawn_from_the_seed():
    images, labels = make_shapes(60, seed=3)
    assert images.shape == (60, 3, 32, 32)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [6] * len(CLASSES)
    np.testing.assert_array_equal(images, make_shapes(60, seed=3)[0])
    assert (images != make_shapes(60, seed=4)[0]).any()
    assert images.reshape(60, -1).std(axis=1).min() > 5  # no image is blank


@pytest.mark.parametrize(
    ("name", "train", "test", "size"), [("shapes", 4000, 1000, 32), ("digits", 1437, 360, 16)]
)
def test_embedded_datasets(tmp_path, name, train, test, size):
    dataset = load_dataset(name, tmp_path)
    assert dataset.train is dataset.labelled
    assert dataset.train.images.shape == (train, 3, size, size)
    assert dataset.test.images.shape == (test, 3, size, size)
    assert dataset.train.images.dtype == torch.uint8
    assert len(dataset.classes) == 10
    assert set(dataset.train.labels.tolist()) == set(dataset.test.labels.tolist()) == set(range(10))
    assert load_dataset(name, tmp_path, image_size=24).test.images.shape == (test, 3, 24, 24)


def test_resize_equals_pillow():
    """Antialiased bilinear, within one grey level."""
    images, _ = make_images(6, 40, seed=0)
    resized = data.resize(torch.from_numpy(images).permute(0, 3, 1, 2), 16)
    for ours, image in zip(resized, images, strict=True):
        theirs = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= 1


def publish_checksums(monkeypatch, kind, files: dict[str, bytes], lists: dict[str, list[str]]) -> None:
    """Make the publisher's checksums those of ``files``."""
    for attribute, names in lists.items():
        sums = [[name, hashlib.md5(files[name]).hexdigest()] for name in names]
        monkeypatch.setattr(kind, attribute, sums)


def cifar(monkeypatch, kind, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a small CIFAR in the publisher's pickles; returns its training images and labels."""
    images, labels = make_images(12, 32, seed=0)
    flat = images.transpose(0, 3, 1, 2).reshape(12, -1)
    key = "labels" if kind is CIFAR10 else "fine_labels"
    names = [name for name, _ in kind.train_list]
    per_file = 12 // len(names)
    files = {
        name: pickle.dumps(
            {"data": flat[i * per_file :][:per_file], key: labels[i * per_file :][:per_file].tolist()}
        )
        for i, name in enumerate(names)
    }
    test_name = kind.test_list[0][0]
    files[test_name] = pickle.dumps({"data": flat[:3], key: labels[:3].tolist()})
    files[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: ["bars", "dots", "plain"]})
    publish_checksums(monkeypatch, kind, files, {"train_list": names, "test_list": [test_name]})
    meta_sum = hashlib.md5(files[kind.meta["filename"]]).hexdigest()
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta_sum})
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    kept = per_file * len(names)
    return images[:kept].transpose(0, 3, 1, 2), labels[:kept]


@pytest.mark.parametrize(("name", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_in_the_publisher_s_layout(tmp_path, monkeypatch, name, kind):
    images, labels = cifar(monkeypatch, kind, tmp_path / kind.base_folder)
    dataset = load_dataset(name, tmp_path)
    np.testing.assert_array_equal(dataset.train.images.numpy(), images)
    np.testing.assert_array_equal(dataset.train.labels.numpy(), labels)
    assert len(dataset.test) == 3
    assert dataset.classes == ("bars", "dots", "plain")


def test_damaged_pickle_is_never_opened(tmp_path, monkeypatch):
    cifar(monkeypatch, CIFAR10, tmp_path / CIFAR10.base_folder)
    with open(tmp_path / CIFAR10.base_folder / "data_batch_3", "ab") as file:
        file.write(b"more")
    monkeypatch.setattr(pickle, "load", lambda *arguments, **options: pytest.fail("unpickled"))
    with pytest.raises(
        InputError, match=r"cifar-10-batches-py is damaged: the publisher's checksums do not match"
    ):
        load_dataset("cifar10", tmp_path)


def test_stl10_trains_on_unlabelled_images_and_probes_on_labelled_ones(tmp_path, monkeypatch):
    images, labels = make_images(9, 96, seed=0)
    columns_first = images.transpose(0, 3, 2, 1)
    files = {
        "train_X.bin": columns_first[:6].tobytes(),
        "train_y.bin": (labels[:6] + 1).astype(np.uint8).tobytes(),
        "unlabeled_X.bin": columns_first[6:].tobytes(),
        "test_X.bin": columns_first[:3].tobytes(),
        "test_y.bin": (labels[:3] + 1).astype(np.uint8).tobytes(),
    }
    lists = {
        "train_list": ["train_X.bin", "train_y.bin", "unlabeled_X.bin"],
        "test_list": ["test_X.bin", "test_y.bin"],
    }
    publish_checksums(monkeypatch, STL10, files, lists)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "class_names.txt").write_text("bars\ndots\nplain\n")
    dataset = load_dataset("stl10", tmp_path)
    assert (len(dataset.train), len(dataset.labelled), len(dataset.test)) == (9, 6, 3)
    assert dataset.train.labels[6:].tolist() == [-1] * 3
    np.testing.assert_array_equal(dataset.train.images.numpy(), images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.labelled.labels.numpy(), labels[:6])


def write_tiny_imagenet(root: Path) -> None:
    images, labels = make_images(9, 64, seed=0)
    names = ("n01443537", "n01629819", "n01641577")
    for number, (image, label) in enumerate(zip(images[:6], labels[:6], strict=True)):
        folder = root / "train" / names[label] / "images"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.JPEG")
        (folder.parent / "boxes.txt").write_text("0 0 1 1")
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for number, (image, label) in enumerate(zip(images[6:], labels[6:], strict=True)):
        Image.fromarray(image).save(root / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{names[label]}\t0\t0\t62\t57\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def test_tiny_imagenet_in_the_publisher_s_layout(tmp_path):
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    dataset = load_dataset("tinyimagenet", tmp_path)
    assert dataset.train.images.shape == (6, 3, 64, 64)
    assert dataset.test.labels.tolist() == [0, 1, 2]
    (tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n")
    with pytest.raises(InputError, match=r"val_annotations.txt is damaged or names a class that train lacks"):
        load_dataset("tinyimagenet", tmp_path)


def test_class_folders_with_and_without_a_test_folder(tiny_folder, tmp_path):
    images, labels = make_images(48, 16, seed=0)
    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    assert (len(dataset.train), len(dataset.test)) == (48, 12)
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(dataset.train.images.numpy(), images[order].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.train.labels.numpy(), labels[order])
    unsplit = load_dataset(f"folder:{tiny_folder / 'train'}", tmp_path, image_size=16)
    assert (len(unsplit.train), len(unsplit.test)) == (39, 9)


def test_published_name_reads_class_folders_below_the_data_root(tmp_path):
    for part in ("train", "test"):
        write_class_folders(tmp_path / "cifar10" / part, per_class=2, size=32)
    dataset = load_dataset("cifar10", tmp_path)
    assert dataset.train.images.shape == (6, 3, 32, 32)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "gif"])
def test_image_of_any_format_and_shape_is_resized_and_cropped(tmp_path, kind):
    """At the short side and in the centre; grey images become RGB."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            image = np.zeros((40, 60, 3), np.uint8)
            image[:, 20:40] = 255
            picture = Image.fromarray(image)
            (picture.convert("L") if number else picture).save(tmp_path / name / f"{number}.{kind}")
    images = load_dataset(f"folder:{tmp_path}", tmp_path, image_size=20).test.images.float()
    assert images.shape == (2, 3, 20, 20)
    assert images[:, :, :, 8:12].mean() > 240
    assert images[:, :, :, :3].mean() < 15


def test_images_are_decoded_once_and_again_when_a_file_changes(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    decoded = []
    decode = decoding.decode_or_reason
    monkeypatch.setattr(
        decoding, "decode_or_reason", lambda path, size: decoded.append(path) or decode(path, size)
    )
    first = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    assert len(decoded) == 60
    again = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    assert len(decoded) == 60
    assert torch.equal(first.train.images, again.train.images)
    changed = tiny_folder / "test" / "dots" / "001.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    last = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    assert len(decoded) == 60 + 12
    assert (last.test.images[4] == 0).all()
    assert user_cache() == tmp_path / "cache" / "hard-negatives"


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "other", "pipe"])
def test_damaged_cache_is_rebuilt(tmp_path, monkeypatch, capsys, how):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_class_folders(tmp_path / "images", per_class=2)
    files, _ = list_class_folders(root, Skipped())
    images, labels = read_class_folders(files, 16)
    [path] = (user_cache() / "images").glob(f"*/{IMAGES_FILE}")
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    else:
        flipped = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
        other = io.BytesIO()
        np.save(other, np.zeros_like(images.numpy()))
        damaged = {"flipped": flipped, "cut": content[:-1], "empty": b"", "other": other.getvalue()}
        path.write_bytes(damaged[how])
    assert capsys.readouterr().err == ""
    again, _ = read_class_folders(files, 16)
    assert torch.equal(again, images)
    assert capsys.readouterr().err.startswith(f"warning: {path.parent} is damaged and will be rebuilt: ")
    assert path.read_bytes() == content
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    root = write_class_folders(tmp_path / "images", per_class=2)
    files, _ = list_class_folders(root, Skipped())
    images, _ = read_class_folders(files, 16)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert torch.equal(read_class_folders(files, 16)[0], images)


def test_fetch_from_the_host_s_memory_keeps_the_order(monkeypatch):
    """If a GPU lacks the memory, a thread gathers one batch ahead; every image comes once."""
    images = Images(
        torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 3, 2, 2), torch.zeros(20)
    )
    monkeypatch.setattr(Images, "device", torch.device("meta"))
    monkeypatch.setattr(Images, "take", lambda self, chosen: self.images[chosen])
    order = torch.randperm(20)
    fetched = list(images.fetch(order.split(6)))
    assert [len(part) for part in fetched] == [6, 6, 6, 2]
    assert torch.cat(fetched)[:, 0, 0, 0].tolist() == order.tolist()
    assert torch.cat(list(images.chunks(7))).equal(images.images)
    assert list(images.fetch([])) == []


def test_images_may_take_half_of_the_free_device_memory(monkeypatch):
    assert data.fits(10**15, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert data.fits(500, torch.device("cuda"))
    assert not data.fits(501, torch.device("cuda"))


def publish(monkeypatch, served, name: str, archive: str) -> Path:
    """Make the served folder the publisher of ``name``; returns the path that its archive needs."""
    folder, address = served
    change_source(monkeypatch, name, url=f"{address}/{archive}")
    return folder / archive


def change_source(monkeypatch, name: str, **changes: str) -> None:
    source = dataclasses.replace(published.SOURCES[name], **changes)
    monkeypatch.setitem(published.SOURCES, name, source)


@pytest.mark.parametrize(("name", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100), ("stl10", STL10)])
def test_sources_are_torchvision_s(name, kind):
    source = published.SOURCES[name]
    assert (source.folder, source.md5) == (kind.base_folder, kind.tgz_md5)
    assert source.url == kind.url.replace("http://", "https://")


def test_download_is_announced_checked_and_unpacked(served, tmp_path, monkeypatch, capsys):
    images, _ = cifar(monkeypatch, CIFAR10, tmp_path / "made" / CIFAR10.base_folder)
    archive = publish(monkeypatch, served, "cifar10", "cifar-10-python.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / CIFAR10.base_folder, CIFAR10.base_folder)
    change_source(monkeypatch, "cifar10", md5=hashlib.md5(archive.read_bytes()).hexdigest())
    root = tmp_path / "data"
    dataset = load_dataset("cifar10", root, download=True)
    size = decimal(archive.stat().st_size)
    url = published.SOURCES["cifar10"].url
    assert capsys.readouterr().err == f"downloading {url} to {root / CIFAR10.base_folder} ({size})\n"
    np.testing.assert_array_equal(dataset.train.images.numpy(), images)
    assert [path.name for path in root.iterdir()] == [CIFAR10.base_folder]
    archive.unlink()
    load_dataset("cifar10", root, download=True)  # is not downloaded again


def test_tiny_imagenet_is_downloaded(served, tmp_path, monkeypatch):
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    archive = publish(monkeypatch, served, "tinyimagenet", "tiny-imagenet-200.zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted((tmp_path / "tiny-imagenet-200").rglob("*.*")):
            file.write(path, path.relative_to(tmp_path))
    archive.write_bytes(buffer.getvalue())
    change_source(monkeypatch, "tinyimagenet", md5=hashlib.md5(buffer.getvalue()).hexdigest())
    assert len(load_dataset("tinyimagenet", tmp_path / "data", download=True).train) == 6


@pytest.mark.parametrize("content", [None, b"<html>not found</html>"])
def test_failed_download_leaves_nothing(served, tmp_path, monkeypatch, content):
    archive = publish(monkeypatch, served, "cifar10", "cifar-10-python.tar.gz")
    if content:
        archive.write_bytes(content)
    with pytest.raises(InputError, match=r"could not download http://127.0.0.1.*cifar-10-python.tar.gz"):
        load_dataset("cifar10", tmp_path / "data", download=True)
    assert not list((tmp_path / "data").iterdir())


def test_unreadable_datasets_are_errors_of_one_line(tiny_folder, tmp_path):
    def message(name, **options):
        with pytest.raises(InputError) as error:
            load_dataset(name, tmp_path, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "`dataset` is 'cifar-10', which is unknown; did you mean cifar10? Known: shapes" in message(
        "cifar-10"
    )
    assert "set `download` to fetch it from https://www.cs.toronto.edu" in message("cifar10")
    assert "nowhere is not a folder" in message("folder:nowhere")
    assert "`image_size` is 4; it must be at least 8" in message("shapes", image_size=4)
    (tiny_folder / "train" / "dots" / "notes.png").write_text("not an image")
    assert "notes.png cannot be read as an image" in message(f"folder:{tiny_folder}")
    (tiny_folder / "train" / "dots" / "notes.png").unlink()
    intact = (tiny_folder / "train" / "dots" / "001.png").read_bytes()
    (tiny_folder / "train" / "dots" / "001.png").write_bytes(intact[:-200])
    assert "001.png cannot be read as an image" in message(f"folder:{tiny_folder}")
    (tiny_folder / "test" / "extra").mkdir()
    assert "extra is a class folder without images" in message(f"folder:{tiny_folder}")
    Image.new("RGB", (16, 16)).save(tiny_folder / "test" / "extra" / "0.png")
    assert "only one of train and test has the class extra" in message(f"folder:{tiny_folder}")
    few = write_class_folders(tmp_path / "few", per_class=4)
    assert "fewer than 5 images in every class" in message(f"folder:{few}")
    for i, folder in enumerate(sorted(few.iterdir())):
        if i == 0:
            Image.new("RGB", (16, 16)).save(folder / "fifth.png")
    assert "which has 1 test image; at least 2 are needed" in message(f"folder:{few}")
    assert "folder: has no path; it must be folder:PATH" in message("folder:")
    (tmp_path / "empty").mkdir()
    assert "contains no class folders; add them, or set `labels` none" in message(
        f"folder:{tmp_path / 'empty'}", labels="folders"
    )
    assert "contains no images" in message(f"folder:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--dataset", "folder:one", "--labels", "folders"],
            "--dataset is 'folder:one', which has 1 class; at least 2 are needed",
        ),
        (["--dataset", "cifar10"], "could not download http://127.0.0.1"),
        (["--dataset", "cifar10", "--no-download"], "--dataset is 'cifar10', but data/cifar-10-batches-py"),
    ],
)
def test_command_ends_in_one_line_on_a_bad_dataset(served, tmp_path, monkeypatch, capsys, flags, message):
    publish(monkeypatch, served, "cifar10", "cifar-10-python.tar.gz")  # where nothing is
    write_class_folders(tmp_path / "one", per_class=6)
    for name in ("dots", "plain"):
        shutil.rmtree(tmp_path / "one" / name)
    monkeypatch.chdir(tmp_path)
    [line] = failure_of(train_main, capsys, [*flags, "--device", "cpu"])
    assert line.startswith(f"error: {message}")
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.data("cifar10")
def test_real_cifar10(data_root):
    train, classes = list_class_folders(data_root / "cifar10" / "train", Skipped())
    assert len(train) == 50000
    assert classes[0] == "airplane"
    sample, _ = read_class_folders(train[::500], 32)
    mean = sample.double().mean(dim=(0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.02)
