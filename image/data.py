"""Images by name: the built-in shapes and digits, or a dataset that is on the disk or downloaded.

Shapes: N images · S size, the height and the width.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core.distributed import is_main_process
from core.io.errors import InputError, unknown_name
from core.io.files import one_line, path_in
from core.training.cli import with_flags
from image import published
from image.config import KNOWN, MIN_IMAGE_SIZE, ImageConfig, Labels
from image.decoded import read_splits, read_unlabelled
from image.folders import LabelsError, images_below, split_folders, why_unlabelled
from image.shapes import CLASSES as SHAPES
from image.shapes import make_shapes
from image.skipped import Skipped

MIN_TEST_IMAGES = 2  # uniformity is about pairs of images
FOLDER_IMAGE_SIZE = 64  # of folder:PATH, unless an image size is given
MAX_RESIDENT_SHARE = 0.5  # of the device's free memory; training needs the rest


@dataclass(frozen=True)
class Images:
    """Images and their labels. Labels are on the device, images there too or in the host's memory."""

    images: Tensor  # uint8 (N, 3, S, S)
    labels: Tensor  # int64 (N,), -1 for an unlabelled image

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def to(self, device: torch.device, resident: bool) -> "Images":
        """Move the labels to ``device``, and the images too if ``resident``."""
        return Images(self.images.to(device) if resident else self.images, self.labels.to(device))

    def only(self, indices: Tensor) -> "Images":
        """Those of the indices [n], on any device."""
        return Images(self.images[indices.to(self.images.device)], self.labels[indices.to(self.device)])

    def take(self, indices: Tensor) -> Tensor:
        """Images on the device, by indices that are where the images are: [n] -> uint8 [n, 3, S, S]."""
        images = self.images[indices]
        if images.device == self.device:
            return images
        return images.pin_memory().to(self.device, non_blocking=True)

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """``take`` each batch of indices; from the host's memory a thread gathers one batch ahead."""
        if self.images.device == self.device:
            yield from map(self.take, batches)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead: deque[Future[Tensor]] = deque()
            for indices in batches:
                ahead.append(pool.submit(self.take, indices))
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            yield from (future.result() for future in ahead)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All images in order, on the device, ``size`` at a time."""
        return self.fetch(torch.arange(len(self), device=self.images.device).split(size))

    def resized(self, size: int) -> "Images":
        return Images(resize(self.images, size), self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """Images for contrastive training, the labelled ones among them for the probes, and test images.

    Without labels there are no classes, and all three parts are the same images.
    """

    name: str
    train: Images
    labelled: Images  # the same object as train if all of train is labelled
    test: Images
    classes: tuple[str, ...]
    skipped: Skipped = field(default_factory=Skipped)  # what its folders hold beside these images
    why_unlabelled: str = ""  # of a folder, unless it is to have no labels

    @classmethod
    def unlabelled(cls, name: str, images: Tensor, skipped: Skipped, why: str = "") -> "ImageDataset":
        """A dataset of images without labels: uint8 [N, 3, S, S]."""
        part = Images(images, torch.full((len(images),), -1))
        return cls(name, part, part, part, (), skipped, why)

    @property
    def has_labels(self) -> bool:
        return bool(self.classes)

    def without_labels(self) -> "ImageDataset":
        """The training images as a dataset without labels."""
        return self.unlabelled(self.name, self.train.images, self.skipped) if self.has_labels else self

    def to(self, device: torch.device) -> "ImageDataset":
        """Move to ``device``; if it lacks the memory, the labels alone."""
        images = {id(part): part.images for part in (self.train, self.labelled, self.test)}
        resident = fits(sum(part.numel() for part in images.values()), device)
        return self._map(lambda part: part.to(device, resident))

    def resized(self, size: int) -> "ImageDataset":
        return self._map(lambda part: part.resized(size))

    def _map(self, change: Callable[[Images], Images]) -> "ImageDataset":
        train = change(self.train)
        labelled, test = (
            train if part is self.train else change(part) for part in (self.labelled, self.test)
        )
        return replace(self, train=train, labelled=labelled, test=test)

    @property
    def image_size(self) -> int:
        return self.train.images.shape[2]


def load_dataset(
    name: str,
    data_root: Path,
    download: bool = False,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    labels: Labels = "auto",
    argument: str = "`dataset`",
) -> ImageDataset:
    """Load a dataset by name, which messages call ``argument``; ``image_size`` resizes its images.

    With ``labels="none"`` a dataset of splits keeps its training images alone, and folder:PATH is read whole.

    Raises InputError if the name is unknown, if the data are missing and not to be downloaded, if a file is
    damaged and not to be skipped, or if there is only one class.
    """
    skipped = Skipped(skip_unreadable)
    if image_size is not None and image_size < MIN_IMAGE_SIZE:
        raise InputError(f"`image_size` is {image_size}; it must be at least {MIN_IMAGE_SIZE}")
    if name == "shapes":
        train, test = (
            Images(*map(torch.from_numpy, make_shapes(count, seed))) for count, seed in ((4000, 0), (1000, 1))
        )
        dataset = ImageDataset(name, train, train, test, SHAPES)
    elif name == "digits":
        dataset = _load_digits()
    elif name.startswith("folder:"):
        path = path_in(name)
        dataset = _load_folder(name, path, image_size or FOLDER_IMAGE_SIZE, skipped, labels)
    elif name in published.SOURCES:
        dataset = _load_published(name, data_root, download, image_size, skipped)
    else:
        raise unknown_name(argument, name, KNOWN)
    if labels == "none":
        dataset = dataset.without_labels()
    if len(dataset.classes) == 1:
        raise InputError(f"{argument} is {name!r}, which has 1 class; at least 2 are needed")
    if dataset.has_labels and len(dataset.test) < MIN_TEST_IMAGES:
        raise LabelsError(
            f"{argument} is {name!r}, which has 1 test image; at least {MIN_TEST_IMAGES} are needed",
            "add some",
        )
    return dataset if image_size is None else dataset.resized(image_size)


def load_datasets(
    config: ImageConfig, given: ImageDataset | None = None
) -> tuple[ImageDataset, ImageDataset | None]:
    """The dataset that a config names, or the ``given`` one, and the one for its probes if that is another.

    Says what is left out. Raises InputError as ``load_dataset`` does, and if the probes' dataset has no
    labels.
    """
    where, size, skip = (config.data_root, config.download), config.image_size, config.skip_unreadable
    if given is None:
        dataset = load_dataset(config.dataset, *where, size, skip, config.labels)
    else:
        dataset = given if size is None else given.resized(size)
    warn_skipped(dataset)
    if config.probe_dataset is None:
        return dataset, None
    try:
        size, argument = dataset.image_size, "`probe_dataset`"
        probed = load_dataset(config.probe_dataset, *where, size, skip, "folders", argument)
    except LabelsError as error:  # it needs some
        raise InputError(f"{error.fault}; {error.advice}") from error
    warn_skipped(probed)
    return dataset, probed


def warn_skipped(dataset: ImageDataset) -> None:
    """Say on stderr, on one line, what the folders of a dataset hold that is not used, and if no labels."""
    why = dataset.why_unlabelled
    if why:
        why = with_flags(f"no labels are used; {why} (see `labels`)")
    if (description := "; ".join(filter(None, [dataset.skipped.describe(), why]))) and is_main_process():
        print(one_line(f"{dataset.name}: {description}"), file=sys.stderr)


def fits(size: int, device: torch.device) -> bool:
    """Whether ``size`` bytes of images fit on ``device`` beside the training."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size <= MAX_RESIDENT_SHARE * free


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear with antialiasing: uint8 [N, 3, S, S] -> uint8 [N, 3, size, size]."""
    if images.shape[2] == size:
        return images
    parts = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().byte()
        for part in images.split(1024)
    ]
    return torch.cat(parts)


def _load_digits() -> ImageDataset:
    """scikit-learn's handwritten digits, resized from 8x8 to 16x16; every fifth is a test image."""
    from sklearn.datasets import load_digits  # slow to import

    data = load_digits()
    grey = torch.from_numpy(data.images).float().unsqueeze(1) * (255 / 16)
    images = F.interpolate(grey, (16, 16), mode="bilinear").round().byte().expand(-1, 3, -1, -1)
    labels = torch.from_numpy(data.target).long()
    is_test = torch.arange(len(labels)) % 5 == 0
    train, test = (Images(images[mask].contiguous(), labels[mask]) for mask in (~is_test, is_test))
    return ImageDataset("digits", train, train, test, tuple(map(str, data.target_names)))


