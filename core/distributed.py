"""Several processes that train together, started by torchrun; with one process nothing here has an effect.

Every process holds an equal part of each batch. Losses are means over a process's own anchors, so the mean of
the processes' gradients, which DistributedDataParallel takes, is the gradient of the whole batch.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core.io.errors import InputError
from core.losses.collectives import all_reduce_sum, rank, world_size

# While the main process evaluates, the others wait. If a process ends, torchrun ends the others.
PATIENCE = timedelta(days=7)


def is_main_process() -> bool:
    """Whether this process is the one that writes and reports."""
    return rank() == 0


def launched_processes() -> int:
    """How many processes torchrun has started; 1 without it.

    Raises InputError if $WORLD_SIZE is not a number.
    """
    given = os.environ.get("WORLD_SIZE", "1")
    if not re.fullmatch(r"[1-9]\d{0,5}", given):
        raise InputError(f"WORLD_SIZE is {given}; it must be a number, and torchrun sets it")
    return int(given)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun has started communicate: by gloo, and on GPUs by NCCL too."""
    if launched_processes() == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process has called this."""
    if dist.is_initialized():
        dist.barrier()


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of every process's tensor, without a gradient."""
    return all_reduce_sum(x.detach()) / world_size()


def all_reduce_max(number: int) -> int:
    """The largest number of any process; hosts exchange it, so no device is waited for."""
    if world_size() == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def local_slice(batch_size: int) -> slice:
    """This process's part of the whole batch; raises InputError if the batch does not divide."""
    share, rest = divmod(batch_size, world_size())
    if rest:
        raise InputError(
            f"`batch_size` is {batch_size}, the whole batch of {world_size()} processes; "
            f"it must be a multiple of {world_size()}"
        )
    return slice(rank() * share, (rank() + 1) * share)


def parallel(model: nn.Module, device: torch.device, has_unused: bool = False) -> nn.Module:
    """``model`` with gradients averaged and batch norm synchronised over the processes.

    In a single process this is ``model`` itself. Otherwise the batch norms inside ``model`` are replaced,
    under the same names: make the optimizer afterwards.
    ``has_unused``: some parameters do not affect the output.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        _synchronise_batch_norms(model)
    # No device_ids: they would move inputs to the GPU that must stay on the host.
    return DistributedDataParallel(model, find_unused_parameters=has_unused)


def _synchronise_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            synchronised = GatheringBatchNorm(child.num_features, child.eps, child.momentum)
            synchronised.to(child.weight)
            synchronised.load_state_dict(child.state_dict())
            setattr(module, name, synchronised)
        else:
            _synchronise_batch_norms(child)


class GatheringBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the samples of all processes, on any device; torch's own needs a GPU."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"the input is {list(x.shape)}; it must be [batch, channels, ...]")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims = [dim for dim in range(x.ndim) if dim != 1]
        count = x.numel() // x.shape[1] * world_size()
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        # Two passes, not E[x^2] - E[x]^2: that difference loses the digits of a large mean.
        mean = all_reduce_sum(values.sum(dims)) / count
        centred = values - self._along_channels(mean, x)
        variance = all_reduce_sum(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        scaled = centred * self._along_channels(scale, x) + self._along_channels(self.bias, x)
        return scaled.to(x.dtype)

    @staticmethod
    def _along_channels(values: Tensor, x: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (x.ndim - 2))
