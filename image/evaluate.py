"""Score an encoder's representations: ``python -m image.evaluate RUN``.

Shapes: N images · D representation · P projection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import MAX_SEED, default_data_root, setting
from core.training.loop import eval_mode
from core.training.run_folder import load_encoder_state, read_settings
from core.training.runtime import autocast, choose_device
from core.training.seeding import epoch_generator, epoch_order
from image.data import MIN_IMAGE_SIZE, ImageDataset, Images, load_dataset
from image.encoder import ARCHITECTURES, Norm, SimCLR, make_model
from image.views import Normalise, Views
from shared_eval.metrics import SAMPLED, embedding_metrics, split_similarities
from shared_eval.probes import knn_accuracy, linear_probe

CHUNK = 512
METRIC_SAMPLES = 1024
MAX_IMAGE_SIZE = 1024  # of images and views that a run's settings may ask for

Protocol = Literal["frozen", "paper"]


def represent(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    """What ``model`` makes of normalised images, a chunk at a time: float32 [N, D]."""
    with eval_mode(model), autocast(images.device, precision):
        chunks = [model(chunk.contiguous(memory_format=torch.channels_last)) for chunk in images.split(CHUNK)]
    return torch.cat(chunks).float()


def represent_all(encoder: nn.Module, images: Images, precision: str) -> Tensor:
    """The representations of images as they are, without augmentation: [N, D]."""
    normalise = Normalise().to(images.device)
    return torch.cat([represent(encoder, normalise(chunk), precision) for chunk in images.chunks(CHUNK)])


def score_neighbours(encoder: nn.Module, dataset: ImageDataset, precision: str) -> dict[str, float]:
    """Weighted nearest-neighbour accuracy on the test images (k 200, temperature 0.5)."""
    memory, test = (represent_all(encoder, part, precision) for part in (dataset.labelled, dataset.test))
    return {"knn_accuracy": knn_accuracy(memory, dataset.labelled.labels, test, dataset.test.labels)}


def evaluate(
    model: SimCLR,
    dataset: ImageDataset,
    views: Views,
    seed: int,
    precision: str,
    protocol: Protocol = "frozen",
    epochs: int = 100,
) -> dict[str, float]:
    """Nearest neighbours, a linear probe, and how near projections of positives and negatives are.

    ``protocol="frozen"`` computes the features of whole images once; ``"paper"`` trains the probe on the
    features of freshly augmented images in every epoch, as the paper's code does.
    """
    memory, test = (
        represent_all(model.encoder, part, precision) for part in (dataset.labelled, dataset.test)
    )
    labels = dataset.labelled.labels

    def frozen(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in epoch_order(len(memory), seed, epoch).to(memory.device).split(CHUNK):
            yield memory[chosen], labels[chosen]

    def augmented(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = epoch_generator(seed, epoch, memory.device)
        order = epoch_order(len(memory), seed, epoch).to(dataset.labelled.images.device).split(CHUNK)
        for chosen, images in zip(order, dataset.labelled.fetch(order), strict=True):
            features = represent(model.encoder, views(images, generator), precision)
            yield features, labels[chosen.to(labels.device)]

    batches = frozen if protocol == "frozen" else augmented
    return {
        "knn_accuracy": knn_accuracy(memory, labels, test, dataset.test.labels),
        **linear_probe(batches, test, dataset.test.labels, len(dataset.classes), seed, epochs),
        **embedding_metrics(*_projections(model, dataset.test, views, seed, precision)),
    }


def sample(
    model: SimCLR, dataset: ImageDataset, views: Views, seed: int, precision: str
) -> dict[str, Tensor]:
    """Representations of random test images with their labels; cosines of positives and negatives."""
    test = dataset.test
    chosen = epoch_order(len(test), seed, epoch=0)[:SAMPLED].to(test.images.device)
    images = Images(test.images[chosen], test.labels[chosen.to(test.device)])
    view1, view2 = _projections(model, images, views, seed, precision)
    return {
        "representations": represent_all(model.encoder, images, precision),
        "labels": images.labels,
        **split_similarities(view1 @ view2.T),
    }


def _projections(
    model: SimCLR, test: Images, views: Views, seed: int, precision: str
) -> tuple[Tensor, Tensor]:
    """Projections of two views of the same random test images, unit norm: [N, P] twice."""
    chosen = epoch_order(len(test), seed, epoch=0)[:METRIC_SAMPLES]
    images = test.take(chosen.to(test.images.device))
    generator = epoch_generator(seed, 0, test.device)
    pair = [views(images, generator) for _ in range(2)]
    with eval_mode(model), autocast(test.device, precision):
        return tuple(F.normalize(model(view)[1].float(), dim=1) for view in pair)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate a run's trained encoder again, on the run's dataset or on another."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    dataset: str | None = None
    """Another dataset, for transfer; by default the run's own."""
    protocol: Protocol = "frozen"
    """frozen: features of whole images, computed once. paper: of freshly augmented images in every epoch."""
    epochs: int = 100
    """Epochs of the linear probe."""
    data_root: Path = field(default_factory=default_data_root)
    """Where local copies of the data sets lie; $HCL_DATA sets the default."""
    download: bool = False
    """Fetch the data set from its official place where there is no local copy."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""


def evaluate_run(config: EvaluateConfig) -> dict[str, float]:
    """The metrics of the model in a run's folder; on its own dataset, what ``result.json`` has."""
    if config.epochs < 1:
        raise InputError(f"--epochs is {config.epochs}; it must be at least 1")
    settings = read_settings(config.run, modality="image")
    arch, width = setting(settings, "arch", str), setting(settings, "width", int)
    view_size, crop_scale = (
        setting(settings, "view_size", int, MAX_IMAGE_SIZE),
        setting(settings, "crop_scale", float),
    )
    seed, precision = setting(settings, "seed", int, MAX_SEED), setting(settings, "precision", str)
    norm = setting({"norm": "batch"} | settings, "norm", str)  # older runs had no other
    known = arch in ARCHITECTURES and norm in get_args(Norm) and precision in ("float32", "bfloat16")
    if not (known and 0 < crop_scale <= 1):
        raise InputError(
            f"config.json has arch {arch}, norm {norm}, crop_scale {crop_scale}, precision {precision}: "
            "not all are known"
        )
    if view_size < MIN_IMAGE_SIZE:
        raise InputError(f"config.json has view_size {view_size}; it must be at least {MIN_IMAGE_SIZE}")
    image_size = settings.get("image_size")
    if image_size is not None:
        image_size = setting(settings, "image_size", int, MAX_IMAGE_SIZE)
    device = choose_device(config.device)
    name = config.dataset or setting(settings, "dataset", str)
    size = image_size if config.dataset is None else view_size
    dataset = load_dataset(name, config.data_root, config.download, size).to(device)
    with torch.device("meta"):  # the settings may ask for more memory than the weights have
        model = make_model(arch, width, norm)
    load_encoder_state(model, config.run)
    model.encoder.to(memory_format=torch.channels_last)
    views = Views(view_size, scale=(crop_scale, 1.0)).to(device)
    return evaluate(model.to(device), dataset, views, seed, precision, config.protocol, config.epochs)


@command
def main(argv: Sequence[str] | None = None) -> None:
    for name, value in evaluate_run(parse(EvaluateConfig, argv, "python -m image.evaluate")).items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main()
