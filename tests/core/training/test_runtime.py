"""Devices by name, the names that are refused, and what a GPU does without waits."""

import pytest
import torch

from core.io.errors import InputError
from core.training.runtime import choose_device, choose_precision, set_deterministic, to_device
from tests.gpu import GPU, HostWaitsError, fake_gpu


def test_devices_by_name():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("has_gpu", [False, True])
def test_auto_is_a_gpu_if_there_is_one(has_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch, "empty", lambda *sizes, device: None)
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")


def test_process_takes_the_gpu_of_its_place_on_its_machine(monkeypatch):
    """On the second of two machines process 9 of all is the second."""
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch, "empty", lambda *sizes, device: None)
    assert choose_device("cuda") == torch.device("cuda:1")


@pytest.mark.parametrize(("avx", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_precision_is_bfloat16_if_the_processor_has_either_of_its_units(avx, amx, monkeypatch):
    capabilities = {"avx512_bf16": avx, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    expected = "bfloat16" if avx or amx else "float32"
    assert choose_precision("auto", torch.device("cpu")) == expected


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


def test_float32_on_a_gpu_is_tf32_in_cudnn_alone():
    """As docs/training.md says: nothing of ours changes PyTorch's defaults."""
    assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
