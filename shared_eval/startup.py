"""What a command does before it imports anything else of the project."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modalities() -> list[str]:
    """The project's packages that have a trainer."""
    return sorted(path.parent.name for path in ROOT.glob("*/train.py"))


def start_command(*packages: str) -> None:
    """Check that the project's ``packages`` are those that Python imports, and prepare for Ctrl-C.

    Every package that has commands calls this when it is imported. Raises ImportError if another file or
    folder would be imported; ``python -m`` exits instead, with the message in one line, and also if what the
    commands need is not installed.
    """
    is_command = sys.argv[:1] == ["-m"]  # as long as Python looks for the module to run
    try:
        for package in packages:
            check_package(package)
        if is_command:
            check_installation()
    except ImportError as error:
        if not is_command:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if is_command:
        from core.training.signals import handle_imports

        handle_imports()


def check_installation() -> None:
    """Raise ImportError if the losses alone are installed: commands need the extra ``train``."""
    if importlib.util.find_spec("tyro") is None:
        raise ImportError(
            f"the commands need more than the losses; install it with pip install -e '{ROOT}[train]'"
        )


def check_package(package: str) -> None:
    """Raise ImportError if something else is imported instead of the project's ``package``."""
    other = shadowing(package)
    if other is not None:
        raise ImportError(
            f"{other} has the name of this project's package {package} ({ROOT / package}) and is imported "
            "instead of it; rename it, or start Python in another folder"
        )


def shadowing(package: str) -> str | None:
    """The file or folder that is imported instead of the project's ``package``; None if there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or [])
    if any(_is_same(location, ROOT / package) for location in locations):
        return None
    return locations[0] if locations else spec.origin


def _is_same(location: str, folder: Path) -> bool:
    return os.path.realpath(location) == os.path.realpath(folder)
