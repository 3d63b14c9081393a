"""Measure speed and memory: ``python -m benchmarks``; ``--quick`` takes under two minutes."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks import evaluation, graphs, images, objective, ranks, sentences
from benchmarks.evaluation import EvaluationSettings
from benchmarks.graphs import GraphSettings
from benchmarks.images import ImageSettings
from benchmarks.measure import Findings
from benchmarks.objective import ObjectiveSettings
from benchmarks.page import write_page, write_part
from benchmarks.ranks import RankSettings
from benchmarks.sentences import SentenceSettings
from core.training.cli import command, parse
from core.training.provenance import describe_environment
from core.training.runtime import choose_device

# A part is a module with a TITLE, what the page says ABOUT it, settings (QUICK is an instance of them), and
# measure(settings, device, findings), which fills the findings in.
PARTS = {
    "objective": objective,
    "ranks": ranks,
    "images": images,
    "graphs": graphs,
    "sentences": sentences,
    "evaluation": evaluation,
}


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """Measure speed and memory, part by part, and make a page of all that has been measured."""

    only: tuple[Literal["objective", "ranks", "images", "graphs", "sentences", "evaluation"], ...] = tuple(
        PARTS
    )
    """Parts to measure; the others' results stay as they are."""
    quick: bool = False
    """Small sizes, few rounds, embedded data: a look, in under two minutes."""
    page: bool = False
    """Measure nothing; make the page and its figures anew from the results there are."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one."""
    output: Path | None = None
    """Where results lie; by default benchmarks/results/speed, for --quick runs/speed."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ranks: RankSettings = field(default_factory=RankSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    graphs: GraphSettings = field(default_factory=GraphSettings)
    sentences: SentenceSettings = field(default_factory=SentenceSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def folder(self) -> Path:
        return self.output or Path("runs/speed" if self.quick else "benchmarks/results/speed")


def parse_suite(argv: Sequence[str] | None) -> SuiteConfig:
    """Flags over the defaults of the full or the quick mode."""
    argv = sys.argv[1:] if argv is None else list(argv)
    quick = {name: part.QUICK for name, part in PARTS.items()} if "--quick" in argv else {}
    return parse(SuiteConfig, argv, "python -m benchmarks", default=SuiteConfig(**quick))


def measure(name: str, config: SuiteConfig) -> dict[str, Any]:
    """A part's record: what was measured, where, and with what settings."""
    part, settings, findings = PARTS[name], getattr(config, name), Findings()
    device = choose_device(config.device)
    started = time.perf_counter()
    part.measure(settings, device, findings)
    found = asdict(findings)
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
        **found,
        "settings": asdict(settings) | found["settings"],
    }


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse_suite(argv)
    for name in () if config.page else config.only:
        print(f"== {name}", flush=True)
        write_part(config.folder(), measure(name, config))
        write_page(config.folder(), PARTS)
    print(f"written: {write_page(config.folder(), PARTS)}")


if __name__ == "__main__":
    main()
