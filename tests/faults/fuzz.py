"""Fuzz every parser and count the outcomes: ``python -m tests.faults.fuzz --examples 2000``.

The inputs are those of ``test_fuzz.py``, more of them and different for every seed. An input that ends in
anything but a value or one clear error is shrunk, and ends the study.
"""

import contextlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.io.errors import InputError
from core.io.files import write_atomically
from core.training.cli import command, parse
from core.training.provenance import describe_environment
from tests.faults.parsers import PARSERS, try_inputs


@dataclass(frozen=True, kw_only=True)
class FuzzConfig:
    """Give every parser damaged inputs and count values and errors."""

    examples: int = 2000
    """Inputs for each parser."""
    seed: int = 0
    """Seed of the inputs."""
    parsers: tuple[str, ...] = ()
    """Names of the parsers to fuzz; by default all."""
    output: Path = Path("benchmarks/results/fuzz.json")
    """Where to write the counts."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(FuzzConfig, argv, "python -m tests.faults.fuzz")
    names = [parser.name for parser in PARSERS]
    if config.examples < 1 or not set(config.parsers) <= set(names):
        raise InputError(f"--examples must be at least 1, --parsers among {', '.join(names)}")
    results = {}
    for parser in PARSERS:
        if config.parsers and parser.name not in config.parsers:
            continue
        started = time.perf_counter()
        output = io.StringIO()  # of --help, and warnings
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            results[parser.name] = try_inputs(parser, config.examples, config.seed)
        print(f"{parser.name}: {results[parser.name]}, {time.perf_counter() - started:.0f} s", flush=True)
    record = {
        "environment": describe_environment(torch.device("cpu")),
        "settings": {"examples": config.examples, "seed": config.seed},
        "results": results,
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, json.dumps(record, indent=2) + "\n")
    print(f"written: {config.output}")


if __name__ == "__main__":
    main()
