"""The settings every trainer has, and how a command line becomes them."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

from core.io.errors import InputError
from core.losses.contrastive import check_hardness

# beta and tau_plus where a command line gives an objective's name alone; any other name is the plain
# objective of its modality (SimCLR, InfoGraph, quick-thoughts), which has neither.
HARDNESS = {"debiased": (0.0, 0.1), "hard": (1.0, 0.1)}

MAX_SEED = 2**32 - 1  # that NumPy takes
MAX_COUNT = 2**20  # of what is counted: samples, channels, epochs, ...
MAX_FLOAT = 3.4e38  # that float32 holds


def hardness_of(objective: str) -> tuple[float, float]:
    """The default (beta, tau_plus) of an objective's name."""
    return HARDNESS.get(objective, (0.0, 0.0))


def objective_slug(name: str, beta: float, tau_plus: float) -> str:
    """An objective as a folder's name, as ``hard-beta1-tau0.1``."""
    numbers = [f"beta{beta:g}"] if beta else []
    if name in HARDNESS:
        numbers.append(f"tau{tau_plus:g}")
    return "-".join([name, *numbers])


def default_data_root() -> Path:
    """``$HCL_DATA`` where it is set, else ``data``."""
    return Path(os.environ.get("HCL_DATA") or "data")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What the trainers of all modalities share; each adds its own."""

    plain_objective: ClassVar[str]
    # Settings that say where and how to run, not what is run: two runs that differ in these alone are one.
    not_identity: ClassVar[frozenset[str]] = frozenset(
        {"data_root", "download", "output_dir", "device", "resume", "checkpoint_seconds", "deterministic"}
    )
    # The largest that whole numbers may be, where that is not MAX_COUNT.
    largest: ClassVar[Mapping[str, int]] = MappingProxyType({"seed": MAX_SEED})

    dataset: str
    """Name of the dataset; it also brings the paper's settings for that dataset."""
    objective: str
    """Named points of one formula: beta 0 and tau_plus 0, tau_plus > 0, beta > 0."""
    beta: float
    """Hardness: how far negatives near the anchor weigh more."""
    tau_plus: float
    """Prior probability that a negative has the anchor's class."""
    temperature: float | None
    """Divides the similarities."""
    epochs: int
    """Passes over the data."""
    batch_size: int
    """Samples a step, over all devices together."""
    lr: float
    """Learning rate."""
    seed: int = 0
    """Seeds weights, order, augmentation and the folds of the evaluation."""
    data_root: Path = field(default_factory=default_data_root)
    """Where local copies of the data sets lie; $HCL_DATA sets the default."""
    download: bool = False
    """Fetch the data set from its official place where there is no local copy."""
    output_dir: Path | None = None
    """The run's folder; by default runs/MODALITY/DATASET/OBJECTIVE/seed-N."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """What matrix products are computed in; auto is bfloat16 where the device has it."""
    resume: bool = False
    """Go on from the folder's checkpoint; starts anew where there is none."""
    checkpoint_seconds: float = 30.0
    """Seconds of training between checkpoints; 0 saves one after every step."""
    deterministic: bool = False
    """Use no algorithm whose result may differ from one time to the next; some are slower, on GPUs alone."""

    def checked(self) -> "TrainConfig":
        """Return the config with the objective named by its numbers; raise InputError if one is off."""
        try:
            check_hardness(self.beta, self.tau_plus)
        except ValueError as error:
            raise InputError(str(error)) from None
        for name, least in {"epochs": 1, "batch_size": 1, "checkpoint_seconds": 0, "seed": 0}.items():
            if not getattr(self, name) >= least:
                raise InputError(f"--{flag(name)} is {getattr(self, name)}; it must be at least {least}")
        if not self.lr > 0:
            raise InputError(f"--lr is {self.lr}; it must be above 0")
        check_not_too_large(vars(self), self.largest)
        if self.objective == self.plain_objective and (self.beta, self.tau_plus) != (0, 0):
            raise InputError(
                f"--objective {self.objective} has beta 0 and tau_plus 0, but --beta is {self.beta:g} and "
                f"--tau-plus {self.tau_plus:g}; leave them out, or use --objective debiased or hard"
            )
        if self.objective == "debiased" and self.beta != 0:
            raise InputError(
                f"--objective debiased has beta 0, but --beta is {self.beta:g}; use --objective hard"
            )
        if self.beta == 0:
            name = self.plain_objective if self.tau_plus == 0 else "debiased"
            return dataclasses.replace(self, objective=name)
        return self

    def objective_slug(self) -> str:
        """The objective as a folder's name, as ``hard-beta1-tau0.1``."""
        return objective_slug(self.objective, self.beta, self.tau_plus)

    def objective_record(self) -> dict[str, Any]:
        """The objective as records hold it."""
        names = ("beta", "tau_plus", "temperature")
        return {"name": self.objective} | {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Every setting, as JSON holds it."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The settings that have one value by default whatever the dataset, as JSON holds them."""
        found = {
            of.name: of.default for of in dataclasses.fields(cls) if of.default is not dataclasses.MISSING
        }
        return json.loads(json.dumps(found, default=str))

    def identity(self) -> dict[str, Any]:
        """The settings that say what is run."""
        return {name: value for name, value in self.as_dict().items() if name not in self.not_identity}


Config = TypeVar("Config", bound=TrainConfig)


Value = TypeVar("Value")


def check_not_too_large(
    settings: Mapping[str, Any], largest: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Raise InputError where a number of a command line is larger than anything can be made of, or nan.

    ``largest`` has by their settings' names the whole numbers that MAX_COUNT is no bound for.
    """
    for name, value in settings.items():
        most = MAX_FLOAT if isinstance(value, float) else largest.get(name, MAX_COUNT)
        if isinstance(value, int | float) and not value <= most:
            raise InputError(f"--{flag(name)} is {value}; it must be at most {most}")


def setting(settings: dict[str, Any], name: str, kind: type[Value], most: int = MAX_COUNT) -> Value:
    """One of the settings that a run's folder holds; it may be anybody's.

    Raises InputError where it is missing, of another kind than ``kind``, or a whole number below 0 or above
    ``most``.
    """
    value = settings.get(name)
    if type(value) is not kind or (kind is int and not 0 <= value <= most):
        expected = f"a whole number from 0 to {most}" if kind is int else f"a {kind.__name__}"
        raise InputError(f"config.json has {name} {json.dumps(value)[:100]}; {expected} is needed")
    return value


def flag(name: str) -> str:
    """A setting's name as its flag, without the dashes."""
    return name.replace("_", "-")
