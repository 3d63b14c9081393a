"""This checkout beside an older revision, command by command: what people wait for, before and after."""

import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.busy import MAX_RATIO, BusyProcess
from benchmarks.measure import ROOT, Findings, summary
from benchmarks.settings import RevisionSettings
from core.io.errors import InputError, TrainingError, reason_of
from core.training.config import default_data_root
from core.training.threads import WAIT_VARIABLES

TITLE = "Before and after"
ABOUT = (
    "Commands of an older revision and of this checkout, in fresh processes that alternate: help and bad "
    "input, imports, training alone and beside a process that keeps a core busy, and the demo. Of training "
    "with one seed the time is that of its epochs, without imports and evaluation. The machine should be "
    "idle otherwise: the settings below have its load average at the start. [Why some goals are "
    "missed](waiting.md#goals-that-are-missed)."
)
NOW = "now"
MAX_SLOWER = 1.05
MAX_HELP, MAX_IMPORTS = 0.7, 2.2  # seconds


class Command(NamedTuple):
    """A command line of Python, and what is measured of it."""

    case: str
    arguments: tuple[str, ...]
    status: int = 0  # its exit code
    epochs: int = 0  # divide the seconds of its training by these; 0: the seconds of the whole command
    is_busy: bool = False  # measured beside a busy process too
    is_long: bool = False  # measured once
    at_most: float | None = None  # seconds


def training(modality: str, dataset: str, epochs: int, case: str, each: bool, **goal: float) -> Command:
    """Training with one seed; its time is that of ``each`` epoch, or of all."""
    arguments = ("-m", f"{modality}.train", "--dataset", dataset, "--epochs", str(epochs))
    return Command(f"{dataset}, {case}", arguments, epochs=epochs if each else 1, is_busy=True, **goal)


def imports(module: str, older: str) -> Command:
    code = f"try:\n import {module}\nexcept ImportError:\n import {older}"
    return Command(f"imports of {older}", ("-c", code), at_most=MAX_IMPORTS)


TEN_SEEDS = ("-m", "graph.train", "--dataset", "MUTAG", "--seeds", "0-9")
COMMANDS = {
    "help": Command("graph.train --help", ("-m", "graph.train", "--help"), at_most=MAX_HELP),
    "flag": Command(
        "sentence.train, a wrong flag", ("-m", "sentence.train", "--epcohs", "3"), 2, at_most=MAX_HELP
    ),
    "dataset": Command(
        "image.train, an unknown dataset", ("-m", "image.train", "--dataset", "no-such"), 2, at_most=MAX_HELP
    ),
    # The first module is what the command imports today, once its command line is checked.
    "imports-graph": imports("graph.task", older="graph.train"),
    "imports-image": imports("image.task", older="image.train"),
    "imports-sentence": imports("sentence.task", older="sentence.train"),
    "imports-reproduce": imports("shared_eval.reproduce.results", older="shared_eval.reproduce"),
    "motifs": training("graph", "motifs", 5, "5 epochs", each=False),
    "mutag": training("graph", "MUTAG", 100, "100 epochs", each=False, at_most=1.0),
    "reddit": training("graph", "REDDIT-BINARY", 2, "an epoch", each=True, at_most=1.0),
    "dd": training("graph", "DD", 2, "an epoch", each=True, at_most=1.3),
    "shapes": training("image", "shapes", 2, "an epoch", each=True),
    "pydoc": training("sentence", "pydoc", 1, "an epoch", each=True),
    "seeds": Command("MUTAG, 10 seeds, evaluated", TEN_SEEDS),
    "row": Command("MUTAG, 10 seeds at 4 betas, evaluated", (*TEN_SEEDS, "--betas", "0,1,2,10")),
    "demo": Command("make demo, installed", ("make", "demo"), is_long=True, at_most=150.0),
}


def measure(settings: RevisionSettings, device: torch.device, findings: Findings) -> None:
    """Measure each command in both; one that fails is left out, with a note."""
    unknown = [name for name in settings.commands if name not in COMMANDS]
    if unknown:
        raise InputError(f"--revisions.commands has {unknown[0]!r}; it may have {', '.join(COMMANDS)}")
    findings.settings["load_average"] = round(os.getloadavg()[0], 1)
    with checkout(settings.old) as older, BusyProcess() as busy_process:
        checkouts = {settings.old: Path(older), NOW: ROOT}
        for tested in (COMMANDS[name] for name in settings.commands or COMMANDS):
            rounds = 1 if tested.is_long else settings.rounds
            try:
                idle = compare(tested, tested.case, checkouts, rounds, device, findings)
                goals(tested, idle, settings.old, findings)
                if settings.busy and tested.is_busy:
                    case = f"{tested.case}, busy"
                    with busy_process.resumed():
                        busy = compare(tested, case, checkouts, rounds, device, findings)
                    findings.goal(f"{case} relative to idle", busy[NOW] / idle[NOW], MAX_RATIO)
            except TrainingError as error:
                findings.notes.append(f"Left out: {error}.")


def checkout(revision: str) -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder with the files of a revision; raises InputError if git does not have it."""
    try:
        done = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    except OSError as error:
        raise InputError(f"git cannot be started: {reason_of(error)}") from error
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise InputError(f"git has no files of --revisions.old {revision}: {reason}")
    folder = tempfile.TemporaryDirectory()
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder.name, filter="data")
    return folder


def compare(
    tested: Command,
    case: str,
    checkouts: dict[str, Path],
    rounds: int,
    device: torch.device,
    findings: Findings,
) -> dict[str, float]:
    """Record the command's seconds in each checkout; return the medians."""
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name, folder in checkouts.items():
            seconds[name].append(seconds_in(folder, tested, device))
    recorded = findings.add_comparison(case, {name: summary(values) for name, values in seconds.items()})
    return {name: subject["median_seconds"] for name, subject in recorded["subjects"].items()}


def goals(tested: Command, idle: dict[str, float], old: str, findings: Findings) -> None:
    if tested.at_most is not None:
        findings.goal(tested.case, idle[NOW], tested.at_most, "s")
    findings.goal(f"{tested.case}, relative to {old}", idle[NOW] / idle[old], MAX_SLOWER)


def seconds_in(folder: Path, tested: Command, device: torch.device) -> float:
    """Seconds of the command, or of its training, with the code in ``folder``.

    Raises TrainingError with its last line if it ends with another exit code.
    """
    # This process has set what waiting threads do: see benchmarks/__init__.py.
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    environment |= {"PYTHONPATH": str(folder), "HCL_DATA": str(default_data_root().resolve())}
    if device.type == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, *arguments_in(folder, tested)]
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        wall = time.perf_counter() - started
        if done.returncode != tested.status:
            reason = (done.stderr.splitlines() or ["no message"])[-1]
            raise TrainingError(f"{tested.case} ended with {done.returncode} in {folder}: {reason}")
        if not tested.epochs:
            return wall
        [record] = Path(place).rglob("result.json")
        return json.loads(record.read_text())["train_seconds"] / tested.epochs


def arguments_in(folder: Path, tested: Command) -> Sequence[str]:
    """Python's arguments; those of a target of ``make`` are in the last line that it would run."""
    if tested.arguments[0] != "make":
        return tested.arguments
    # Below another make, make names the folders that it enters and leaves.
    dry_run = ["make", "--dry-run", "--no-print-directory", *tested.arguments[1:]]
    planned = subprocess.run(dry_run, cwd=folder, capture_output=True, text=True)
    return shlex.split(planned.stdout.splitlines()[-1])[1:]
