"""Training that is started from Python: what the ``train_on`` of all modalities have in common."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from core.distributed import launched_processes
from core.io.errors import InputError
from core.training.describe import config_from
from core.training.settings import Config


def refuse_dataset(settings: Mapping[str, Any], argument: str) -> None:
    """Raise InputError if the settings name a dataset: ``argument`` says what is trained on."""
    if "dataset" in settings:
        raise InputError(
            f"`dataset` is {settings['dataset']}, but train_on takes `{argument}` instead; leave it out"
        )


@contextmanager
def python_config(
    config_type: type[Config],
    defaults_for: Callable[..., Config],
    output_dir: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
) -> Iterator[Config]:
    """The config of a run with the settings of the command, by name, in ``output_dir``.

    Without ``output_dir`` the run's folder is a temporary one, which is removed at the end. Raises InputError
    if a setting is not valid, or if torchrun has started several processes.
    """
    if launched_processes() > 1:
        command = f"python -m {config_type.modality}.train"
        instead = f"for several, start {command} by torchrun"
        how = instead if config_type.supports_torchrun else "start it without torchrun"
        raise InputError(f"train_on runs in one process; {how}")
    with TemporaryDirectory() if output_dir is None else nullcontext() as temporary:
        folder = output_dir if temporary is None else Path(temporary) / "run"
        given = {**settings, "output_dir": folder}
        named = {name: _plain(value) for name, value in given.items()}
        [config] = config_from(config_type, defaults_for, named).expand()
        yield config


def _plain(value: Any) -> Any:
    """A setting as JSON has it: a path or a device as text, one of NumPy's numbers as Python's."""
    if isinstance(value, os.PathLike | torch.device):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value
