"""Training from Python on images of one's own: ``image.train_on(tensor_or_folder, ...)``.

Shapes: N images · S size · D representation.
"""

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.io.digests import name_of
from core.io.errors import InputError, reason_of
from core.training.from_python import python_config, refuse_dataset
from core.training.launch import TaskType, launch
from image.config import TENSOR, ImageConfig, defaults_for
from image.data import MIN_TEST_IMAGES, ImageDataset, Images
from image.loading import clamped, load_encoder
from image.skipped import Skipped
from image.task import ImageTask


def train_on(
    data: Tensor | str | os.PathLike[str],
    targets: Tensor | None = None,
    *,
    output_dir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> nn.Module:
    """Train SimCLR as ``python -m image.train`` does, and return the encoder as ``image.load_encoder`` does.

    Args:
        data: Images [N, 3, S, S], uint8 or float in [0, 1]; or a folder, read as ``folder:PATH`` is.
        targets: The class of each image [N] of a tensor; every fifth image of a class is then a test image.
        output_dir: The run's folder; by default a temporary one, which is removed.
        settings: Those of the command, by name: ``objective="hard"``, ``epochs=100``, ``batch_size=64``, ...

    Raises:
        InputError: Images or settings are not valid, or ``output_dir`` holds something else.
        TrainingError: Training diverged or collapsed, or the folder cannot be written.
    """
    refuse_dataset(settings, "data")
    task_type: TaskType = ImageTask
    if not isinstance(data, Tensor | str | os.PathLike):
        kind = type(data).__name__
        raise InputError(f"`data` is of type {kind}; it must be a tensor [N, 3, S, S], or a folder's path")
    if isinstance(data, Tensor):
        labels = settings.get("labels", "auto")
        if labels == "folders" or (labels == "none" and targets is not None):
            raise InputError(f"`labels` is {labels}, but those of a tensor are its `targets`; leave it out")
        dataset = dataset_of(data, None if targets is None else tensor_of(targets))
        task_type = partial(ImageTask, dataset=dataset)
        size = settings.get("image_size") or dataset.image_size
        settings = settings | {"dataset": dataset.name, "image_size": size}
    elif targets is not None:
        raise InputError("`targets` are those of a tensor; class folders, or `labels`, say those of a folder")
    else:
        settings["dataset"] = f"folder:{os.fspath(data)}"
    with python_config(ImageConfig, defaults_for, output_dir, settings) as config:
        config.check_init()
        launch(task_type, config, shows_folder=output_dir is not None)
        return load_encoder(config.folder())


def tensor_of(targets: Any) -> Tensor:
    try:
        return torch.as_tensor(targets)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"`targets` must be a number for each image: {reason_of(error)}") from error


def dataset_of(images: Tensor, targets: Tensor | None = None) -> ImageDataset:
    """The dataset of a tensor's images; raises InputError if images or targets are not valid."""
    shape = list(images.shape)
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or not len(images):
        raise InputError(f"`data` has shape {shape}; it must be [N, 3, S, S] with at least one image")
    if images.is_floating_point():
        try:
            images = (clamped("data", images) * 255).round().byte()
        except ValueError as error:
            raise InputError(str(error)) from None
    elif images.dtype != torch.uint8:
        raise InputError(f"`data` is {images.dtype}; it must be uint8, or float in [0, 1]")
    images = images.cpu()
    # Named by its content: a finished run in a folder must not pass for one of another tensor.
    name = name_of(TENSOR, [images, *([] if targets is None else [targets.cpu()])])
    if targets is None:
        return ImageDataset.unlabelled(name, images, Skipped())
    if targets.shape != images.shape[:1]:
        raise InputError(f"`targets` has shape {list(targets.shape)}; `data` has {len(images)} images")
    if not targets.isfinite().all():
        raise InputError("`targets` has NaN or infinite numbers; each must name a class")
    values, labels = targets.cpu().unique(return_inverse=True)
    if len(values) < 2:
        raise InputError("`targets` names 1 class; at least 2 are needed")
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(values)):
        is_test[(labels == label).nonzero()[4::5]] = True
    if not is_test.any():
        raise InputError("`targets` has fewer than 5 images in every class; every fifth is a test image")
    if is_test.sum() < MIN_TEST_IMAGES:
        raise InputError(
            f"`targets` gives 1 test image, every fifth of a class; at least {MIN_TEST_IMAGES} are needed"
        )
    train, test = (Images(images[mask], labels[mask]) for mask in (~is_test, is_test))
    return ImageDataset(name, train, train, test, tuple(str(value) for value in values.tolist()))
