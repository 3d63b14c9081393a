"""SimCLR as a task for the training loop."""

from collections.abc import Iterable, Sequence

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
from image.config import ImageConfig
from image.data import ImageDataset, Images, load_dataset, load_probe_dataset, warn_skipped
from image.encoder import Pair, make_model
from image.loading import load_model
from image.scoring import CHUNK, evaluate, represent_all, sample, score_neighbours
from image.views import Views

ANNEAL_STEPS = 9  # beta falls in as many equal steps, the last of them to 0


class ImageTask(Task):
    """Train an encoder and its projection head on two views of each image."""

    card_lines = CardLines(
        "A ResNet for images, trained without labels by SimCLR: two random views of an image are a pair.",
        "import torch\nimport image\n\nencoder = image.load_encoder(RUN)\n"
        "vectors = encoder(encoder.transform(torch.rand(1, 3, 64, 64)))  # [images, encoder.dim]",
    )

    def __init__(
        self, configs: Sequence[ImageConfig], device: torch.device, dataset: ImageDataset | None = None
    ) -> None:
        """``dataset`` is used instead of the one that the config names."""
        [config] = configs
        self.config, self.device = config, device
        if dataset is None:
            dataset = load_dataset(
                config.dataset,
                config.data_root,
                config.download,
                config.image_size,
                config.skip_unreadable,
                config.labels,
            )
        elif config.image_size is not None:
            dataset = dataset.resized(config.image_size)
        warn_skipped(dataset)
        check_fits(config, dataset)
        skipped = dataset.skipped.as_record()
        self.record_fields = {"labelled": dataset.has_labels, **({"skipped": skipped} if skipped else {})}
        self.dataset, self.probed = dataset.to(device), None
        if config.probe_dataset is not None:
            self.probed = load_probe_dataset(
                config.probe_dataset,
                config.data_root,
                config.download,
                config.view_size,
                config.skip_unreadable,
            ).to(device)
        self.views = Views(config.view_size, scale=(config.crop_scale, 1.0)).to(device)
        self.view_batches = ViewBatches(self.dataset.train, self.views, config)
        self.fingerprint = fingerprint(dataset)
        self.steps_per_epoch = self.view_batches.steps
        self.samples_per_epoch = self.steps_per_epoch * config.batch_size
        images = len(dataset.train)
        warn_dropped_samples(images - self.samples_per_epoch, f"of {images:,} images", config.batch_size)
        if world_size() > 1 and is_main_process():
            local = config.batch_size // world_size()
            print(f"{world_size()} processes: batches of {config.batch_size} images, {local} a process")

        seed_everything(config.seed)
        if config.init is None:
            self.model = make_model(config.arch, config.width, config.norm, config.stem).to(device)
        else:
            self.model = load_model(config.init, config).to(device)
        pair = Pair(self.model)
        self.network = parallel(cached(pair, config.cache_chunk), device)
        if config.compile:
            (pair if config.cache_chunk else self.network).compile()
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
        return lr_factor(config.schedule, config.epochs, config.warmup, epochs_done)

    def evaluate(self) -> list[Scores]:
        config = self.config
        return [
            evaluate(self.model, self.dataset, self.views, config.seed, config.precision, probed=self.probed)
        ]

    def evaluate_epoch(self, epoch: int) -> list[Scores]:
        if not self.config.knn_every or epoch % self.config.knn_every:
            return []
        return [score_neighbours(self.model.encoder, self.probed or self.dataset, self.config.precision)]

    def probe_embeddings(self) -> Tensor:
        train = self.dataset.train
        some = Images(train.images[:CHUNK], train.labels[:CHUNK])
        return represent_all(self.model.encoder, some, self.config.precision).unsqueeze(0)

    def save(self, runs: Sequence[Run]) -> None:
        [run] = runs
        run.save_encoder(self.model.state_dict())
        run.save_sample(sample(self.model, self.dataset, self.views, self.config.seed, self.config.precision))


def annealed(beta: float, how: str, epoch: int, epochs: int) -> float:
    """The hardness of an epoch, counted from 1: constant, or down to 0 in nine steps."""
    if how == "none":
        return beta
    step = (epoch - 1) * ANNEAL_STEPS // epochs
    return beta * (1 - step / (ANNEAL_STEPS - 1))


def fingerprint(dataset: ImageDataset) -> dict[str, int | str]:
    """What distinguishes the data from others: counts, and digests of classes and labels."""
    parts = (dataset.train, dataset.labelled, dataset.test)
    return {
        "images": len(dataset.train),
        "image_size": dataset.image_size,
        "classes": digest_of(f"{name}/" for name in dataset.classes),
        "labels": digest_of(part.labels for part in parts),
    }


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
        raise InputError(f"`batch_size` is {config.batch_size}; {name} has {images} training images")
    if config.view_size > dataset.image_size:
        raise InputError(
            f"`view_size` is {config.view_size}; the images of {name} are {dataset.image_size} pixels wide: "
            "use a smaller one, or a larger `image_size`"
        )
    for setting in ("positives", "negatives"):
        if getattr(config, setting) == "label" and (dataset.train.labels < 0).any():
            raise InputError(f"`{setting}` label needs labels, and {name} trains on unlabelled images")
