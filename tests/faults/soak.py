"""How runs survive: kills, signals and damage, in numbers: ``python -m benchmarks.reliability --kills 50``.

Tiny runs of every modality with a checkpoint after every step. After each fault the folder must be whole and
the run, gone on with, must end in the weights, losses and scores of an uninterrupted one, bit for bit.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.io.errors import DamagedFileError, InputError, TrainingError
from core.io.files import read_json, write_atomically
from core.training.checkpoints import read_checkpoint
from core.training.cli import command, parse
from core.training.provenance import describe_environment
from core.training.records import read_record
from tests.faults.fuzz import FuzzConfig
from tests.faults.tiny import FLAGS, Tiny, check_is_as, check_is_consistent, write_tiny_data
from tests.processes import Trainer, changes_of


@dataclass(frozen=True, kw_only=True)
class ReliabilityConfig:
    """Kill, interrupt and damage tiny runs of every modality, and count what they survive."""

    kills: int = 50
    """SIGKILLs at random moments, for each modality."""
    signals: int = 10
    """SIGTERMs and Ctrl-Cs at random moments, for each modality."""
    every: int = 1
    """Kill before every change on disk that a run makes, or before every second, third, ..."""
    damages: int = 2000
    """Bits flipped and files cut short, for each modality's checkpoint and record."""
    modalities: tuple[str, ...] = tuple(FLAGS)
    """image, graph, sentence."""
    seed: int = 0
    """Seeds moments and places."""
    inputs: Path = Path("benchmarks/results/fuzz.json")
    """What benchmarks.fuzz has counted, to stand on the page too, if it is there."""
    output: Path = Path("benchmarks/results/reliability.json")
    """The results' file; a page is written beside it."""


# Faults that are injected one by one, by the tests that do so: each ends in one clear line and loses nothing.
INJECTED = {
    "tests/faults/test_disk.py": "full and read-only disks, folders and data gone, a clock that goes back",
    "tests/faults/test_checkpoints.py": "checkpoints cut, altered, newer, of something else, of other data",
    "tests/faults/test_files.py": "records and encoders cut, altered, newer; two runs in one folder",
    "tests/faults/test_divergence.py": "losses, gradients and weights gone astray, constant embeddings",
    "tests/faults/test_signals.py": "signals in training, evaluation, torchrun and reproduce",
    "tests/core/io/test_archives.py": "archives that lead out, lie about sizes, or are bombs",
    "tests/core/io/test_downloads.py": "downloads cut short, redirected, altered",
    "tests/test_strangers.py": "pickles and encoders with code in them",
    "tests/fuzz/test_modes.py": "data sets' files damaged, each in the way that its message names",
}


@dataclass
class Soak:
    """One modality's runs, and what they have survived."""

    tiny: Tiny
    folder: Path
    draw: random.Random
    counts: Counter

    def begin(self) -> None:
        """The uninterrupted run that all others must equal."""
        self.whole = self.folder / "whole"
        finish(self.tiny, self.whole)
        began = time.monotonic()
        finish(self.tiny, self.folder / "timed")
        self.seconds = time.monotonic() - began

    def stop_at_random(self, times: int, stop: Callable[[Trainer], int], name: str) -> None:
        """Stop runs at random moments and go on with them, again and again, until ``times`` were stopped."""
        stopped, run = 0, 0
        while stopped < times:
            folder = self.folder / f"{name}{run}"
            trainer = self.tiny.start(folder, "--resume")
            if trainer.wait(self.draw.uniform(0, self.seconds)) is None:
                stopped += stop(trainer)
            if trainer.wait() == 0:
                self._compare(folder)
                run += 1
            else:
                check_is_consistent(folder)
        if (self.folder / f"{name}{run}").exists():
            finish(self.tiny, self.folder / f"{name}{run}")
            self._compare(self.folder / f"{name}{run}")
        self.counts[name] += stopped

    def kill_before_changes(self, every: int) -> None:
        """Kill runs just before each change on disk, and go on with them."""
        flags = self.tiny.flags(self.folder / "counted")
        for die_at in range(0, changes_of(self.tiny.module, flags, self.folder / "counted.log"), every):
            folder = self.folder / f"change{die_at}"
            if self.tiny.start(folder, die_at=die_at).wait() != -signal.SIGKILL:
                raise TrainingError(f"{self.tiny.modality}: no change {die_at} to die before")
            check_is_consistent(folder)
            finish(self.tiny, folder)
            self._compare(folder)
            self.counts["kills before a change on disk"] += 1

    def damage(self, path: Path, read: Callable[[Path], object], times: int) -> None:
        """Flip bits and cut the file short: it is found damaged, or says what it said."""
        content, said = path.read_bytes(), comparable(read(path))
        for number in range(times):
            changed = bytearray(content)
            place = self.draw.randrange(len(content))
            if number % 10:
                changed[place] ^= 1 << self.draw.randrange(8)
            else:
                del changed[place:]
            path.write_bytes(changed)
            try:
                if comparable(read(path)) != said:
                    raise TrainingError(f"{path} reads as something else after damage at byte {place}")
                self.counts[f"{path.suffix} harmless"] += 1
            except DamagedFileError:
                self.counts[f"{path.suffix} recognised"] += 1
        path.write_bytes(content)

    def _compare(self, folder: Path) -> None:
        check_is_as(self.whole, self.tiny, folder)
        self.counts["runs that ended as the uninterrupted one"] += 1
        shutil.rmtree(folder)


def comparable(content: object) -> bytes:
    """What was read, as bytes that are equal where it is."""
    return json.dumps(content, sort_keys=True, default=repr).encode()


