"""Train SimCLR on images: ``python -m image.train --dataset cifar10 --objective hard --beta 1``."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from core import HardNegativeLoss
from core.distributed import is_main_process, local_slice, parallel, rank, world_size
from core.io.digests import digest_of
from core.io.errors import InputError
from core.losses.gradient_cache import cached
from core.training.cli import command, flag, parse_config
from core.training.config import TrainConfig, hardness_of
from core.training.launch import launch
from core.training.loop import fit, warn_dropped_samples
from core.training.optimizers import lr_factor, make_optimizer
from core.training.run_folder import Run
from core.training.seeding import epoch_generator, epoch_order, seed_everything
from image.data import ImageDataset, Images, load_dataset
from image.encoder import Norm, Pair, make_model
from image.evaluate import CHUNK, evaluate, represent_all, sample, score_neighbours
from image.views import Views

ANNEAL_STEPS = 9  # beta goes down in as many equal steps, the last of them to 0


@dataclass(frozen=True, kw_only=True)
class ImageConfig(TrainConfig):
    """Train SimCLR, evaluate it by nearest neighbours and a linear probe, and record both."""

    plain_objective: ClassVar[str] = "simclr"

    dataset: str = "shapes"
    """shapes or digits (embedded), cifar10, cifar100, stl10, tinyimagenet, or folder:PATH (class folders)."""
    objective: Literal["simclr", "debiased", "hard"] = "hard"
    """Named points of one formula: beta 0 and tau_plus 0, tau_plus > 0, beta > 0."""
    temperature: float = 0.5
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    epochs: int = 400
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-6
    """Weight decay."""
    optimizer: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    """Optimizer; sgd and lars have momentum 0.9."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes after the warm-up."""
    warmup: int = 0
    """Epochs in which the learning rate rises linearly."""
    anneal_beta: Literal["none", "down"] = "none"
    """down: beta falls from its value to 0 in nine steps over the epochs."""
    stop_gradient: bool = False
    """Treat the negatives' weights as constants."""
    tile_size: int | None = None
    """Tiles of the similarity matrix held at a time, for large batches; by default it is held whole."""
    cache_chunk: int | None = None
    """Most images that a process encodes at a time (gradient caching); batch norm then sees a chunk."""
    arch: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet50"
    """Encoder, with a 3x3 first convolution and no max-pool."""
    width: int = 64
    """Channels of the encoder's first stage; 64 is the architecture's own."""
    norm: Norm = "batch"
    """Normalisation of encoder and head; group treats images one by one."""
    image_size: int | None = None
    """Size of the images, resized once; by default the dataset's own."""
    view_size: int = 32
    """Size of the views trained on."""
    crop_scale: float = 0.08
    """Least share of the image's area that a view shows."""
    positives: Literal["views", "label"] = "views"
    """label: the second view is of another image of the class, the paper's oracle."""
    knn_every: int = 0
    """Epochs between nearest-neighbour scores; 0 takes them before and after training alone."""
    compile: bool = False
    """Compile encoder and head with torch.compile."""

    def checked(self) -> "ImageConfig":
        if not (self.temperature and self.temperature > 0):
            raise InputError(f"--temperature is {self.temperature}; it must be above 0")
        if self.batch_size < 2:
            raise InputError(f"--batch-size is {self.batch_size}; at least 2 images are needed for negatives")
        leasts = {"width": 1, "view_size": 8, "warmup": 0, "knn_every": 0, "tile_size": 1, "cache_chunk": 1}
        for name, least in leasts.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise InputError(f"--{flag(name)} is {getattr(self, name)}; it must be at least {least}")
        if self.cache_chunk == 1 and self.norm == "batch":
            raise InputError("--cache-chunk is 1; batch norm needs at least 2 images, or use --norm group")
        if not 0 < self.crop_scale <= 1:
            raise InputError(f"--crop-scale is {self.crop_scale}; it must be above 0 and at most 1")
        if not self.weight_decay >= 0:
            raise InputError(f"--weight-decay is {self.weight_decay}; it must be at least 0")
        return super().checked()

    def objective_slug(self) -> str:
        details = [self.anneal_beta != "none" and "annealed", self.stop_gradient and "stopgradient"]
        details.append(self.positives == "label" and "truepositives")
        return "-".join([super().objective_slug(), *filter(None, details)])

    def objective_record(self) -> dict:
        names = ("stop_gradient", "anneal_beta", "positives")
        return super().objective_record() | {name: getattr(self, name) for name in names}


