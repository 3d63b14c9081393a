"""Device, precision, threads and determinism of a process."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from core.io.errors import InputError
from core.training.config import Precision
from core.training.threads import available_cores, given_threads

DEVICE_TYPES = ("cpu", "cuda")
MIN_PARALLEL_ELEMENTS = 400_000  # measured on graphs: below, two threads on two cores are not faster than one


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one.

    Of the processes that torchrun starts on a machine, each gets a GPU of its own. Raises InputError if the
    device is not there, or cannot train anything (such as torch's meta device).
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
        raise InputError(f"`device` {name} cannot be used: {reason}; auto and cpu always can") from None
    if device.type not in DEVICE_TYPES:
        raise InputError(f"`device` is {name}; it must be auto, cpu, cuda, or one GPU as cuda:1")
    return device


def choose_precision(name: Precision, device: torch.device) -> Precision:
    """``auto`` is bfloat16 if ``device`` computes it in hardware, else float32; other names stay."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # get_capabilities came after torch 2.11; without it a processor counts as one without bfloat16.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bfloat16 = device.type == "cpu" and any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))
    return "bfloat16" if has_bfloat16 else "float32"


def set_deterministic(wanted: bool) -> None:
    """Have torch use deterministic algorithms alone, and raise an error where it has none.

    Call this before a GPU is used. On a CPU nothing changes: results depend on the number of threads alone.
    Without it cuDNN tries its convolutions, and keeps the fastest for each shape.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():  # the call imports torch._inductor
        torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted


@contextmanager
def threads_for(elements: float) -> Iterator[None]:
    """Compute with as many threads as a step whose largest tensor has ``elements`` numbers can use.

    That is one for a small step: several would wait for each other longer than they compute. For others it is
    torch's default, at most the available cores. ``$OMP_NUM_THREADS`` wins. The choice depends on the data
    alone, never on the load, because sums that are split among threads are rounded in another order.
    """
    before = torch.get_num_threads()
    wanted = 1 if elements < MIN_PARALLEL_ELEMENTS else min(before, available_cores())
    if given_threads() is not None or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Matrix products in ``precision`` (``float32`` or ``bfloat16``) on ``device``.

    In float32 a GPU computes convolutions and recurrent layers in TF32, with 10 bits of mantissa, as is
    PyTorch's default; other matrix products have float32's 23. To change that, set
    ``torch.backends.cudnn.allow_tf32``.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move ``x`` from the host's memory to ``device``; to a GPU from pinned memory, without a wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x