def _load_folder(name: str, path: Path, size: int, skipped: Skipped, labels: Labels) -> ImageDataset:
    why = why_unlabelled(path, labels)
    if why is None:
        return _load_class_folders(name, path, size, skipped)
    images = read_unlabelled(images_below(path, skipped), size, skipped)
    return ImageDataset.unlabelled(name, images, skipped, why)


def _load_class_folders(name: str, path: Path, size: int, skipped: Skipped) -> ImageDataset:
    train_files, test_files, classes = split_folders(path, skipped)
    parts = read_splits(train_files, test_files, classes, size, skipped)
    train, test = (Images(*part) for part in parts)
    return ImageDataset(name, train, train, test, tuple(classes), skipped)


def _load_published(
    name: str, data_root: Path, download: bool, image_size: int | None, skipped: Skipped
) -> ImageDataset:
    """From the publisher's layout or from class folders, whichever exists; downloaded if neither does."""
    if not published.exists(name, data_root) and (data_root / name).is_dir():
        size = image_size or published.SOURCES[name].image_size
        return _load_class_folders(name, data_root / name, size, skipped)
    train_split, test_split, classes = published.load(name, data_root, download, skipped)
    train, test = Images(*train_split), Images(*test_split)
    is_labelled = train.labels >= 0
    labelled = train if is_labelled.all() else Images(train.images[is_labelled], train.labels[is_labelled])
    return ImageDataset(name, train, labelled, test, tuple(classes), skipped)
