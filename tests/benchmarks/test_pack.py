"""An image dataset in parts: packed, carried one at a time, unpacked, it is the same dataset."""

import shutil

import pytest
import torch

from benchmarks import pack
from benchmarks.pack import COLUMNS, main, one_by_one, side_by_side
from image.data import load_dataset
from image.task import fingerprint
from tests.image.conftest import write_class_folders
from tests.runs import failure_of


@pytest.fixture
def source(tmp_path):
    """A data root with CIFAR-10's folder: 3 classes of 40 training and 7 test images."""
    write_class_folders(tmp_path / "data" / "cifar10" / "train", per_class=40, size=32)
    write_class_folders(tmp_path / "data" / "cifar10" / "test", per_class=7, size=32, seed=1)
    return tmp_path / "data"


@pytest.mark.parametrize("count", [1, COLUMNS, COLUMNS + 1, 3 * COLUMNS - 1])
def test_mosaic_has_all_images_in_order(count):
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    mosaic = side_by_side(images)
    assert mosaic.shape == (-(-count // COLUMNS) * 8, COLUMNS * 8, 3)
    assert (one_by_one(mosaic, count) == images.permute(0, 2, 3, 1).numpy()).all()


def test_parts_are_unpacked_one_at_a_time(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pack, "MAX_IMAGES", 16)
    parts, carried, target = tmp_path / "parts", tmp_path / "carried", tmp_path / "target"
    main(["--data-root", str(source), "--folder", str(parts), "--part-mib", "0.08"])
    files = sorted(parts.iterdir())
    assert len(files) > 2
    assert [file.name for file in files] == [
        f"cifar10-{i}-of-{len(files)}.zip" for i in range(1, len(files) + 1)
    ]
    assert all(file.stat().st_size < 0.09 * 2**20 for file in files)
    for i, file in enumerate(files, 1):
        assert not (target / "cifar10").exists()
        shutil.rmtree(carried, ignore_errors=True)
        carried.mkdir()
        shutil.copy(file, carried)
        for _ in range(2):  # the second time nothing is left to do
            main(["--unpack", "--data-root", str(target), "--folder", str(carried)])
        assert f"{i} of {len(files)} parts are unpacked" in capsys.readouterr().out
    expected, actual = load_dataset("cifar10", source), load_dataset("cifar10", target)
    assert fingerprint(actual) == fingerprint(expected)
    for split in ("train", "test"):
        for name in ("images", "labels"):
            assert torch.equal(getattr(getattr(actual, split), name), getattr(getattr(expected, split), name))
    assert [path.name for path in target.iterdir()] == ["cifar10"]


def test_parts_of_an_earlier_packing_are_removed(source, tmp_path):
    for _ in range(2):
        main(["--data-root", str(source), "--folder", str(tmp_path / "parts"), "--part-mib", "50"])
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["cifar10-1-of-1.zip"]


def test_folder_without_parts_is_refused(tmp_path, capsys):
    lines = failure_of(
        main, capsys, ["--unpack", "--folder", str(tmp_path), "--data-root", str(tmp_path / "data")]
    )
    assert "has no part of cifar10" in lines[-1]
