"""Settings: their ranges and types, and those that a run folder holds."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from core.io.errors import InputError
from core.io.files import read_json

if TYPE_CHECKING:
    from core.training.config import TrainConfig

MAX_COUNT = 2**31 - 1  # of samples, channels, epochs, ...
MAX_FLOAT = 3.4e38  # the largest float32
MAX_TAU_PLUS = 1 - 2**-24  # the largest float32 below 1: losses divide by 1 - tau_plus
MAX_LISTED = 1000  # numbers in a list, such as seeds that are trained together

Config = TypeVar("Config", bound="TrainConfig")
Number = TypeVar("Number", int, float)


def check_hardness(beta: float, tau_plus: float) -> None:
    """Raise InputError unless beta >= 0 and 0 <= tau_plus < 1."""
    if not 0 <= beta <= MAX_FLOAT:
        raise InputError(f"`beta` is {beta!s:.50}; it must be at least 0 and finite")
    if not 0 <= tau_plus <= MAX_TAU_PLUS:
        raise InputError(
            f"`tau_plus` is {tau_plus}; it must be at least 0 and below 1 ({MAX_TAU_PLUS:.8f} at most)"
        )


def check_ranges(
    settings: Mapping[str, Any],
    minimums: Mapping[str, float] = MappingProxyType({}),
    maximums: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Raise InputError if a number is nan, below its minimum, or above its maximum.

    By default the maximum is MAX_FLOAT for floats and MAX_COUNT for integers. Settings that are None pass.
    """
    for name, value in settings.items():
        if not isinstance(value, int | float):
            continue
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"`{name}` is nan; it must be a number")
        minimum = minimums.get(name, -math.inf)
        if not value >= minimum:
            raise InputError(f"`{name}` is {value!s:.50}; it must be at least {minimum}")
        maximum = MAX_FLOAT if isinstance(value, float) else maximums.get(name, MAX_COUNT)
        if not value <= maximum:
            raise InputError(f"`{name}` is {value!s:.50}; it must be at most {maximum}")


def parse_numbers(text: str, name: str, kind: Callable[[str], Number]) -> list[Number]:
    """The numbers of a list such as ``0,1,2`` or, for integers, ``0-9``; raises InputError for other text."""
    numbers: list[Number] = []
    try:
        for part in text.split(","):
            ends = re.fullmatch(r"(\d{1,10})-(\d{1,10})", part) if kind is int else None
            numbers += _numbers_between(int(ends[1]), int(ends[2]), name) if ends else [kind(part)]
    except ValueError:
        numbers = []
    if not 0 < len(numbers) <= MAX_LISTED or len(set(numbers)) < len(numbers):
        example = "0-9 or 0,3,5" if kind is int else "0,1,2,10"
        raise InputError(
            f"`{name}` is {text}; it must be different numbers, as {example}, and {MAX_LISTED} at most"
        )
    return numbers


def _numbers_between(first: int, last: int, name: str) -> range:
    """The numbers from first to last, at most one more than a list may have."""
    if first > last:
        raise InputError(f"`{name}` has the range {first}-{last}, which counts down; write {last}-{first}")
    return range(first, last + 1)[: MAX_LISTED + 1]


def read_settings(folder: Path, modality: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a run folder.

    Raises:
        InputError: There is none, or it is of another modality than ``modality``.
    """
    path = folder / "config.json"
    if not folder.exists():
        raise InputError(f"{folder} does not exist; name a run's folder")
    if not path.exists():
        raise InputError(f"{folder} is not a run folder: it has no config.json")
    try:
        settings = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a run folder: {path} cannot be read ({error})") from error
    if not isinstance(settings, dict) or "modality" not in settings:
        raise InputError(f"{folder} is not a run folder: {path} names no modality")
    if modality is not None and settings["modality"] != modality:
        raise InputError(
            f"{folder} holds a run of modality {settings['modality']}; a run of {modality} is needed"
        )
    return settings


def differing_settings(config: "TrainConfig", folder: Path, ignored: Collection[str] = ()) -> str:
    """What differs between the run in a folder and a config, for a message; empty if nothing does.

    Precision ``auto`` is the one of the device, so it differs from none. Raises InputError if the folder has
    no settings.
    """
    unset = {"precision"} if config.precision == "auto" else set()
    identity = {"modality": config.modality} | config.identity()
    wanted = {name: value for name, value in identity.items() if name not in unset.union(ignored)}
    # A setting that an older run does not name had the value that is the default now.
    return describe_changes(config.defaults() | read_settings(folder), wanted)


def describe_changes(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs between what a folder holds and what is wanted, for a message; empty if nothing does."""
    return "; ".join(
        f"{name.replace('_', '-')} {json.dumps(recorded.get(name))} there, {json.dumps(value)} now"
        for name, value in wanted.items()
        if recorded.get(name) != value
    )


def load_config(folder: Path, config_type: type[Config]) -> Config:
    """The settings of a run, checked as those of a command line are: the folder may be untrusted.

    Raises:
        InputError: There is no run of the config's modality, or a setting is missing, of the wrong type or
            out of range.
    """
    settings = read_settings(folder, config_type.modality)
    hints = get_type_hints(config_type)
    values = {}
    try:
        for item in dataclasses.fields(config_type):
            if item.name in settings:
                values[item.name] = check_type(item.name, settings[item.name], hints[item.name])
            elif item.default is item.default_factory is dataclasses.MISSING:
                raise InputError(f"`{item.name}` is missing")
        return config_type(**values).checked()
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {str(error).replace('`', '')}") from None


def check_type(name: str, value: Any, hint: Any) -> Any:
    """Return a value from JSON as the type of a setting; raise InputError if it has another type."""
    import typeguard  # a fifth of a second, which commands without a saved config save

    if hint in (Path, Path | None) and isinstance(value, str):
        return Path(value)
    if get_origin(hint) is tuple and isinstance(value, list):
        value = tuple(value)
    shown = json.dumps(value, default=str)[:100]
    error = InputError(f"`{name}` is {shown}; it must be {_describe_type(hint)}")
    if isinstance(value, bool) and bool not in (hint, *get_args(hint)):  # to Python a bool is an int
        raise error
    try:
        strategy = typeguard.CollectionCheckStrategy.ALL_ITEMS
        return typeguard.check_type(value, hint, collection_check_strategy=strategy)
    except typeguard.TypeCheckError:
        raise error from None


def _describe_type(hint: Any) -> str:
    """A type for a message, such as ``int``, ``list of str`` or ``one of gru, bow``."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return f"list of {_describe_type(get_args(hint)[0])}"
    return hint.__name__ if isinstance(hint, type) else str(hint)
