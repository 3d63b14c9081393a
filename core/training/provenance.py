"""Where a record comes from: versions, device, commit, and the memory that was used."""

import functools
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from core.distributed import world_size

RECORDED_PACKAGES = (
    "hard-negatives",
    "numpy",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: the GPU's allocations, or on the CPU the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What a record says about code, versions and device."""
    is_cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if is_cuda else _processor_name(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "revision": _revision(),
        "packages": {name: version for name in RECORDED_PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@functools.cache
def _revision() -> str | None:
    """The checkout's commit, with ``-dirty`` if tracked files differ from it; None outside a checkout.

    Recorded results do not count as changes, so that a suite can write one result after the other. It is read
    once in a process, because the process keeps the code that it has loaded.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return None  # installed inside the checkout of another project
        changed = git("status", "-s", "-uno", "--", ":/", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
