"""How processes exchange their embeddings when the similarity matrix of all pairs is too large.

Shapes: W processes · n embeddings of a process · D dim.
"""

import os
from collections.abc import Iterator
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .collectives import check_counts, gather_numbers, rank, world_size

# alone: own embeddings only · gather: all at once · ring: one process's at a time, passed on
Exchange = Literal["alone", "gather", "ring"]

GATHER_SHARE = 0.25  # of the free memory, for all embeddings


def blocks(exchange: Exchange, *own: Tensor) -> tuple[range, Iterator[tuple]]:
    """Own samples, and (samples, *tensors) of every process, beginning with ``own`` itself.

    ``own`` are tensors [n, ...] of two views, one after the other. Samples are numbered by process.
    """
    count = len(own[0]) // 2
    if exchange == "alone":
        return range(count), iter([(range(count), *own)])
    parts = _gathered(own) if exchange == "gather" else _ring(own)
    samples = [range(process * count, (process + 1) * count) for process in range(world_size())]
    return samples[rank()], ((samples[process], *tensors) for process, tensors in parts)


def _gathered(own: tuple[Tensor, ...]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    gathered = [[torch.empty_like(tensor) for _ in range(world_size())] for tensor in own]
    for parts, tensor in zip(gathered, own, strict=True):
        dist.all_gather(parts, tensor.contiguous())
    yield rank(), own
    for process in range(world_size()):
        if process != rank():
            yield process, tuple(parts[process] for parts in gathered)


def _ring(own: tuple[Tensor, ...]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Pass each process's tensors on to the next process while they are worked on."""
    size = world_size()
    current = tuple(tensor.contiguous() for tensor in own)
    for step in range(size):
        incoming: tuple[Tensor, ...] = ()
        requests: list[dist.Work] = []
        if step < size - 1:
            incoming = tuple(torch.empty_like(tensor) for tensor in current)
            sends = [dist.P2POp(dist.isend, tensor, (rank() + 1) % size) for tensor in current]
            receives = [dist.P2POp(dist.irecv, tensor, (rank() - 1) % size) for tensor in incoming]
            requests = dist.batch_isend_irecv(sends + receives)
        yield (rank() - step) % size, own if step == 0 else current
        for request in requests:
            request.wait()
        current = incoming


def choose_exchange(embeddings: Tensor) -> Exchange:
    """How to exchange the embeddings [n, D] of all processes: at once where they fit, else in a ring.

    They fit if they need less than a quarter of the free memory in every process. Raises ValueError unless
    all processes have equally many. This is decided on the hosts without a GPU synchronisation, unless the
    group has NCCL alone.
    """
    if world_size() == 1:
        return "alone"
    # Twice: all_gather's own buffer, and the tensors that it copies from it.
    needed = 2 * world_size() * embeddings.numel() * embeddings.element_size()
    fits = needed < GATHER_SHARE * free_memory(embeddings.device)
    counts, fit = gather_numbers([len(embeddings) // 2, fits], embeddings.device)
    check_counts(counts)
    return "gather" if all(fit) else "ring"


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still allocate: the GPU's, or its share of the machine's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not Unix, or not known
        return 2**31
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
