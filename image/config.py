"""The settings of SimCLR training, and what a dataset's name brings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import Self

from core.io.errors import InputError, unknown_name
from core.training.config import Precision, TrainConfig, hardness_of, objective_option
from core.training.describe import describe_runs
from core.training.settings import load_config

KNOWN = ("shapes", "digits", "cifar10", "cifar100", "stl10", "tinyimagenet", "folder:PATH")
ENCODER_SETTINGS = ("arch", "stem", "width", "norm")
MIN_IMAGE_SIZE = 8
MAX_SMALL_VIEW = 64  # pixels; larger views get ImageNet's stem

Norm = Literal["batch", "group"]

Stem = Literal["small", "imagenet"]

Labels = Literal["auto", "folders", "none"]

Protocol = Literal["frozen", "paper"]  # of the linear probe


@dataclass(frozen=True, kw_only=True)
class ImageConfig(TrainConfig):
    """Train SimCLR, evaluate it by nearest neighbours and a linear probe, and record both."""

    modality: ClassVar[str] = "image"
    plain_objective: ClassVar[str] = "simclr"
    minimums: ClassVar[Mapping[str, float]] = {
        **TrainConfig.minimums,
        **{
            "width": 1,
            "view_size": MIN_IMAGE_SIZE,
            "image_size": MIN_IMAGE_SIZE,
            "warmup": 0,
            "knn_every": 0,
        },
        **{"tile_size": 1, "cache_chunk": 1, "weight_decay": 0},
    }
    # A batch of larger images takes gigabytes before its first convolution.
    maximums: ClassVar[Mapping[str, float]] = {**TrainConfig.maximums, "image_size": 1024, "view_size": 1024}

    dataset: str = "shapes"
    """shapes or digits (embedded), cifar10, cifar100, stl10, tinyimagenet, or folder:PATH (any images)."""
    objective: Literal["simclr", "debiased", "hard"] = "hard"
    """Named points of one formula: beta 0 and tau_plus 0, tau_plus > 0, beta > 0."""
    temperature: float = 0.5
    download: bool = True
    precision: Precision = "auto"
    epochs: int = 400
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-6
    """Weight decay."""
    optimizer: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    """Optimizer; sgd and lars have momentum 0.9."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate after the warm-up."""
    warmup: int = 0
    """Epochs in which the learning rate rises linearly."""
    anneal_beta: Literal["none", "down"] = objective_option("none", slug="annealed", label="annealed")
    """down: beta falls from its value to 0 in nine steps over the epochs."""
    stop_gradient: bool = objective_option(False, slug="stopgradient", label="weights constant")
    """Treat the negatives' weights as constants."""
    tile_size: int | None = None
    """Size of the similarity matrix's tiles, for large batches; by default it is computed at once."""
    cache_chunk: int | None = None
    """Images that a process encodes at a time at most (gradient caching); batch norm then sees a chunk."""
    arch: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet50"
    """Encoder."""
    stem: Stem = "small"
    """small: a 3x3 convolution. imagenet: 7x7, stride 2, max-pool; the default for views above 64 pixels."""
    width: int = 64
    """Channels of the encoder's first stage; 64 is the architecture's own."""
    norm: Norm = "batch"
    """Normalisation of encoder and head; group treats images one by one."""
    labels: Labels = "auto"
    """Of folder:PATH: folders, its class folders; auto, these if two or more hold all images; none."""
    probe_dataset: str | None = None
    """Another labelled dataset, or folder:PATH, whose images are scored by the probes."""
    skip_unreadable: bool = False
    """Train without the images that cannot be read; by default they are an error."""
    init: Path | None = None
    """Start from the weights of this finished image run, of the same arch, stem, width and norm."""
    image_size: int | None = None
    """Size of the images, resized once; by default the dataset's own."""
    view_size: int = 32
    """Size of the views that are trained on."""
    crop_scale: float = 0.08
    """Smallest share of the image's area that a view shows."""
    negatives: Literal["batch", "label"] = objective_option(
        "batch", slug="truenegatives", label="true negatives"
    )
    """label: images of the anchor's class are not negatives, the oracle of the debiased objective."""
    positives: Literal["views", "label"] = objective_option(
        "views", slug="truepositives", label="true positives"
    )
    """label: the second view is of another image of the class, the paper's oracle."""
    knn_every: int = 0
    """Epochs between nearest-neighbour scores; 0 takes them before and after training alone."""
    compile: bool = False
    """Compile encoder and head with torch.compile."""

    def checked(self) -> Self:
        if not self.temperature > 0:
            raise InputError(f"`temperature` is {self.temperature}; it must be above 0")
        if self.batch_size < 2:
            raise InputError(f"`batch_size` is {self.batch_size}; at least 2 images are needed for negatives")
        if self.cache_chunk == 1 and self.norm == "batch":
            raise InputError("`cache_chunk` is 1; batch norm needs at least 2 images, or use `norm` group")
        if self.negatives == "label" and self.tile_size is not None:
            raise InputError(f"`tile_size` is {self.tile_size}; `negatives` label is not supported in tiles")
        if not 0 < self.crop_scale <= 1:
            raise InputError(f"`crop_scale` is {self.crop_scale}; it must be above 0 and at most 1")
        return super().checked()

    def depends_on_epochs(self) -> str | None:
        if self.schedule == "cosine":
            return "`schedule` cosine"
        return "`anneal_beta` down" if self.anneal_beta == "down" else None

    def check_dataset(self) -> None:
        check_name("dataset", self.dataset)
        if self.probe_dataset is not None:
            check_name("probe_dataset", self.probe_dataset)
        if self.init is not None:
            self.check_init(self.init)

    def check_init(self, run: Path) -> None:
        """Raise InputError unless ``run`` is a finished image run with the encoder of these settings."""
        other = load_config(run, type(self))
        differing = [
            f"{name} {getattr(other, name)}, not {getattr(self, name)}"
            for name in ENCODER_SETTINGS
            if getattr(other, name) != getattr(self, name)
        ]
        if differing:
            raise InputError(f"`init` is {run}, whose encoder has {' and '.join(differing)}")
        if not (run / "result.json").exists():
            raise InputError(f"`init` is {run}, which is not finished; resume it with `resume`")


