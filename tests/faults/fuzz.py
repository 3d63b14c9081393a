"""Damaged input for every parser, in numbers: ``python -m benchmarks.fuzz --examples 2000``.

The inputs are those of ``tests/fuzz``, more of them and drawn anew for every seed. An input that ends in
anything but a value or one clear error is shrunk and ends the study.
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
    """Try inputs on every parser and count how it took them."""

    examples: int = 2000
    """Inputs for each parser."""
    seed: int = 0
    """Seeds the inputs."""
    parsers: tuple[str, ...] = ()
    """Parsers to keep, by name; by default all."""
    output: Path = Path("benchmarks/results/fuzz.json")
    """The counts."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(FuzzConfig, argv, "python -m benchmarks.fuzz")
    names = [parser.name for parser in PARSERS]
    if config.examples < 1 or not set(config.parsers) <= set(names):
        raise InputError(f"--examples must be at least 1, --parsers among {', '.join(names)}")
    results = {}
    for parser in PARSERS:
        if config.parsers and parser.name not in config.parsers:
            continue
        started = time.perf_counter()
        said = io.StringIO()  # --help, warnings
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            results[parser.name] = try_inputs(parser, config.examples, config.seed)
        print(f"{parser.name}: {results[parser.name]}, {time.perf_counter() - started:.0f} s", flush=True)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"examples": config.examples, "seed": config.seed}
    content = {
        "environment": describe_environment(torch.device("cpu")),
        "settings": settings,
        "results": results,
    }
    write_atomically(config.output, json.dumps(content, indent=2) + "\n")
    print(f"written: {config.output}")


if __name__ == "__main__":
    main()
