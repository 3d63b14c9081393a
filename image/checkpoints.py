"""Weights of encoders that others trained: files of torchvision and timm, which training starts from."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from core.io.errors import InputError, reason_of
from image.config import RESNETS, ImageConfig
from image.encoder import make_encoder

CONTAINERS = ("state_dict", "model")  # what training scripts put beside the epoch and the optimizer
COUNTS = "num_batches_tracked"  # of batch norms; older files have none, and nothing depends on them


def load_checkpoint(encoder: nn.Module, config: ImageConfig, path: Path) -> list[str]:
    """Load a file's weights into the encoder of a config; return the names of the tensors that are left out.

    These are a classifier's. Raises InputError if the file holds anything else than this encoder.
    """
    state = read_weights(path)
    left_out = [name for name in state if name.startswith(classifiers(encoder))]
    state = {name: value for name, value in state.items() if name not in left_out}
    own = encoder.state_dict()
    if fault := difference(state, own):
        found = settings_of(state) if config.arch in RESNETS else {}
        if differing := config.differing_encoder(found):
            flags = " and ".join(f"`{name}` {found[name]}" for name in differing)
            has = " and ".join(differing.values())
            raise InputError(f"`init` is {path}, whose encoder has {has}; set {flags}")
        raise InputError(f"`init` is {path}, which does not hold the encoder {config.arch}: {fault}")
    encoder.load_state_dict(own | state)
    return left_out


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU; no code of the file is run.

    Raises InputError if it cannot be read, or holds something else, or values that are not finite.
    """
    state = _read_tensors(path)
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"`init` is {path}, whose {name} has values that are not finite")
    return state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message has pages, and advises to run the file's code
        raise InputError(
            f"`init` is {path}, which cannot be read as weights: it is damaged, or holds a whole model or "
            "other objects; save model.state_dict() instead"
        ) from error
    except Exception as error:  # of many kinds: damaged or crafted bytes
        raise InputError(f"`init` is {path}, which cannot be read as weights: {reason_of(error)}") from error
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"`init` is {path}, which holds other things than tensors by name")
    return {name.removeprefix("module."): value for name, value in content.items()}


def classifiers(encoder: nn.Module) -> tuple[str, ...]:
    """How the names of a classifier's tensors begin in checkpoints of this architecture."""
    names = getattr(encoder, "pretrained_cfg", {}).get("classifier", "fc")  # timm's models say it
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def difference(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How a file's tensors differ from those of an encoder in names and shapes, for a message."""
    missing = [name for name in own if name not in state and not name.endswith(COUNTS)]
    unknown = [name for name in state if name not in own]
    reshaped = [
        f"{name} is {list(state[name].shape)}, not {list(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults = {"it lacks ": missing, "it has ": unknown, "": reshaped}
    return "; ".join(f"{what}{_first_of(names)}" for what, names in faults.items() if names)


def _first_of(names: list[str]) -> str:
    more = len(names) - 1
    return f"{names[0]} and {more} other{'s' * (more > 1)}" if more else names[0]


def settings_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of the ResNet that these are the weights of, by name; empty if they are not one's."""
    first = state.get("conv1.weight")
    if first is None or first.ndim != 4:
        return {}
    settings = {
        "stem": "imagenet" if first.shape[2] == 7 else "small",
        "width": len(first),
        "norm": "batch" if "bn1.running_mean" in state else "group",
    }
    with torch.device("meta"):
        for arch in RESNETS:
            if not difference(state, make_encoder(arch, **settings).state_dict()):
                return {"arch": arch, **settings}
    return {}
