"""Measures parts, and writes their records."""

import os
import time
from dataclasses import asdict
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from benchmarks.measure import Findings
from benchmarks.page import write_page, write_part
from benchmarks.settings import PARTS, SuiteConfig
from core.io.errors import reason_of
from core.training.provenance import describe_environment
from core.training.runtime import choose_device


def part_of(name: str) -> ModuleType:
    """The module of a part.

    It has a TITLE, a text ABOUT it for the page, and measure(settings, device, findings), which adds to the
    findings.
    """
    return import_module(f"benchmarks.{name}")


def measure_parts(config: SuiteConfig) -> None:
    """Measure the chosen parts; the page is written after each."""
    for name in config.only:
        print(f"== {name}", flush=True)
        measure(name, config)
        write_page(config.folder(), PARTS)


def measure(name: str, config: SuiteConfig) -> None:
    """Measure a part and write its record.

    If it is interrupted or fails, what was measured until then is written, unless there is a record.
    """
    part, findings, started = part_of(name), Findings(), time.perf_counter()
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
    part = part_of(name)
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