def recipe(dataset: str = "shapes", objective: str = "hard") -> ImageConfig:
    """The paper's settings (image code), and small ones for the embedded datasets, made for two cores."""
    beta, tau_plus = hardness_of(objective)
    config = ImageConfig(dataset=dataset, beta=beta, tau_plus=tau_plus)
    if dataset not in ("shapes", "digits"):
        return config
    small = replace(config, arch="resnet10", width=16, epochs=20, lr=2e-3)
    if dataset == "digits":
        return replace(small, view_size=16)
    # Shapes differ by their outline, of which a small crop shows too little.
    return replace(small, crop_scale=0.3)


class Batches:
    """The batches of every epoch, two views each: order and draws depend on seed and epoch alone.

    Of every batch, each process makes the views of its own part, with draws of its own.
    """

    def __init__(self, train: Images, views: Views, config: ImageConfig) -> None:
        self.train, self.views, self.config = train, views, config
        self.steps = len(train) // config.batch_size
        self.part = local_slice(config.batch_size)
        if config.positives == "label":
            labels = train.labels.cpu()
            self.by_class = labels.argsort(stable=True)
            self.counts = torch.bincount(labels)
            self.first = self.counts.cumsum(0) - self.counts

    def of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of views, float32 [B, 3, S, S]; what would make an incomplete batch is left out."""
        seed, device = self.config.seed, self.train.device
        order = epoch_order(len(self.train), seed, epoch)
        generator = epoch_generator(seed, epoch, device, rank())
        if self.config.positives == "views":
            for images in self.train.fetch(self._parts(order)):
                yield self.views(images, generator), self.views(images, generator)
            return
        positives = self._others_of_class(order, epoch)
        for pair in zip(*(self.train.fetch(self._parts(of)) for of in (order, positives)), strict=True):
            yield tuple(self.views(images, generator) for images in pair)

    def _parts(self, order: Tensor) -> list[Tensor]:
        """This process's part of every whole batch, moved to where the images are: once an epoch."""
        order = order.to(self.train.images.device)
        return [batch[self.part] for batch in order.split(self.config.batch_size)[: self.steps]]

    def _others_of_class(self, order: Tensor, epoch: int) -> Tensor:
        """For each image another one of its class, in a class of one the image itself: [N] -> [N]."""
        classes = self.train.labels.cpu()[order]
        place = torch.empty_like(order)
        place[self.by_class] = torch.arange(len(order)) - self.first.repeat_interleave(self.counts)
        draws = torch.rand(
            len(order), generator=epoch_generator(self.config.seed, epoch, torch.device("cpu"))
        )
        others = (self.counts[classes] - 1).clamp(min=1)
        step = 1 + (draws * others).long()  # round the class, never back to where it started
        return self.by_class[self.first[classes] + (place[order] + step) % self.counts[classes]]


def annealed(beta: float, how: str, epoch: int, epochs: int) -> float:
    """The hardness of an epoch, counted from 1: constant, or down to 0 in nine steps."""
    if how == "none":
        return beta
    step = (epoch - 1) * ANNEAL_STEPS // epochs
    return beta * (1 - step / (ANNEAL_STEPS - 1))


