"""Kill, interrupt and damage runs, and count what they survive: ``python -m tests.faults.soak --kills 50``.

Tiny runs of every modality save a checkpoint after every step. After each fault the folder must be intact,
and the resumed run must end in the weights, losses and scores of an uninterrupted one, bit for bit.
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
from tests.faults.tiny import FLAGS, TinyCommand, assert_consistent, assert_same_run, write_tiny_data
from tests.processes import TrainProcess, count_changes


@dataclass(frozen=True, kw_only=True)
class SoakConfig:
    """Kill, interrupt and damage tiny runs of every modality, and count what they survive."""

    kills: int = 50
    """SIGKILLs at random moments, for each modality."""
    signals: int = 10
    """SIGTERMs and Ctrl-Cs at random moments, for each modality."""
    every: int = 1
    """Kill before every change on disk that a run makes, or before every second, third, ..."""
    damages: int = 2000
    """Flipped bits and truncations, for each modality's checkpoint and record."""
    modalities: tuple[str, ...] = tuple(FLAGS)
    """image, graph, sentence."""
    seed: int = 0
    """Seed of moments and positions."""
    inputs: Path = Path("benchmarks/results/fuzz.json")
    """Counts of tests.faults.fuzz to show on the page, if the file exists."""
    output: Path = Path("benchmarks/results/reliability.json")
    """Where to write the counts; the page is written beside it."""


# Tests that inject faults one by one: each fault ends in one clear line and loses nothing.
INJECTED = {
    "tests/faults/test_disk.py": "full and read-only disks, folders and data removed, a clock set back",
    "tests/faults/test_checkpoints.py": "checkpoints truncated, altered, of newer code, of other data",
    "tests/faults/test_run_files.py": "records and encoders truncated, altered; two runs in one folder",
    "tests/faults/test_divergence.py": "diverged losses, gradients and weights, collapsed embeddings",
    "tests/faults/test_signals.py": "signals in training, evaluation, torchrun and reproduce",
    "tests/core/io/test_archives.py": "archives that lead out, lie about sizes, or are bombs",
    "tests/core/io/test_downloads.py": "downloads truncated, redirected, altered",
    "tests/test_untrusted_files.py": "pickles and encoders with code in them",
    "tests/faults/test_data_files.py": "damaged data files",
    "tests/image/test_image_folders.py": "image folders: hidden, linked, split, mixed, unreadable",
    "tests/image/test_image_decoding.py": "images of any depth, transparent, rotated, of many frames",
    "tests/sentence/test_sentence_writing.py": "books in any script, encoding and layout of lines",
    "tests/sentence/test_sentence_checkpoints.py": "pretrained models without padding, or with few positions",
    "tests/graph/test_graph_data.py": "TU files with gaps, ragged or blank lines, without classes",
    "tests/shared_eval/test_outputs.py": "terminals that take ASCII alone, closed pipes, full disks",
    "tests/shared_eval/test_startup_checks.py": "folders that shadow the project's packages",
}
FAULTS = {
    "kills at a random moment": "SIGKILL at a random moment",
    "kills before a change on disk": "SIGKILL just before a file is written, renamed or removed",
    "signals at a random moment": "SIGTERM or Ctrl-C at a random moment",
    "runs that ended as the uninterrupted one": "runs completed after interruptions, as uninterrupted ones",
    ".pt recognised": "damaged checkpoints detected",
    ".json recognised": "damaged records detected",
    ".json harmless": "records damaged between their tokens, which read the same",
}


@dataclass
class Soak:
    """The runs of one modality and what they have survived."""

    tiny: TinyCommand
    folder: Path
    draw: random.Random
    counts: Counter

    def train_reference(self) -> None:
        """Train the uninterrupted run that all others must equal, and time a second one."""
        self.expected = self.folder / "expected"
        finish(self.tiny, self.expected)
        started = time.monotonic()
        finish(self.tiny, self.folder / "timed")
        self.seconds = time.monotonic() - started

    def stop_at_random(self, times: int, stop: Callable[[TrainProcess], int], name: str) -> None:
        """Stop runs at random moments and resume them until ``times`` were stopped."""
        stopped, run = 0, 0
        while stopped < times:
            folder = self.folder / f"{name}{run}"
            process = self.tiny.start(folder, "--resume")
            if process.wait(self.draw.uniform(0, self.seconds)) is None:
                stopped += stop(process)
            if process.wait() == 0:
                self._compare(folder)
                run += 1
            else:
                assert_consistent(folder)
        if (self.folder / f"{name}{run}").exists():
            finish(self.tiny, self.folder / f"{name}{run}")
            self._compare(self.folder / f"{name}{run}")
        self.counts[name] += stopped

    def kill_before_changes(self, every: int) -> None:
        """Kill runs just before changes on disk, and resume them."""
        flags = self.tiny.flags(self.folder / "counted")
        for die_at in range(0, count_changes(self.tiny.module, flags, self.folder / "counted.log"), every):
            folder = self.folder / f"change{die_at}"
            if self.tiny.start(folder, die_at=die_at).wait() != -signal.SIGKILL:
                raise TrainingError(f"{self.tiny.modality}: a run ended before its change {die_at}")
            assert_consistent(folder)
            finish(self.tiny, folder)
            self._compare(folder)
            self.counts["kills before a change on disk"] += 1

    def damage(self, path: Path, read: Callable[[Path], object], times: int) -> None:
        """Flip bits and truncate: the file must read as damaged, or as before."""
        content, expected = path.read_bytes(), comparable(read(path))
        for number in range(times):
            changed = bytearray(content)
            position = self.draw.randrange(len(content))
            if number % 10:
                changed[position] ^= 1 << self.draw.randrange(8)
            else:
                del changed[position:]
            path.write_bytes(changed)
            try:
                if comparable(read(path)) != expected:
                    raise TrainingError(f"{path} reads differently after damage at byte {position}")
                self.counts[f"{path.suffix} harmless"] += 1
            except DamagedFileError:
                self.counts[f"{path.suffix} recognised"] += 1
        path.write_bytes(content)

    def _compare(self, folder: Path) -> None:
        assert_same_run(self.expected, self.tiny, folder)
        self.counts["runs that ended as the uninterrupted one"] += 1
        shutil.rmtree(folder)


