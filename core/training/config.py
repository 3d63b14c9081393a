"""The settings that every trainer has, and what they say about the objective."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from typing_extensions import Self

from core.io.errors import InputError
from core.training.settings import check_hardness, check_ranges, parse_numbers

# beta and tau_plus of an objective's name alone. Any other name is the plain objective of its modality
# (SimCLR, InfoGraph, quick-thoughts), which has neither.
HARDNESS = {"debiased": (0.0, 0.1), "hard": (1.0, 0.1)}

MAX_SEED = 2**32 - 1  # NumPy accepts no larger seed

Precision = Literal["auto", "float32", "bfloat16"]


def hardness_of(objective: str) -> tuple[float, float]:
    """The default (beta, tau_plus) of an objective's name."""
    return HARDNESS.get(objective, (0.0, 0.0))


def objective_slug(name: str, beta: float, tau_plus: float) -> str:
    """An objective as the name of a folder, such as ``hard-beta1-tau0.1``."""
    numbers = [f"beta{beta:g}"] if beta else []
    if name in HARDNESS:
        numbers.append(f"tau{tau_plus:g}")
    return "-".join([name, *numbers])


def default_data_root() -> Path:
    """``$HCL_DATA`` if it is set, else ``data``."""
    return Path(os.environ.get("HCL_DATA") or "data")


@dataclass(frozen=True)
class ObjectiveOption:
    """How an option of the objective is named where it is not at its default.

    ``slug`` is for folders and ``label`` for tables; ``{}`` in either is replaced by the value.
    """

    slug: str
    label: str
    affects_plain: bool  # whether it changes the objective at beta 0 and tau_plus 0


