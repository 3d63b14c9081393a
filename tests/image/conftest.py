"""Small images on disk, in class folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from image.decoded import read_images
from image.skipped import Skipped

CLASSES = ("bars", "dots", "plain")


def make_images(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with vertical bars, dots or nothing else: images uint8 [N, size, size, 3] and labels [N]."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 100, (count, size, size, 3))
    labels = np.arange(count) % len(CLASSES)
    images[labels == 0, :, ::3] += 150
    images[labels == 1, ::3, ::3] += 150
    return images.astype(np.uint8), labels


def write_class_folders(root: Path, per_class: int, size: int = 16, seed: int = 0, kind: str = "png") -> Path:
    """Write root/CLASS/NUMBER.kind for every image; return the root."""
    images, labels = make_images(per_class * len(CLASSES), size, seed)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03}.{kind}")
    return root


def read_class_folders(files: list[tuple[str | Path, int]], size: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the files; raises InputError if one cannot be read."""
    skipped = Skipped()
    images, labels = read_images([(str(path), label) for path, label in files], size, skipped)
    skipped.check()
    return images, labels


@pytest.fixture
def tiny_folder(tmp_path) -> Path:
    """48 training and 12 test images of three classes, 16 pixels wide."""
    root = tmp_path / "tiny"
    write_class_folders(root / "train", per_class=16)
    write_class_folders(root / "test", per_class=4, seed=1)
    return root
