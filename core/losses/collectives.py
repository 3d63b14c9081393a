"""Collective operations with a gradient. With one process each returns its input.

Shapes: W processes · n rows of a process.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes in the default group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_gather(x: Tensor) -> Tensor:
    """Concatenate every process's tensor by rank, with a gradient: [n, ...] -> [W n, ...]."""
    return _AllGather.apply(x) if world_size() > 1 else x


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum every process's tensor, with a gradient."""
    return _AllReduceSum.apply(x) if world_size() > 1 else x


def gather_numbers(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """Each of the numbers in every process: n -> [n, W].

    Hosts exchange them, without a GPU synchronisation, unless the group has NCCL alone.
    """
    own = torch.tensor(numbers, device="cpu" if "cpu:" in dist.get_backend_config() else device)
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    return torch.stack(gathered).T.tolist()


def check_counts(counts: Sequence[int]) -> None:
    """Raise ValueError unless all processes have equally many samples."""
    if len(set(counts)) > 1:
        listed = ", ".join(map(str, counts))
        raise ValueError(f"the processes have {listed} samples; all must have equally many")


def check_same_count(count: int, device: torch.device) -> None:
    """Raise ValueError unless all processes have equally many samples: gathering them needs that."""
    if world_size() > 1:
        check_counts(gather_numbers([count], device)[0])


class _AllGather(torch.autograd.Function):
    """The gradient of a process's tensor is the sum of its gradients in every process."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return _AllReduceSum.apply(grad_output).chunk(world_size())[rank()]


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return _AllReduceSum.apply(grad_output)
