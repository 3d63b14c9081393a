"""Devices by name, and the names that are refused."""

import pytest
import torch

from core.io.errors import InputError
from core.training.runtime import choose_device


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
