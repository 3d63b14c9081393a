"""SimCLR as a task for the training loop."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from core import HardNegativeLoss
from core.distributed import is_main_process, parallel, world_size
from core.io.digests import digest_of
from core.io.errors import InputError
from core.losses.gradient_cache import cached
from core.training.loop import warn_dropped_samples
from core.training.model_card import CardLines
from core.training.optimizers import lr_factor, make_optimizer
from core.training.run_folder import Run
from core.training.seeding import seed_everything
from core.training.task import Scores, Task
from image.batches import ViewBatches
from image.checkpoints import load_checkpoint
from image.config import TIMM, ImageConfig
from image.data import ImageDataset, load_datasets
from image.encoder import SimCLR, TwoViews, make_model
from image.loading import load_model
from image.scoring import CHUNK, PROBE_EVALUATION, Scorer, represent_all
from image.timm_models import check_timm_encoder

ANNEAL_STEPS = 9  # beta falls in as many equal steps, the last of them to 0
COMPARED = 1000  # images whose pixels say, when a run is resumed, whether the data are the same


class ImageTask(Task):
    """Train an encoder and its projection head on two views of each image."""

    card_lines = CardLines(
        "An encoder of images, trained without labels by SimCLR: two random views of an image are a pair.",
        "import torch\nimport image\n\nencoder = image.load_encoder(RUN)\n"
        "vectors = encoder(encoder.transform(torch.rand(1, 3, 64, 64)))  # [images, encoder.dim]",
    )

    def __init__(
        self, configs: Sequence[ImageConfig], device: torch.device, dataset: ImageDataset | None = None
    ) -> None:
        """``dataset`` is used instead of the one that the config names."""
        [config] = configs
        self.config, self.device = config, device
        dataset, probed = load_datasets(config, dataset)
        check_fits(config, dataset)
        self.fingerprint = fingerprint(dataset)
        self.dataset = dataset = dataset.to(device)
        self.record_fields = {"labelled": dataset.has_labels}
        if probed is not None:
            self.record_fields |= {"evaluation": PROBE_EVALUATION}
        if skipped := dataset.skipped.as_record():
            self.record_fields |= {"skipped": skipped}

        seed_everything(config.seed)
        self.model = self.initial_model().to(device)
        if config.arch.startswith(TIMM):
            check_timm_encoder(self.model.encoder, config.arch, {config.view_size, dataset.image_size})
        self.scorer = Scorer(self.model, config, dataset, probed and probed.to(device))
        self.shown_images, self.shown_before = self.scorer.shown()
        self.view_batches = ViewBatches(dataset.train, self.scorer.views, config)
        self.steps_per_epoch = self.view_batches.steps
        self.samples_per_epoch = self.steps_per_epoch * config.batch_size
        report_batches(config, len(dataset.train), self.samples_per_epoch)

        two_views = TwoViews(self.model)
        self.network = parallel(cached(two_views, config.cache_chunk), device)
        if config.compile:
            (two_views if config.cache_chunk else self.network).compile()
        self.optimizer = make_optimizer(
            config.optimizer, self.model.parameters(), config.lr, config.weight_decay
        )
        self.objective = HardNegativeLoss(
            config.beta,
            config.tau_plus,
            config.temperature,
            normalize=False,  # the projections have unit length
            tile_size=config.tile_size,
            stop_gradient=config.stop_gradient,
            gather_distributed=world_size() > 1,
        )

    def initial_model(self) -> SimCLR:
        """The model that training starts from: drawn from the seed, or with the weights of ``init``."""
        config = self.config
        if config.init is not None and config.init_sha256 is None:
            return load_model(config.init, config)
        model = make_model(config.arch, config.width, config.norm, config.stem, config.view_size)
        if config.init is not None:
            left_out = load_checkpoint(model.encoder, config, config.init)
            file = {"file": str(config.init), "sha256": config.init_sha256, "left_out": left_out}
            self.record_fields |= {"init": file}
            if left_out and is_main_process():
                print(f"{config.init}: the classifier is left out ({', '.join(left_out)})")
        return model

    def start_epoch(self, epoch: int) -> None:
        config = self.config
        self.objective.beta = annealed(config.beta, config.anneal_beta, epoch, config.epochs)

    def batches(self, epoch: int) -> Iterable[tuple[Tensor, ...]]:
        return self.view_batches.epoch(epoch)

    def training_step(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        view1, view2, *labels = batch
        projection1, projection2 = self.network(view1, view2)
        return self.objective(projection1, projection2, *labels).unsqueeze(0), projection1.unsqueeze(0)

    def lr_factor(self, epochs_done: float) -> float:
        config = self.config
        return lr_factor(config.schedule, config.epochs, config.warmup, epochs_done, 1 / self.steps_per_epoch)

    def evaluate(self) -> list[Scores]:
        return [self.scorer.evaluate()]

    def evaluate_epoch(self, epoch: int) -> list[Scores]:
        if not self.config.knn_every or epoch % self.config.knn_every:
            return []
        return [self.scorer.score_neighbours()]

    def probe_embeddings(self) -> Tensor:
        train = self.dataset.train
        some = train.only(evenly(len(train), at_most=CHUNK))
        return represent_all(self.model.encoder, some, self.config.precision).unsqueeze(0)

    def save(self, runs: Sequence[Run]) -> None:
        [run] = runs
        run.save_encoder(self.model.state_dict())
        _, after = self.scorer.shown()
        shown = {"images": self.shown_images, "before": self.shown_before, "after": after}
        run.save_sample(self.scorer.sample() | {f"shown_{name}": value for name, value in shown.items()})


def report_batches(config: ImageConfig, images: int, used: int) -> None:
    """Say how many images an epoch drops, and how batches are split among several processes."""
    warn_dropped_samples(images - used, f"of {images:,} images", config.batch_size)
    if world_size() > 1 and is_main_process():
        local = config.batch_size // world_size()
        print(f"{world_size()} processes: batches of {config.batch_size} images, {local} a process")


def annealed(beta: float, how: str, epoch: int, epochs: int) -> float:
    """The hardness of an epoch, counted from 1: constant, or one of nine values down to 0."""
    if how == "none":
        return beta
    step = (epoch - 1) * ANNEAL_STEPS // epochs
    return beta * (1 - step / (ANNEAL_STEPS - 1))


def fingerprint(dataset: ImageDataset) -> dict[str, int | str]:
    """What distinguishes the data from others: counts, and digests of classes, labels and pixels."""
    parts = (dataset.train, dataset.labelled, dataset.test)
    pixels = (some_images(images) for images in (dataset.train.images, dataset.test.images))
    return {
        "images": len(dataset.train),
        "image_size": dataset.image_size,
        "classes": digest_of(f"{name}/" for name in dataset.classes),
        "labels": digest_of(part.labels for part in parts),
        "pixels": digest_of(image for images in pixels for image in images),
    }


def some_images(images: Tensor) -> Iterator[Tensor]:
    """At most ``COMPARED`` of the images, spread evenly, one at a time: they may be mapped from a file."""
    return (images[i] for i in evenly(len(images), at_most=COMPARED).tolist())


def evenly(count: int, at_most: int) -> Tensor:
    """Indices of at most so many of ``count`` items, spread evenly: [n] int64."""
    return torch.linspace(0, count - 1, min(count, at_most), dtype=torch.float64).round().long()


def check_fits(config: ImageConfig, dataset: ImageDataset) -> None:
    """Raise InputError if batch or views are larger than the dataset allows, or all its images are equal."""
    name, images = config.dataset, len(dataset.train)
    if images < 2:
        raise InputError(f"{name} has 1 training image; at least 2 are needed")
    if config.knn_every and not dataset.has_labels and config.probe_dataset is None:
        raise InputError(
            f"`knn_every` is {config.knn_every}, but {name} has no labels; leave it out, or set "
            "`probe_dataset`"
        )
    pixels = dataset.train.images
    if all(torch.equal(pixels[0], pixels[i]) for i in range(1, images)):  # ends at the first that differs
        raise InputError(
            f"all {images:,} training images of {name} are equal after resizing; there is nothing to learn"
        )
    if config.batch_size > images:
        raise InputError(
            f"`batch_size` is {config.batch_size}; it must be at most {images}, the training images of {name}"
        )
    if config.view_size > dataset.image_size:
        raise InputError(
            f"`view_size` is {config.view_size}; the images of {name} are {dataset.image_size} pixels wide: "
            "use a smaller one, or a larger `image_size`"
        )
    for setting in ("positives", "negatives"):
        if getattr(config, setting) == "label" and (dataset.train.labels < 0).any():
            raise InputError(f"`{setting}` label needs labels, and {name} trains on unlabelled images")
