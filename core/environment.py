"""Where a run runs: device, precision, random states, and the environment that its record names."""

import functools
import os
import platform
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.distributed import world_size
from core.errors import InputError

DEVICE_TYPES = ("cpu", "cuda")
RECORDED_PACKAGES = (
    "hard-negatives",
    "numpy",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "torch-geometric",
    "torchvision",
    "transformers",
)


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises InputError if it is not there, or nothing can be trained on it (such as torch's meta device).

    Of the processes that torchrun starts on a machine, each gets a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used: {reason}; auto or cpu always can") from None
    if device.type not in DEVICE_TYPES:
        raise InputError(f"--device is {name}; it must be auto, cpu, cuda, or one GPU as cuda:1")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """``auto`` is bfloat16 where ``device`` computes it in hardware, else float32; other names stay."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # get_capabilities came after torch 2.11; without it a processor counts as one without bfloat16.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = device.type == "cpu" and any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))
    return "bfloat16" if has_bfloat16 else "float32"


def be_deterministic(wanted: bool) -> None:
    """Have torch use deterministic algorithms alone, and raise where it has none; before a GPU is used.

    On a CPU results depend on the number of threads, not on the time: there nothing changes.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Matrix products in ``precision`` (``float32`` or ``bfloat16``) on ``device``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's random states, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def epoch_generator(seed: int, epoch: int, device: torch.device, rank: int = 0) -> torch.Generator:
    """Random numbers of one epoch (and process), whatever was drawn before: what resuming relies on."""
    entropy = np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(entropy[0] >> 1))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of ``count`` samples, the same on every device and in every process: int64 [count]."""
    return torch.randperm(count, generator=epoch_generator(seed, epoch, torch.device("cpu")))


def random_states() -> dict[str, Any]:
    """The random states of python, numpy and torch, in types that ``torch.load(weights_only=True)`` reads."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what ``random_states`` gave."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Random states from before are back afterwards."""
    before = random_states()
    try:
        yield
    finally:
        set_random_states(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random states from ``seed`` inside; those from before are back afterwards."""
    with random_states_kept():
        seed_everything(seed)
        yield


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: the GPU's allocations, or on the CPU the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made."""
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
    """The checkout's commit, ``-dirty`` where tracked files differ from it; None outside a checkout.

    What studies have recorded is no code: a suite that writes one result after the other stays clean. It is
    asked once a process, which goes on with the code that it has loaded.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return None  # installed inside somebody else's checkout
        changed = git("status", "-s", "-uno", "--", ":/", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
