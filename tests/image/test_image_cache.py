"""The cache of decoded images: mapped, shared by processes, written in constant memory, resumed, trimmed."""

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from core.io.cache import locked
from core.io.files import user_cache
from image import decoded, decoding
from image.cache import main as cache_main
from image.data import load_dataset
from image.decoded import IMAGES_FILE
from tests.image.conftest import read_class_folders, write_class_folders
from tests.image.test_image_data import cifar
from tests.runs import failure_of

SHOW_MAP = """
import sys
from pathlib import Path
from image.data import load_dataset
from tests.image.test_image_cache import mapped_file
print(mapped_file(load_dataset(sys.argv[1], Path(), image_size=16).train.images))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return user_cache() / "images"


def files_of(root: Path) -> list[tuple[str, int]]:
    return [(str(path), 0) for path in sorted(root.rglob("*.png"))]


def mapped_file(images: torch.Tensor) -> str:
    """Device, inode and path of the file that the images' memory is a map of."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, _, _, *file = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in ends.split("-"))
        if first <= images.data_ptr() < last:
            return " ".join(file)
    raise AssertionError("the images are nowhere")


def test_two_processes_map_the_same_file(tiny_folder, cache):
    """So the pages are in memory once, also those of many ranks."""
    name = f"folder:{tiny_folder}"
    ours = mapped_file(load_dataset(name, Path(), image_size=16).train.images)
    assert ours.endswith(f"/{IMAGES_FILE}")
    assert str(cache) in ours
    theirs = subprocess.run(
        [sys.executable, "-c", SHOW_MAP, name], check=True, capture_output=True, text=True
    )
    assert theirs.stdout.strip() == ours


def test_images_on_the_cpu_are_the_map_itself_and_the_file_is_safe_from_them(tiny_folder, cache):
    dataset = load_dataset(f"folder:{tiny_folder}", Path(), image_size=16)
    train = dataset.train.images
    assert dataset.to(torch.device("cpu")).train.images.data_ptr() == train.data_ptr()
    before = train.clone()
    train.zero_()
    again = load_dataset(f"folder:{tiny_folder}", Path(), image_size=16)
    assert torch.equal(again.train.images, before)


def test_published_set_is_mapped_once_its_publisher_s_files_were_read(tmp_path, cache, monkeypatch, capsys):
    images, labels = cifar(monkeypatch, CIFAR10, tmp_path / CIFAR10.base_folder)
    first = load_dataset("cifar10", tmp_path)
    monkeypatch.setattr(CIFAR10, "__init__", lambda *arguments, **options: pytest.fail("read again"))
    again = load_dataset("cifar10", tmp_path)
    for dataset in (first, again):
        np.testing.assert_array_equal(dataset.train.images.numpy(), images)
        np.testing.assert_array_equal(dataset.train.labels.numpy(), labels)
        assert dataset.train.labels.dtype == torch.int64
        assert dataset.classes == ("bars", "dots", "plain")
        assert str(cache) in mapped_file(dataset.train.images)
    cache_main([])
    folder = tmp_path / CIFAR10.base_folder
    assert f"  {len(images) + 3} images of 32 pixels from {folder}\n" in capsys.readouterr().out


def test_interrupted_decoding_is_resumed(tmp_path, cache, monkeypatch):
    files = files_of(write_class_folders(tmp_path / "images", per_class=10))
    monkeypatch.setattr(decoded, "CHUNK_BYTES", 4 * 3 * 16 * 16)
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 1)  # so that they are decoded in order
    decode, read = decoding.decode, []

    def stop_at_15(path, size):
        if path == files[15][0]:
            raise KeyboardInterrupt
        return decode(path, size)

    monkeypatch.setattr(decoding, "decode", stop_at_15)
    with pytest.raises(KeyboardInterrupt):
        read_class_folders(files, 16)
    [scratch] = (path for path in cache.iterdir() if path.is_dir())
    with open(scratch / IMAGES_FILE, "ab") as file:
        file.write(b"half an image")  # as a process leaves it that is killed while it writes
    monkeypatch.setattr(decoding, "decode", lambda path, size: read.append(path) or decode(path, size))
    images, _ = read_class_folders(files, 16)
    assert read == [path for path, _ in files[12:]]
    expected = np.stack([decode(path, 16)[0] for path, _ in files])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert not scratch.exists()


def test_memory_does_not_grow_with_the_images(tmp_path, cache, monkeypatch):
    """300 more images are 3.7 MB more on the disk alone."""
    monkeypatch.setattr(decoded, "CHUNK_BYTES", 1 << 16)
    files = files_of(write_class_folders(tmp_path / "images", per_class=200, size=64))
    peaks = []
    for chosen in (files[:10], files[:300], files):  # the first imports what is needed
        tracemalloc.start()
        images, _ = read_class_folders(chosen, 64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert images.shape == (600, 3, 64, 64)
    assert peaks[2] < peaks[1] + 500_000


def test_command_lists_and_removes_those_not_used_for_longest(tmp_path, cache, capsys):
    def lines(*flags: str) -> list[str]:
        cache_main(flags)
        return capsys.readouterr().out.splitlines()

    assert lines() == [f"   0 bytes  in {cache}"]
    roots = [write_class_folders(tmp_path / name, per_class=2) for name in ("first", "second", "third")]
    for root in (*roots, roots[0]):  # the first is used again
        read_class_folders(files_of(root), 16)
        time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    size = sum(path.stat().st_size for path in cache.glob("*/*"))
    *listed, total = lines()
    for line, root in zip(listed, (roots[1], roots[2], roots[0]), strict=True):
        assert line.endswith(f"  6 images of 16 pixels from {root}")
    assert total.split()[0] == f"{size / 1000:.1f}"
    assert [line.endswith(", removed") for line in lines("--trim", f"{size * 2 // 3}")] == [
        True,
        *[False] * 3,
    ]
    assert len(lines()) == 3
    with locked(next(path for path in cache.iterdir() if path.is_dir())):  # as a process that builds it does
        assert len([line for line in lines("--remove") if line.endswith(", removed")]) == 1
    assert len(lines("--remove")) == 2
    assert lines() == [f"   0 bytes  in {cache}"]


def test_unfinished_and_older_folders_are_listed(cache, capsys):
    for name, content in (
        (".building-a", '{"images": 5, "size": 16, "source": "x", "total": 9}'),
        ("b", "[]"),
    ):
        (cache / name).mkdir(parents=True)
        (cache / name / "progress.json").write_text(content)
    cache_main([])
    unfinished, older, _ = capsys.readouterr().out.splitlines()
    assert unfinished.endswith("  5 images of 16 pixels from x, not complete: of 9 files")
    assert older.endswith("  of another version")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trim", "20 apples"], "--trim is '20 apples'; it must be a size, such as 500MB or 20GB"),
        (["--trim", "1GB", "--remove"], "--remove removes all; leave out --trim"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, flags, message):
    assert failure_of(cache_main, capsys, flags) == [f"error: {message}"]
