"""The settings of SimCLR training, and what a dataset's name brings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import Self

from core.io.digests import file_checksum
from core.io.errors import InputError, unknown_name
from core.training.config import Precision, TrainConfig, hardness_of, objective_option
from core.training.describe import describe_runs
from core.training.settings import load_config

KNOWN = ("shapes", "digits", "cifar10", "cifar100", "stl10", "tinyimagenet", "folder:PATH")
RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50")
TIMM = "timm:"
TENSOR = "tensor"  # kind of the images that train_on is given, in their name
CHECKPOINTS = (".safetensors", ".pth", ".pt")
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
        **dict.fromkeys(("view_size", "image_size"), MIN_IMAGE_SIZE),
        **dict.fromkeys(("width", "tile_size", "cache_chunk"), 1),
        **dict.fromkeys(("warmup", "knn_every", "weight_decay"), 0),
    }
    # A batch of larger images takes gigabytes before its first convolution.
    maximums: ClassVar[Mapping[str, float]] = {**TrainConfig.maximums, "image_size": 1024, "view_size": 1024}

    dataset: str = "shapes"
    """shapes or digits (built-in), cifar10, cifar100, stl10, tinyimagenet, or folder:PATH (any images)."""
    objective: Literal["simclr", "debiased", "hard"] = "hard"
    """simclr: beta 0 and tau_plus 0; debiased: beta 0; hard: beta above 0."""
    temperature: float = objective_option(0.5, slug="temperature{}", label="temperature {}")
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
    anneal_beta: Literal["none", "down"] = objective_option(
        "none", slug="annealed", label="annealed", affects_plain=False
    )
    """down: beta takes nine values over the epochs, from its own to 0; with fewer epochs it ends above 0."""
    stop_gradient: bool = objective_option(
        False, slug="stopgradient", label="weights constant", affects_plain=False
    )
    """Treat the negatives' weights as constants."""
    tile_size: int | None = None
    """Size of the similarity matrix's tiles, for large batches; by default it is computed at once."""
    cache_chunk: int | None = None
    """Images that a process encodes at a time at most (gradient caching); batch norm then sees a chunk."""
    arch: str = "resnet50"
    """Encoder: resnet10, resnet18, resnet34, resnet50, or timm:NAME, a model of the library timm."""
    stem: Stem = "small"
    """small: a 3x3 convolution. imagenet: 7x7, stride 2, max-pool; the default for views above 64 pixels."""
    width: int = 64
    """Channels of the encoder's first stage; 64 is the architecture's own."""
    norm: Norm = "batch"
    """Normalisation of encoder and head; group treats images one by one."""
    labels: Labels = "auto"
    """Of folder:PATH. folders: its class folders; auto: the same, if two or more hold all images; none."""
    probe_dataset: str | None = None
    """Another labelled dataset, or folder:PATH, whose images are scored by the probes."""
    skip_unreadable: bool = False
    """Train without the images that cannot be read; by default they are an error."""
    init: Path | None = None
    """Start from a finished image run of the same arch, stem, width and norm, or a checkpoint file."""
    init_sha256: str | None = None
    """SHA-256 of the file that init names; by default that of the file when the run begins."""
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
        if self.arch.startswith(TIMM):
            self._check_timm_settings()
        elif self.arch not in RESNETS:
            raise unknown_name("`arch`", self.arch, RESNETS, ", or timm:NAME for any model of timm")
        config = super().checked()
        if self.init is None and self.init_sha256 is not None:
            raise InputError("`init_sha256` is of the file that `init` names, which is not given")
        if self.init is None or self.init_sha256 is not None:
            return config
        try:
            return replace(config, init_sha256=file_checksum(self.init))
        except OSError:  # a folder, or a file that check_init refuses
            return config

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.init_sha256 is None:  # the file is gone; the path alone must do
            del identity["init_sha256"]
        return identity

    def _check_timm_settings(self) -> None:
        """Raise InputError if a setting is given that the project's own ResNets alone have."""
        default = defaults_for(self.dataset, self.objective, self.view_size)
        for name in ("stem", "width", "norm"):
            if (value := getattr(self, name)) != getattr(default, name):
                raise InputError(f"`{name}` is {value}, but `arch` {self.arch} has its own; leave it out")

    def check_effects(self) -> None:
        if self.anneal_beta == "down" and self.beta == 0:
            raise InputError("`anneal_beta` is down, but `beta` is 0 from the start")
        if self.epochs <= self.warmup:
            raise InputError(
                f"`warmup` is {self.warmup}, which never ends; it must be below `epochs` {self.epochs}"
            )

    def depends_on_epochs(self) -> str | None:
        if self.schedule == "cosine":
            return "`schedule` cosine"
        return "`anneal_beta` down" if self.anneal_beta == "down" else None

    def check_dataset(self) -> None:
        if self.arch.startswith(TIMM):
            check_timm(self.arch)
        check_name("`dataset`", self.dataset)
        if self.probe_dataset is not None:
            check_name("`probe_dataset`", self.probe_dataset)
        self.check_init()

    def check_init(self) -> None:
        """Raise InputError unless ``init`` is a finished run with this encoder, or a file of weights."""
        if self.init is None:
            return
        if self.init.suffix.lower() in CHECKPOINTS:
            self._check_file(self.init)
        elif self.init.is_file():
            kinds = ", ".join(CHECKPOINTS)
            raise InputError(f"`init` is {self.init}; it must be a run's folder, or a checkpoint in {kinds}")
        else:
            self._check_run(self.init)

    def _check_file(self, path: Path) -> None:
        try:
            found = file_checksum(path)
        except OSError as error:
            raise InputError(f"`init` is {path}, which cannot be read: {error.strerror}") from None
        if found != self.init_sha256:
            raise InputError(f"`init` is {path}, whose SHA-256 is {found}, not `init_sha256`")

    def _check_run(self, run: Path) -> None:
        other = load_config(run, type(self))
        found = {name: getattr(other, name) for name in ENCODER_SETTINGS}
        if differing := self.differing_encoder(found):
            raise InputError(f"`init` is {run}, whose encoder has {' and '.join(differing.values())}")
        if not (run / "result.json").exists():
            raise InputError(f"`init` is {run}, which is not finished; resume it with `resume`")

    def differing_encoder(self, found: Mapping[str, Any]) -> dict[str, str]:
        """By setting, how the encoder that is found differs from the one wanted, for a message."""
        wanted = {name: getattr(self, name) for name in found}
        return {
            name: f"{name} {value}, not {wanted[name]}"
            for name, value in found.items()
            if value != wanted[name]
        }


def check_timm(arch: str) -> None:
    """Raise InputError unless timm is installed; it is not imported."""
    if find_spec("timm") is None:
        raise InputError(f"`arch` is {arch}, which needs timm: pip install timm")


def check_name(argument: str, dataset: str) -> None:
    """Raise InputError, which names the ``argument``, if no dataset has this name."""
    if dataset not in KNOWN and not dataset.startswith("folder:"):
        raise unknown_name(argument, dataset, KNOWN)


def defaults_for(
    dataset: str = "shapes", objective: str = "hard", view_size: int | str = ImageConfig.view_size
) -> ImageConfig:
    """The paper's settings (image code), and small ones for the built-in datasets, made for two cores.

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
