"""Devices by name, the names that are refused, and what a GPU does without waits."""

import pytest
import torch

from core.io.errors import InputError
from core.training.runtime import choose_device, set_deterministic, to_device
from tests.gpu import GPU, HostWaitsError, fake_gpu


def test_devices_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_unusable_device_is_refused(name):
    with pytest.raises(InputError, match=f"`device` {name} cannot be used"):
        choose_device(name)


@pytest.mark.parametrize("name", ["meta", "meta:0"])
def test_device_that_computes_nothing_is_refused(name):
    with pytest.raises(InputError, match=f"`device` is {name}; it must be auto, cpu, cuda"):
        choose_device(name)


def test_to_device_copies_to_a_gpu_without_a_wait():
    x = torch.arange(3)
    assert to_device(x, torch.device("cpu")) is x
    with fake_gpu() as gpu, gpu.without_waits():
        assert to_device(x, GPU).device == GPU
        with pytest.raises(HostWaitsError):
            x.to(GPU, non_blocking=True)


def test_cudnn_may_choose_unless_results_must_be_deterministic():
    before = torch.backends.cudnn.benchmark
    try:
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        set_deterministic(False)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        set_deterministic(False)
        torch.backends.cudnn.benchmark = before
