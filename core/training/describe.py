"""What runs some settings describe: their folders, and whether they are finished. This imports no torch."""

import contextlib
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from core.io.errors import InputError, did_you_mean
from core.training.config import GroupConfig, TrainConfig
from core.training.records import read_result
from core.training.settings import Config, check_type, differing_settings


def describe_runs(config_type: type[Config], defaults_for: Callable[..., Config]) -> None:
    """Answer what runs a modality would train: how ``shared_eval.reproduce`` asks, which imports none.

    Both are JSON. The question, on stdin, is a list of runs, each with its ``settings`` and the ``root`` of
    its folder. The answer, on stdout, has ``trains_together``, whether a process can train several seeds, and
    for each run its ``folder``, its ``settings`` (all that identify it), ``finished``, and ``conflict``: how
    they differ from those of a run in the folder. An invalid run has ``error`` alone.
    """
    answers = [_describe(config_type, defaults_for, **run) for run in json.load(sys.stdin)]
    json.dump({"trains_together": issubclass(config_type, GroupConfig), "runs": answers}, sys.stdout)


def _describe(
    config_type: type[Config], defaults_for: Callable[..., Config], settings: dict[str, Any], root: str
) -> dict[str, Any]:
    try:
        config = config_from(config_type, defaults_for, settings)
    except InputError as error:
        return {"error": str(error)}
    folder = config.folder(Path(root))
    conflict = ""
    has_begun = (folder / "metrics.jsonl").exists() or (folder / "result.json").exists()
    with contextlib.suppress(InputError):  # settings that cannot be read: the trainer says so
        conflict = differing_settings(config, folder) if has_begun else ""
    return {
        "folder": str(folder),
        "settings": config.identity(),
        "finished": is_finished(config, folder),
        "conflict": conflict,
    }


def config_from(
    config_type: type[Config], defaults_for: Callable[..., Config], settings: Mapping[str, Any]
) -> Config:
    """The config of some settings, in types that JSON holds, over the defaults that they select.

    Raises InputError for a setting that is unknown, of the wrong type, out of range or without effect.
    """
    hints = get_type_hints(config_type)
    names = [item.name for item in dataclasses.fields(config_type)]
    for name in settings:
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"`{name}` is not a setting of {config_type.modality} training{hint}")
    values = {name: check_type(name, value, hints[name]) for name, value in settings.items()}
    selecting = inspect.signature(defaults_for).parameters
    defaults = defaults_for(**{name: value for name, value in values.items() if name in selecting})
    config = dataclasses.replace(defaults, **values).checked()
    config.check_effects()
    return config


def is_finished(config: TrainConfig, folder: Path) -> bool:
    """Whether the folder has an intact record of a run with this config."""
    try:
        read_result(folder / "result.json")
        return not differing_settings(config, folder)
    except (OSError, ValueError, InputError):
        return False
