"""Random states: seeded, saved and restored, and the random numbers of an epoch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's random states, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def epoch_generator(seed: int, epoch: int, device: torch.device, rank: int = 0) -> torch.Generator:
    """A generator for one epoch (and process), independent of earlier draws, so that runs can resume."""
    entropy = np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(entropy[0] >> 1))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """A permutation of ``count`` samples, the same on every device and in every process: int64 [count]."""
    return torch.randperm(count, generator=epoch_generator(seed, epoch, torch.device("cpu")))


def random_states() -> dict[str, Any]:
    """The random states of python, numpy and torch, in types that ``torch.load(weights_only=True)`` reads."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what ``random_states`` returned."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():  # the states may be of a machine with more GPUs
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


@contextmanager
def preserve_random_states() -> Iterator[None]:
    """Restore the random states at the end of the block."""
    before = random_states()
    try:
        yield
    finally:
        set_random_states(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random states from ``seed`` inside the block; those from before are restored at its end."""
    with preserve_random_states():
        seed_everything(seed)
        yield