def fingerprint(dataset: ImageDataset) -> dict[str, int | str]:
    """What tells other data from those that a run began with: counts, and digests of classes and labels."""
    return {
        "images": len(dataset.train),
        "image_size": dataset.image_size,
        "classes": digest_of(f"{name}/" for name in dataset.classes),
        "labels": digest_of(part.labels for part in (dataset.train, dataset.memory, dataset.test)),
    }


def train(run: Run, config: ImageConfig, device: torch.device) -> None:
    """Train, evaluate and record: everything that ``run``'s folder is to hold."""
    dataset = load_dataset(config.dataset, config.data_root, config.download, config.image_size)
    check_fits(config, dataset)
    dataset = dataset.to(device)
    views = Views(config.view_size, scale=(config.crop_scale, 1.0)).to(device)
    batches = Batches(dataset.train, views, config)
    images = len(dataset.train)
    warn_dropped_samples(
        images - batches.steps * config.batch_size, f"of {images:,} images", config.batch_size
    )
    if world_size() > 1 and is_main_process():
        share = config.batch_size // world_size()
        print(f"{world_size()} processes: batches of {config.batch_size} images, {share} a process")

    seed_everything(config.seed)
    model = make_model(config.arch, config.width, config.norm).to(device)
    pair = Pair(model)
    network = parallel(cached(pair, config.cache_chunk), device)
    if config.compile:
        (pair if config.cache_chunk else network).compile()
    optimizer = make_optimizer(config.optimizer, model.parameters(), config.lr, config.weight_decay)
    objective = HardNegativeLoss(
        config.beta,
        config.tau_plus,
        config.temperature,
        normalize=False,  # the network's projections have unit length
        tile_size=config.tile_size,
        stop_gradient=config.stop_gradient,
        gather_distributed=world_size() > 1,
    )

    def batches_of(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        objective.beta = annealed(config.beta, config.anneal_beta, epoch, config.epochs)
        return batches.of_epoch(epoch)

    def loss_of(views: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        projections = network(*views)
        return objective(*projections), projections[0]

    def score(epoch: int) -> dict[str, float]:
        if epoch == 0:
            return evaluate(model, dataset, views, config.seed, config.precision)
        is_due = config.knn_every and epoch % config.knn_every == 0
        return score_neighbours(model.encoder, dataset, config.precision) if is_due else {}

    some = Images(dataset.train.images[:CHUNK], dataset.train.labels[:CHUNK])
    trained = fit(
        run,
        model,
        optimizer,
        batches_of,
        loss_of,
        score,
        lambda: represent_all(model.encoder, some, config.precision),
        data=fingerprint(dataset),
        steps=batches.steps,
        device=device,
        samples_per_epoch=batches.steps * config.batch_size,
        lr_factor=lambda done: lr_factor(config.schedule, config.epochs, config.warmup, done),
    )
    if is_main_process():
        started = time.perf_counter()
        metrics = evaluate(model, dataset, views, config.seed, config.precision)
        run.save_encoder(model.state_dict())
        run.save_sample(sample(model, dataset, views, config.seed, config.precision))
        run.finish(metrics, trained, eval_seconds=time.perf_counter() - started, device=device)


def check_fits(config: ImageConfig, dataset: ImageDataset) -> None:
    """Raise InputError where batch or views are larger than what the dataset has."""
    if config.batch_size > len(dataset.train):
        raise InputError(
            f"--batch-size is {config.batch_size}; {config.dataset} has {len(dataset.train)} training images"
        )
    if config.view_size > dataset.image_size:
        raise InputError(
            f"--view-size is {config.view_size}; the images of {config.dataset} are "
            f"{dataset.image_size} pixels wide: take a smaller one, or a larger --image-size"
        )
    if config.positives == "label" and (dataset.train.labels < 0).any():
        raise InputError(
            f"--positives label needs labels, and {config.dataset} trains on unlabelled images too"
        )


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch("image", train, parse_config(ImageConfig, recipe, argv, "python -m image.train"))


if __name__ == "__main__":
    main()
