"""A GPU that computes nothing: PyTorch's code runs on tensors that only have a shape, a type and a device.

A tensor on the device is a FakeTensor. One of the host is real, so that code which reads its values (how long
sentences are, which graphs form a batch) works. What a real GPU refuses raises an error, and so does, on
request, what makes the host wait for one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.cuda.amp.common
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

GPU = torch.device("cuda:0")
aten = torch.ops.aten


class MixedDevicesError(AssertionError):
    """An operator got tensors of the host and of the GPU. A real one takes a number of the host."""


class HostWaitsError(AssertionError):
    """A copy between host and GPU that the host waits for.

    Reading a value of the device (``item``, ``nonzero``, a boolean mask) raises PyTorch's own
    DataDependentOutputException or DynamicOutputShapeException: a FakeTensor has none.
    """


class FakeGPU(TorchDispatchMode):
    """Runs operators with a tensor or a target on the GPU on FakeTensors, the others as usual.

    Differences from a real one: autocast is enabled but converts nothing, cuDNN is not used, and numbers are
    drawn by generators of the host.
    """

    def __init__(self, fake_mode: FakeTensorMode) -> None:
        super().__init__()
        self.fake_mode = fake_mode
        self.may_wait = True
        self.operators: set[str] = set()
        """Names of the operators that ran on the GPU."""
        self._pinned = WeakIdKeyDictionary()
        self._integers = WeakIdKeyDictionary()  # what a tensor is a copy of, for the way back to the host

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # For C++ code the tensors are on the meta device, because autograd uses the streams of a GPU.
        if operator is torch.ops.prim.device.default:
            return torch.device("meta")
        kwargs = dict(kwargs or {})
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if target is not None and target.type == "meta":
            target = kwargs["device"] = GPU
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fake = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        if operator is aten.is_pinned.default:
            return args[0] in self._pinned
        if operator is aten._pin_memory.default:
            return self._pin(args[0])
        if not fake and (target is None or target.type == "cpu"):
            with unset_fake_temporarily():
                return operator(*args, **kwargs)
        if operator is aten._fused_sgd_.default:  # changes its arguments, and has no rule for FakeTensors
            return None
        if operator is aten._to_copy.default:
            return self._copy(args[0], target, kwargs)
        if operator is aten.copy_.default:
            args = (args[0], self._moved(args[1], args[0].device, *args[2:]), *args[2:])
        elif len(fake) < len(tensors):
            raise MixedDevicesError(f"{operator} got tensors of the host and of the GPU")
        self.operators.add(operator.overloadpacket.__name__)
        return operator(*args, **kwargs)

    def _copy(self, source: Tensor, target: torch.device | None, kwargs: dict[str, Any]) -> Tensor:
        """A copy of another type, or on another device."""
        target = target or source.device
        moved = self._moved(source, target, kwargs.get("non_blocking", False))
        if target.type == "cpu" and source in self._integers:
            return self._integers[source]
        copy = aten._to_copy.default(moved, **kwargs)
        if moved is not source and not source.is_floating_point():
            self._integers[copy] = source
        return copy

    def _pin(self, x: Tensor) -> Tensor:
        with unset_fake_temporarily():
            pinned = x.clone()
        self._pinned[pinned] = True
        return pinned

    def _moved(self, source: Tensor, target: torch.device, non_blocking: bool = False) -> Tensor:
        """The source of a copy as a FakeTensor; raises HostWaitsError if the host waits where it must not."""
        is_asynchronous = non_blocking and source in self._pinned
        if target.type != source.device.type and not is_asynchronous and not self.may_wait:
            kind = f"{source.dtype} {list(source.shape)}"
            raise HostWaitsError(f"{kind} is copied from {source.device} to {target}, and the host waits")
        return source if isinstance(source, FakeTensor) else self.fake_mode.from_tensor(source)

    @contextmanager
    def without_waits(self) -> Iterator[None]:
        """Raise HostWaitsError inside."""
        self.may_wait = False
        try:
            yield
        finally:
            self.may_wait = True


class HostGenerator(torch.Generator):
    """A generator of the host, whatever device is asked for."""

    def __new__(cls, device: Any = None) -> "HostGenerator":
        return super().__new__(cls)


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A machine with one GPU inside, of 64 GiB, that has bfloat16."""
    is_cuda = property(lambda x: x.fake_device.type == "cuda")
    patches = [
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", return_value=False),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(torch.cuda, "mem_get_info", return_value=(2**36, 2**36)),
        mock.patch.object(torch, "Generator", HostGenerator),
        mock.patch.object(FakeTensor, "is_cuda", is_cuda, create=True),
    ]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        fake_mode = stack.enter_context(FakeTensorMode())
        yield stack.enter_context(FakeGPU(fake_mode))