def objective_option(default: Any, *, slug: str, label: str, affects_plain: bool = True) -> Any:
    """A config's field that is part of the objective's identity; see ``ObjectiveOption``."""
    option = ObjectiveOption(slug, label, affects_plain)
    return field(default=default, metadata={"objective_option": option})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The settings of commands that read data and use a trained encoder."""

    data_root: Path = field(default_factory=default_data_root)
    """Folder with local copies of the datasets; $HCL_DATA sets the default."""
    download: bool = True
    """Download the dataset from its publisher if there is no local copy."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that the trainers of all modalities share. Each modality adds its own."""

    modality: ClassVar[str]
    plain_objective: ClassVar[str]
    supports_torchrun: ClassVar[bool] = True
    # Settings that say where and how to run, not what is run: they may differ when a run is resumed.
    not_identity: ClassVar[frozenset[str]] = frozenset(
        {
            *("data_root", "download", "output_dir", "device", "resume"),
            *("checkpoint_seconds", "tensorboard", "deterministic", "strict"),
        }
    )
    minimums: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"epochs": 1, "batch_size": 1, "checkpoint_seconds": 0, "seed": 0}
    )
    maximums: ClassVar[Mapping[str, float]] = MappingProxyType({"seed": MAX_SEED})  # others: MAX_COUNT

    dataset: str
    """Name of the dataset; it also brings the paper's settings for that dataset."""
    objective: str
    """Plain (beta 0 and tau_plus 0), debiased (beta 0) or hard."""
    beta: float
    """Hardness: how much more negatives near the anchor weigh."""
    tau_plus: float
    """Prior probability that a negative has the anchor's class."""
    temperature: float | None
    """Divides the similarities."""
    epochs: int
    """Passes over the data."""
    batch_size: int
    """Samples per step, over all processes together."""
    lr: float
    """Learning rate."""
    seed: int = 0
    """Seed of weights, order and augmentation; for graphs also of the folds of the evaluation."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder with local copies of the datasets; $HCL_DATA sets the default."""
    download: bool = True
    """Download the dataset (for sentences also tasks and model) if there is no local copy."""
    output_dir: Path | None = None
    """Folder of the run; by default runs/MODALITY/DATASET/OBJECTIVE/seed-N. {seed} becomes the seed."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""
    precision: Precision = "float32"
    """Precision of matrix products; auto is bfloat16 if the device computes it in hardware."""
    resume: bool = False
    """Resume from the checkpoint in the folder; if there is none, start from the beginning."""
    checkpoint_seconds: float = 30.0
    """Seconds of training between checkpoints; 0 saves one after every step."""
    tensorboard: bool = False
    """Write curves, histograms and embeddings for TensorBoard (pip install tensorboard)."""
    deterministic: bool = False
    """Use only deterministic algorithms; on GPUs some are slower."""

    def checked(self) -> Self:
        """Return the config with the objective named by its numbers.

        Raises:
            InputError: A setting is out of range, or two contradict each other.
        """
        check_hardness(self.beta, self.tau_plus)
        check_ranges(vars(self), self.minimums, self.maximums)
        if not self.lr > 0:
            raise InputError(f"`lr` is {self.lr}; it must be above 0")
        if self.objective == self.plain_objective and (self.beta, self.tau_plus) != (0, 0):
            raise InputError(
                f"`objective` {self.objective} has beta 0 and tau_plus 0, but `beta` is {self.beta:g} and "
                f"`tau_plus` {self.tau_plus:g}; leave them out, or use `objective` debiased or hard"
            )
        if self.objective == "debiased" and self.beta != 0:
            raise InputError(
                f"`objective` debiased has beta 0, but `beta` is {self.beta:g}; use `objective` hard"
            )
        if self.beta == 0:
            name = self.plain_objective if self.tau_plus == 0 else "debiased"
            return dataclasses.replace(self, objective=name)
        return self

    def check_dataset(self) -> None:
        """Raise InputError if the name of the dataset is unknown."""

    def check_effects(self) -> None:
        """Raise InputError if a setting has no effect; runs that are loaded may have one."""

    def depends_on_epochs(self) -> str | None:
        """The setting whose effect depends on the number of epochs, so that a run cannot be trained on."""
        return None

    def expand(self) -> list[Self]:
        """The configs of the single runs that this one describes."""
        return [self._with_output_dir(self.output_dir)]

    def _with_output_dir(self, template: Path | None) -> Self:
        """The config with ``{seed}`` in its folder replaced."""
        if template is None:
            return self
        return dataclasses.replace(self, output_dir=Path(str(template).replace("{seed}", str(self.seed))))

    @classmethod
    def objective_options(cls) -> dict[str, ObjectiveOption]:
        """The options of the modality's objective, by name."""
        options = {item.name: item.metadata.get("objective_option") for item in dataclasses.fields(cls)}
        return {name: option for name, option in options.items() if option is not None}

    @classmethod
    def objective_fields(cls) -> list[str]:
        """The settings that tables show as the objective, beside its name, beta and tau_plus."""
        return list(cls.objective_options())

    def unusual_encoder(self) -> str | None:
        """Name of the encoder if it is not the one that the dataset's name brings."""
        return None

    def folder(self, root: Path = Path("runs")) -> Path:
        """``output_dir`` if it is set, else ROOT/MODALITY/DATASET/OBJECTIVE/seed-N."""
        dataset = re.sub(r"[^\w.+-]+", "-", self.dataset).strip("-")
        default = root / self.modality / dataset / self.objective_slug() / f"seed-{self.seed}"
        return self.output_dir or default

    def objective_slug(self) -> str:
        """The objective as the name of a folder, such as ``hard-beta1-tau0.1-released``."""
        slugs = [option.slug.format(value) for option, value in self._changed_options()]
        name = objective_slug(self.objective, self.beta, self.tau_plus)
        return "-".join(filter(None, [name, self.unusual_encoder(), *slugs]))

    def objective_family(self, *, plain: bool = False) -> str:
        """What sets the objective apart beside name, beta and tau_plus, such as ``released, annealed``.

        Objectives of one family are compared with each other. With ``plain`` this is the family that the
        objective would have at beta 0 and tau_plus 0.
        """
        plain = plain or self.beta == self.tau_plus == 0
        options = [pair for pair in self._changed_options() if pair[0].affects_plain or not plain]
        labels = [option.label.format(value) for option, value in options]
        return ", ".join(filter(None, [self.unusual_encoder(), *labels]))

    def objective_label(self) -> str:
        """The objective as a row of a table, such as ``hard, beta 1, tau_plus 0.1, released``."""
        numbers = [f"{name} {value:g}" for name in ("beta", "tau_plus") if (value := getattr(self, name))]
        return ", ".join(filter(None, [self.objective, *numbers, self.objective_family()]))

    def objective_record(self) -> dict[str, Any]:
        """The objective as records hold it."""
        names = ("beta", "tau_plus", "temperature", *self.objective_options())
        return {
            "name": self.objective,
            **{name: getattr(self, name) for name in names},
            "encoder": self.unusual_encoder(),
            "slug": self.objective_slug(),
            "label": self.objective_label(),
            "family": self.objective_family(),
            "plain_family": self.objective_family(plain=True),
        }

    def _changed_options(self) -> list[tuple[ObjectiveOption, Any]]:
        """The objective's options that are not at their default, with their values."""
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        options = self.objective_options().items()
        return [(opt, getattr(self, name)) for name, opt in options if getattr(self, name) != defaults[name]]

    def as_dict(self) -> dict[str, Any]:
        """Every setting, in types that JSON holds."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    def as_text(self) -> str:
        """The text of ``config.json``."""
        settings = {"modality": self.modality, "objective_fields": self.objective_fields(), **self.as_dict()}
        return json.dumps(settings, indent=2) + "\n"

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The settings that have one default for all datasets, in types that JSON holds."""
        constant = [item for item in dataclasses.fields(cls) if item.default is not dataclasses.MISSING]
        return json.loads(json.dumps({item.name: item.default for item in constant}, default=str))

    def identity(self) -> dict[str, Any]:
        """The settings that say what is run."""
        return {name: value for name, value in self.as_dict().items() if name not in self.not_identity}


