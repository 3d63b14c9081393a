"""How each process of a group comes to everybody's embeddings, when the matrix of all pairs is too large.

Shapes: W processes · n embeddings of a process · D dim.
"""

import os
from collections.abc import Iterator
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .collectives import rank, world_size

# alone: own embeddings only · gather: everybody's at once · ring: one process's at a time, handed on
Exchange = Literal["alone", "gather", "ring"]

GATHER_SHARE = 0.25  # of the free memory: what everybody's embeddings may take of it


def blocks(exchange: Exchange, *own: Tensor) -> tuple[range, Iterator[tuple]]:
    """Own samples, and (samples, *tensors) of every process, beginning with one's own tensors themselves.

    ``own`` are tensors [n, ...] of two views, one after the other; samples are numbered by process.
    """
    count = len(own[0]) // 2
    if exchange == "alone":
        return range(count), iter([(range(count), *own)])
    parts = _gathered(own) if exchange == "gather" else _ring(own)
    samples = [range(process * count, (process + 1) * count) for process in range(world_size())]
    return samples[rank()], ((samples[process], *tensors) for process, tensors in parts)


def _gathered(own: tuple[Tensor, ...]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    parts = [[torch.empty_like(tensor) for _ in range(world_size())] for tensor in own]
    for of_all, tensor in zip(parts, own, strict=True):
        dist.all_gather(of_all, tensor.contiguous())
    yield rank(), own
    for process in range(world_size()):
        if process != rank():
            yield process, tuple(of_all[process] for of_all in parts)


def _ring(own: tuple[Tensor, ...]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Hand on what came from the process before, while it is worked on."""
    size = world_size()
    held = tuple(tensor.contiguous() for tensor in own)
    for step in range(size):
        incoming, requests = (), []
        if step < size - 1:
            incoming = tuple(torch.empty_like(tensor) for tensor in held)
            sends = [dist.P2POp(dist.isend, tensor, (rank() + 1) % size) for tensor in held]
            receives = [dist.P2POp(dist.irecv, tensor, (rank() - 1) % size) for tensor in incoming]
            requests = dist.batch_isend_irecv(sends + receives)
        yield (rank() - step) % size, own if step == 0 else held
        for request in requests:
            request.wait()
        held = incoming


def choose_exchange(embeddings: Tensor) -> Exchange:
    """How the embeddings [n, D] of all processes come together: at once where they fit, else in a ring.

    They fit if they take less than a quarter of the free memory, in every process. Raises ValueError where
    the processes do not have equally many. The hosts exchange this where their group can, and no GPU is
    waited for; in a group of NCCL alone it is.
    """
    if world_size() == 1:
        return "alone"
    needed = 2 * world_size() * embeddings.numel() * embeddings.element_size()  # parts come, and are held
    fits = needed < GATHER_SHARE * free_memory(embeddings.device)
    device = "cpu" if "cpu:" in dist.get_backend_config() else embeddings.device
    facts = torch.tensor([len(embeddings), fits], device=device)
    of_all = [torch.empty_like(facts) for _ in range(world_size())]
    dist.all_gather(of_all, facts)
    counts, fit = torch.stack(of_all).T.tolist()
    if len(set(counts)) > 1:
        each = ", ".join(str(count // 2) for count in counts)
        raise ValueError(f"the processes have {each} samples; all must have equally many")
    return "gather" if all(fit) else "ring"


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take: the GPU's, or its share of the machine's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not a Unix that says
        return 2**31
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