def comparable(content: object) -> bytes:
    """Serialise what was read, so that equal contents are equal bytes."""
    return json.dumps(content, sort_keys=True, default=repr).encode()


def finish(tiny: TinyCommand, folder: Path) -> None:
    process = tiny.start(folder, "--resume")
    if process.wait() != 0:
        raise TrainingError(f"a run ended with {process.wait()}:\n{process.output()}")


def kill(process: TrainProcess) -> bool:
    process.signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def interrupt(draw: random.Random) -> Callable[[TrainProcess], bool]:
    """Return a function that sends SIGINT or SIGTERM and tells whether the process handled it."""

    def stop(process: TrainProcess) -> bool:
        signum = draw.choice([signal.SIGINT, signal.SIGTERM])
        process.signal(signum)
        return process.wait() == 128 + signum

    return stop


def soak(modality: str, config: SoakConfig, folder: Path) -> dict[str, int]:
    """Count what the runs of one modality survive."""
    tiny = TinyCommand(modality, folder / "data")
    runs = Soak(tiny, folder / modality, random.Random(config.seed), Counter())
    runs.folder.mkdir()
    runs.train_reference()
    runs.stop_at_random(config.kills, kill, "kills at a random moment")
    runs.kill_before_changes(config.every)
    runs.stop_at_random(config.signals, interrupt(runs.draw), "signals at a random moment")
    checkpoint = next((runs.expected / "checkpoint").glob("*.pt"))
    runs.damage(checkpoint, lambda path: read_checkpoint(path)[1], config.damages)
    runs.damage(runs.expected / "result.json", read_record, config.damages)
    return dict(runs.counts)


def count_tests(path: str) -> int:
    """Number of tests in a file; raises TrainingError if one of them fails."""
    pytest = [sys.executable, "-m", "pytest", "-q", path]
    done = subprocess.run(pytest, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or passed is None:
        raise TrainingError(f"{' '.join(pytest)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return int(passed[1])


def command_line(module: str, settings: dict[str, int], defaults: object) -> str:
    """The command that gives these settings, without flags at their defaults."""
    flags = [f" --{name} {value}" for name, value in settings.items() if value != getattr(defaults, name)]
    return f"`python -m {module}{''.join(flags)}`"


def make_page(record: dict[str, Any], fuzzed: dict[str, Any] | None) -> str:
    """Render the counts as Markdown."""
    counts = record["results"]
    again = command_line("tests.faults.soak", record["settings"], SoakConfig())
    lines = [
        "# Reliability",
        "",
        "Tiny runs with a checkpoint after every step are killed and interrupted, and their files damaged. "
        "After each fault the folder was intact, and each resumed run ended in the weights, losses and "
        f"scores of an uninterrupted one, bit for bit. Count again with {again}.",
        "",
        f"| fault | {' | '.join(counts)} |",
        f"| --- |{' --- |' * len(counts)}",
    ]
    for key, name in FAULTS.items():
        lines.append(f"| {name} | {' | '.join(str(row.get(key, 0)) for row in counts.values())} |")
    lines += ["", "Faults injected one by one, one test each.", "", "| faults | survived |", "| --- | --- |"]
    lines += [f"| {INJECTED[path]} (`{path}`) | {count} |" for path, count in record["injected"].items()]
    if fuzzed:
        again = command_line("tests.faults.fuzz", fuzzed["settings"], FuzzConfig())
        lines += [
            "",
            "Damaged and random input for every parser: each ended in a value or one clear error. "
            f"Count again with {again}.",
            "",
            "| parser | inputs | values | errors |",
            "| --- | --- | --- | --- |",
        ]
        for name, row in fuzzed["results"].items():
            lines.append(f"| {name} | {row['inputs']:,} | {row['values']:,} | {row['errors']:,} |")
    environment = record["environment"]
    lines += [
        "",
        f"Measured on {environment['device_name']}, Python {environment['python']}, "
        f"torch {environment['torch']}, revision {environment['revision']}.",
    ]
    return "\n".join(lines) + "\n"


@command
def main() -> None:
    config = parse(SoakConfig, None, "python -m tests.faults.soak")
    unknown = set(config.modalities) - set(FLAGS)
    if unknown or min(config.kills, config.signals, config.damages) < 0 or config.every < 1:
        raise InputError(
            f"--modalities must be among {', '.join(FLAGS)}, counts at least 0, --every at least 1"
        )
    fuzzed = read_json(config.inputs) if config.inputs.exists() else None
    results = {}
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        write_tiny_data(Path(scratch) / "data")
        for modality in config.modalities:
            results[modality] = soak(modality, config, Path(scratch))
            print(modality, results[modality], flush=True)
    names = ("kills", "signals", "every", "damages", "seed")
    record = {
        "environment": describe_environment(torch.device("cpu")),
        "settings": {name: getattr(config, name) for name in names},
        "results": results,
        "injected": {path: count_tests(path) for path in INJECTED},
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, json.dumps(record, indent=2) + "\n")
    write_atomically(config.output.with_suffix(".md"), make_page(record, fuzzed))
    print(f"written: {config.output}, {config.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