@dataclass(frozen=True, kw_only=True)
class GroupConfig(TrainConfig):
    """The settings of a trainer that can train several runs together."""

    supports_torchrun: ClassVar[bool] = False

    seeds: str | None = None
    """Several seeds, as 0-9 or 0,3,5: their runs are trained together, each with a folder of its own."""
    betas: str | None = None
    """Several hardnesses, as 0,1,2,10, trained together at each seed; 0 is the debiased objective."""

    def expand(self) -> list[Self]:
        """A config for each of ``seeds`` and ``betas``; the config itself if neither is given."""
        if self.seeds is None and self.betas is None:
            return super().expand()
        if self.seeds is not None and self.seed != 0:
            raise InputError(f"`seed` is {self.seed} and `seeds` {self.seeds}; leave one of them out")
        if self.betas is not None and self.objective != "hard":
            raise InputError(f"`betas` is {self.betas}, but `objective` {self.objective} has beta 0")
        seeds = [self.seed] if self.seeds is None else parse_numbers(self.seeds, "seeds", int)
        betas = [self.beta] if self.betas is None else parse_numbers(self.betas, "betas", float)
        single = dataclasses.replace(self, seeds=None, betas=None)
        runs = [
            dataclasses.replace(single, beta=beta, seed=seed).checked() for beta in betas for seed in seeds
        ]
        if len({run.objective_slug() for run in runs}) < len(betas):
            raise InputError(
                f"`betas` is {self.betas}; two of them are too close to have folders of their own"
            )
        if self.output_dir is None:
            return runs
        if "{seed}" in str(self.output_dir):
            if len(betas) > 1:
                raise InputError(
                    f"`output_dir` is {self.output_dir}, one folder a seed, but `betas` has {len(betas)} "
                    "numbers; leave out {seed}"
                )
            return [run._with_output_dir(self.output_dir) for run in runs]
        folder = self.output_dir
        return [run._with_output_dir(folder / run.objective_slug() / f"seed-{run.seed}") for run in runs]
