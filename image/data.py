"""Images by name: the embedded shapes and digits, or a dataset found locally or downloaded.

Shapes: N images · S size, height and width alike.
"""

import difflib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from core.io.errors import InputError
from image import published
from image.folders import read_class_folders, split_folders
from image.shapes import CLASSES as SHAPES
from image.shapes import make_shapes

KNOWN = ("shapes", "digits", "cifar10", "cifar100", "stl10", "tinyimagenet", "folder:PATH")
MIN_IMAGE_SIZE = 8
RESIDENT_SHARE = 0.5  # of the device's free memory: what images may take of it, the rest is for training


@dataclass(frozen=True)
class Images:
    """Images and their classes: labels on the device, the images there too or in the host's memory."""

    images: Tensor  # uint8 (N, 3, S, S)
    labels: Tensor  # int64 (N,), -1 where there is none

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device, resident: bool) -> "Images":
        """With labels on ``device``, and images there if they are to be ``resident``, else pinned here."""
        images = self.images.to(device) if resident else self.images.pin_memory()
        return Images(images, self.labels.to(device))

    def take(self, chosen: Tensor) -> Tensor:
        """The images at places that lie where the images do, on the device: [n] -> uint8 [n, 3, S, S]."""
        images = self.images[chosen]
        if images.device == self.device:
            return images
        return images.pin_memory().to(self.device, non_blocking=True)

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """``take`` for one batch after the other; from the host's memory they are gathered one ahead."""
        if self.images.device == self.device:
            yield from map(self.take, batches)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for chosen in batches:
                ahead, ready = pool.submit(self.take, chosen), ahead
                if ready:
                    yield ready.result()
            if ahead:
                yield ahead.result()

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All images in order, on the device, ``size`` at a time."""
        return self.fetch(torch.arange(len(self), device=self.images.device).split(size))


@dataclass(frozen=True)
class ImageDataset:
    """What contrastive training sees, what probes learn from, and what they are tested on."""

    name: str
    train: Images
    memory: Images
    test: Images
    classes: tuple[str, ...]

    def to(self, device: torch.device) -> "ImageDataset":
        """On ``device``, whole if it has the room; otherwise the images stay in pinned memory."""
        parts = {id(part): part for part in (self.train, self.memory, self.test)}
        resident = fits(sum(part.images.numel() for part in parts.values()), device)
        moved = {key: part.to(device, resident) for key, part in parts.items()}
        train, memory, test = (moved[id(part)] for part in (self.train, self.memory, self.test))
        return ImageDataset(self.name, train, memory, test, self.classes)

    @property
    def image_size(self) -> int:
        return self.train.images.shape[2]


def load_dataset(
    name: str, data_root: Path, download: bool = False, image_size: int | None = None
) -> ImageDataset:
    """Load a dataset by name; ``image_size`` resizes it, once.

    Raises InputError where the name is unknown, the data are missing and not to be downloaded, a file is
    damaged, or there is only one class.
    """
    if image_size is not None and image_size < MIN_IMAGE_SIZE:
        raise InputError(f"--image-size is {image_size}; it must be at least {MIN_IMAGE_SIZE}")
    if name == "shapes":
        train, test = (_images(*make_shapes(count, seed)) for count, seed in ((4000, 0), (1000, 1)))
        parts = train, train, test, SHAPES
    elif name == "digits":
        parts = _digits()
    elif name.startswith("folder:"):
        parts = _folder(Path(name.removeprefix("folder:")), image_size or 64)
    elif name in published.LOADERS:
        parts = _published(name, data_root, download, image_size)
    else:
        close = difflib.get_close_matches(name.lower(), KNOWN, n=1)
        hint = f" (did you mean {close[0]}?);" if close else ";"
        raise InputError(f"--dataset {name} is unknown{hint} known: {', '.join(KNOWN)}")
    *images, classes = parts
    if len(classes) < 2:
        raise InputError(f"--dataset {name} has {len(classes)} class; at least 2 are needed")
    if image_size is not None:
        train, memory, test = images
        resized = Images(resize(memory.images, image_size), memory.labels)
        train = resized if train is memory else Images(resize(train.images, image_size), train.labels)
        images = [train, resized, Images(resize(test.images, image_size), test.labels)]
    return ImageDataset(name, *images, tuple(classes))


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of images may lie on ``device``."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size <= RESIDENT_SHARE * free


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [N, 3, S, S] -> uint8 [N, 3, size, size], bilinear with antialiasing."""
    if images.shape[2] == size:
        return images
    parts = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().byte()
        for part in images.split(1024)
    ]
    return torch.cat(parts)


def _images(images: np.ndarray, labels: np.ndarray) -> Images:
    return Images(torch.from_numpy(images), torch.from_numpy(labels))


def _digits() -> tuple[Images, Images, Images, list[str]]:
    """scikit-learn's handwritten digits, 8x8 made 16x16; every fifth is for testing."""
    data = load_digits()
    grey = torch.from_numpy(data.images).float().unsqueeze(1) * (255 / 16)
    large = F.interpolate(grey, (16, 16), mode="bilinear").round().byte().expand(-1, 3, -1, -1)
    labels = torch.from_numpy(data.target).long()
    of_test = torch.arange(len(labels)) % 5 == 0
    train, test = (Images(large[of].contiguous(), labels[of]) for of in (~of_test, of_test))
    return train, train, test, [str(name) for name in data.target_names]


def _folder(path: Path, size: int) -> tuple[Images, Images, Images, list[str]]:
    train, test, classes = split_folders(path)
    train, test = (Images(*read_class_folders(files, size)) for files in (train, test))
    return train, train, test, classes


def _published(
    name: str, data_root: Path, download: bool, image_size: int | None
) -> tuple[Images, Images, Images, list[str]]:
    """From torchvision's layout or from class folders, whichever is there; else downloaded, if asked."""
    folder = data_root / name
    if not published.is_there(name, data_root) and folder.is_dir():
        native = published.SIZES[name]
        return _folder(folder, image_size or native)
    train, test, classes = published.load(name, data_root, download)
    train, test = _images(*train), _images(*test)
    labelled = train.labels >= 0
    memory = train if labelled.all() else Images(train.images[labelled], train.labels[labelled])
    return train, memory, test, classes
