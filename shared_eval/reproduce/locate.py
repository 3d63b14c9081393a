"""Where a table's runs are, and which of them are finished, as their modalities say."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.io.errors import InputError
from shared_eval.reproduce.spec import RunSpec
from shared_eval.startup import check_package


def locate(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs with what their modalities say of them, ``objective``, ``folder`` and others; each run once.

    A modality compares all settings of the run in a folder: those that a recipe does not name must have their
    defaults. Raises InputError if a modality refuses a setting, or if two runs would share a folder.
    """
    located: dict[Path, tuple[RunSpec, dict[str, Any]]] = {}
    for modality in dict.fromkeys(spec.modality for spec in specs):
        own = [spec for spec in specs if spec.modality == modality]
        answer = ask(modality, [{"settings": spec.settings(), "root": spec.root} for spec in own])
        for spec, run in zip(own, answer["runs"], strict=True):
            if "error" in run:
                raise InputError(f"{spec.dataset}, {spec.objective}, beta {spec.beta:g}: {run['error']}")
            settings, folder = run["settings"], Path(run["folder"])
            together = answer["trains_together"] if spec.seeds_together is None else spec.seeds_together
            found = replace(
                spec,
                objective=settings["objective"],
                seeds_together=together,
                folder=folder,
                finished=run["finished"],
                conflict=run["conflict"],
            )
            first, others = located.setdefault(folder, (found, settings))
            differing = [name for name, value in settings.items() if others.get(name) != value]
            if differing:
                raise InputError(
                    f"{first} and {found} differ in {', '.join(differing)} and share the folder {folder}; "
                    "name the epochs in the recipe's folder as {epochs}, or put one of them into a recipe "
                    "with another folder"
                )
    return [spec for spec, _ in located.values()]


def ask(modality: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A modality's answer; see ``core.training.describe``."""
    try:
        check_package(modality)
    except ImportError as error:
        raise InputError(str(error)) from None
    command = [sys.executable, "-m", f"{modality}.config"]
    process = subprocess.run(command, input=json.dumps(runs), capture_output=True, text=True)
    if process.returncode:
        last = (process.stderr.splitlines() or ["no output"])[-1]
        raise InputError(f"python -m {modality}.config ended with exit code {process.returncode}: {last}")
    return json.loads(process.stdout)