def finish(tiny: Tiny, folder: Path) -> None:
    ended(tiny.start(folder, "--resume"))


def ended(trainer: Trainer) -> None:
    if trainer.wait() != 0:
        raise TrainingError(f"a run ended with {trainer.wait()}:\n{trainer.said()}")


def kill(trainer: Trainer) -> bool:
    trainer.signal(signal.SIGKILL)
    return trainer.wait() == -signal.SIGKILL


def interrupt(draw: random.Random) -> Callable[[Trainer], bool]:
    """A function that sends either signal, and says whether it was handled: before that it simply kills."""

    def stop(trainer: Trainer) -> bool:
        signum = draw.choice([signal.SIGINT, signal.SIGTERM])
        trainer.signal(signum)
        return trainer.wait() == 128 + signum

    return stop


def soak(modality: str, config: ReliabilityConfig, folder: Path) -> dict[str, int]:
    """What a modality's runs survive, in counts."""
    runs = Soak(Tiny(modality, folder / "data"), folder / modality, random.Random(config.seed), Counter())
    runs.folder.mkdir()
    runs.begin()
    runs.stop_at_random(config.kills, kill, "kills at a random moment")
    runs.kill_before_changes(config.every)
    runs.stop_at_random(config.signals, interrupt(runs.draw), "signals at a random moment")
    checkpoint = next((runs.whole / "checkpoint").glob("*.pt"))
    runs.damage(checkpoint, lambda path: read_checkpoint(path)[1], config.damages)
    runs.damage(runs.whole / "result.json", read_record, config.damages)
    return dict(runs.counts)


def injected(path: str) -> int:
    """How many faults the tests of a file inject; raises TrainingError if one of them is not survived."""
    command = [sys.executable, "-m", "pytest", "-q", path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or passed is None:
        raise TrainingError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return int(passed[1])


def command_of(module: str, settings: dict[str, int], usual: object) -> str:
    """The command that measures with these settings, of which those that are ``usual`` go without saying."""
    flags = [f" --{name} {value}" for name, value in settings.items() if value != getattr(usual, name)]
    return f"`python -m {module}{''.join(flags)}`"


def page_of(record: dict[str, Any], fuzzed: dict[str, Any] | None) -> str:
    """The results as a page of Markdown."""
    counts = record["results"]
    again = command_of("benchmarks.reliability", record["settings"], ReliabilityConfig())
    lines = [
        "# Reliability",
        "",
        "Tiny runs with a checkpoint after every step, killed, interrupted, and their files damaged. After "
        "each fault the folder was whole; each run, gone on with, ended in the weights, losses and scores of "
        f"an uninterrupted one, bit for bit. Again: {again}.",
        "",
        f"| fault | {' | '.join(counts)} |",
        f"| --- |{' --- |' * len(counts)}",
    ]
    names = {
        "kills at a random moment": "SIGKILL at a random moment",
        "kills before a change on disk": "SIGKILL just before a file is written, renamed or removed",
        "signals at a random moment": "SIGTERM or Ctrl-C at a random moment",
        "runs that ended as the uninterrupted one": "runs gone on with that ended as the uninterrupted one",
        ".pt recognised": "checkpoints damaged and recognised",
        ".json recognised": "records damaged and recognised",
        ".json harmless": "records damaged between their tokens, which read the same",
    }
    for key, name in names.items():
        lines.append(f"| {name} | {' | '.join(str(of.get(key, 0)) for of in counts.values())} |")
    lines += ["", "Faults injected one by one, each a test.", "", "| faults | survived |", "| --- | --- |"]
    lines += [f"| {INJECTED[path]} (`{path}`) | {count} |" for path, count in record["injected"].items()]
    if fuzzed:
        again = command_of("benchmarks.fuzz", fuzzed["settings"], FuzzConfig())
        lines += [
            "",
            "Damaged and made-up input for every parser: each ended in a value or one clear error. "
            f"Again: {again}.",
            "",
            "| parser | inputs | values | errors |",
            "| --- | --- | --- | --- |",
        ]
        for name, of in fuzzed["results"].items():
            lines.append(f"| {name} | {of['inputs']:,} | {of['values']:,} | {of['errors']:,} |")
    environment = record["environment"]
    lines += [
        "",
        f"Measured on {environment['device_name']}, Python {environment['python']}, "
        f"torch {environment['torch']}, revision {environment['revision']}.",
    ]
    return "\n".join(lines) + "\n"


@command
def main() -> None:
    config = parse(ReliabilityConfig, None, "python -m benchmarks.reliability")
    unknown = set(config.modalities) - set(FLAGS)
    if unknown or min(config.kills, config.signals, config.damages) < 0 or config.every < 1:
        raise InputError(
            f"--modalities must be of {', '.join(FLAGS)}, counts not negative, --every 1 or more"
        )
    fuzzed = read_json(config.inputs) if config.inputs.exists() else None
    results = {}
    with tempfile.TemporaryDirectory(prefix="reliability-") as scratch:
        write_tiny_data(Path(scratch) / "data")
        for modality in config.modalities:
            results[modality] = soak(modality, config, Path(scratch))
            print(modality, results[modality], flush=True)
    names = ("kills", "signals", "every", "damages", "seed")
    record = {
        "environment": describe_environment(torch.device("cpu")),
        "settings": {name: getattr(config, name) for name in names},
        "results": results,
        "injected": {path: injected(path) for path in INJECTED},
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, json.dumps(record, indent=2) + "\n")
    write_atomically(config.output.with_suffix(".md"), page_of(record, fuzzed))
    print(f"written: {config.output}, {config.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
