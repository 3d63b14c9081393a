"""Measure speed and memory: ``python -m benchmarks``; under two minutes with ``--quick``."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import evaluation, graphs, images, objective, ranks, references, sentences, startup
from benchmarks.evaluation import EvaluationSettings
from benchmarks.graphs import GraphSettings
from benchmarks.images import ImageSettings
from benchmarks.measure import Findings
from benchmarks.objective import ObjectiveSettings
from benchmarks.page import write_page, write_part
from benchmarks.ranks import RankSettings
from benchmarks.references import ReferenceSettings
from benchmarks.sentences import SentenceSettings
from benchmarks.startup import StartupSettings
from core.io.errors import reason_of
from core.training.cli import command, parse
from core.training.provenance import describe_environment
from core.training.runtime import choose_device

# A part is a module with a TITLE, a text ABOUT it for the page, settings of which QUICK is an instance, and
# measure(settings, device, findings), which adds to the findings.
PARTS = {
    "objective": objective,
    "ranks": ranks,
    "images": images,
    "graphs": graphs,
    "sentences": sentences,
    "evaluation": evaluation,
    "references": references,
    "startup": startup,
}
Part = Literal["objective", "ranks", "images", "graphs", "sentences", "evaluation", "references", "startup"]


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """Measure speed and memory, part by part, and write a page of all results."""

    only: tuple[Part, ...] = tuple(PARTS)
    """Parts to measure; results of the others are kept."""
    quick: bool = False
    """Small sizes, few rounds, embedded data: under two minutes."""
    page: bool = False
    """Only write the page and its figures again, from the recorded results."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""
    output: Path | None = None
    """Folder of the results; by default benchmarks/results/speed, with --quick runs/speed."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ranks: RankSettings = field(default_factory=RankSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    graphs: GraphSettings = field(default_factory=GraphSettings)
    sentences: SentenceSettings = field(default_factory=SentenceSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    references: ReferenceSettings = field(default_factory=ReferenceSettings)
    startup: StartupSettings = field(default_factory=StartupSettings)

    def folder(self) -> Path:
        return self.output or Path("runs/speed" if self.quick else "benchmarks/results/speed")


def parse_suite(argv: Sequence[str] | None) -> SuiteConfig:
    """Parse flags over the defaults of the full or the quick mode."""
    argv = sys.argv[1:] if argv is None else list(argv)
    quick = {name: part.QUICK for name, part in PARTS.items()} if "--quick" in argv else {}
    return parse(SuiteConfig, argv, "python -m benchmarks", default=SuiteConfig(**quick))


def measure(name: str, config: SuiteConfig) -> None:
    """Measure a part and write its record.

    If it is interrupted or fails, what was measured until then is written, unless there is a record.
    """
    part, findings, started = PARTS[name], Findings(), time.perf_counter()
    device = choose_device(config.device)
    try:
        part.measure(getattr(config, name), device, findings)
    except BaseException as error:
        is_interruption = isinstance(error, KeyboardInterrupt)
        reason = "interrupted" if is_interruption else reason_of(error)
        findings.notes.append(f"Not everything was measured: {reason}.")
        if findings.comparisons and not (config.folder() / f"{name}.json").exists():
            write_part(config.folder(), record(name, config, findings, device, started))
        raise
    write_part(config.folder(), record(name, config, findings, device, started))


def record(
    name: str, config: SuiteConfig, findings: Findings, device: torch.device, started: float
) -> dict[str, Any]:
    """What is written of a part: results, environment, settings."""
    part = PARTS[name]
    machine = {
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    return {
        "part": name,
        "title": part.TITLE,
        "about": part.ABOUT,
        "quick": config.quick,
        "seconds": round(time.perf_counter() - started, 1),
        "environment": describe_environment(device) | machine,
        **asdict(findings),
        "settings": asdict(getattr(config, name)) | findings.settings,
    }


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_suite(argv)
    for name in () if config.page else config.only:
        print(f"== {name}", flush=True)
        measure(name, config)
        write_page(config.folder(), PARTS)
    print(f"written: {write_page(config.folder(), PARTS)}")


if __name__ == "__main__":
    main()