def check_name(argument: str, dataset: str) -> None:
    """Raise InputError if no dataset has this name."""
    if dataset not in KNOWN and not dataset.startswith("folder:"):
        raise unknown_name(argument, dataset, KNOWN)


def defaults_for(
    dataset: str = "shapes", objective: str = "hard", view_size: int | str = ImageConfig.view_size
) -> ImageConfig:
    """The paper's settings (image code), and small ones for the embedded datasets, made for two cores.

    Views above 64 pixels bring ImageNet's stem, and the images of folder:PATH in the size of the views.
    """
    beta, tau_plus = hardness_of(objective)
    config = ImageConfig(dataset=dataset, beta=beta, tau_plus=tau_plus)
    view_size = int(view_size) if str(view_size).isdecimal() else 0  # others are refused later
    if MAX_SMALL_VIEW < view_size <= config.maximums["view_size"]:
        image_size = view_size if dataset.startswith("folder:") else None
        config = replace(config, stem="imagenet", image_size=image_size)
    if dataset not in ("shapes", "digits"):
        return config
    small: dict[str, Any] = {"arch": "resnet10", "width": 16, "epochs": 20, "lr": 2e-3}
    if dataset == "digits":
        return replace(config, **small, view_size=16)
    # Shapes differ by their outline, of which a small crop shows too little.
    return replace(config, **small, crop_scale=0.3)


if __name__ == "__main__":  # asked by shared_eval.reproduce
    describe_runs(ImageConfig, defaults_for)
