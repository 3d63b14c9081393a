"""Convolutions whose weights' gradient is computed by threads that do not spin."""

import pytest
import torch
from torch import nn

from image import convolutions
from image.convolutions import Conv2d
from image.encoder import make_encoder


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def splits(monkeypatch):
    """How many parts the weights' gradients of a test were computed in."""
    parts, compute = [], convolutions.conv2d_weight
    monkeypatch.setattr(convolutions, "conv2d_weight", lambda *a: parts.append(1) or compute(*a))
    return parts


def gradients(conv, images, precision=torch.bfloat16):
    """Output and gradients of a convolution."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = conv(images)
    return output, *torch.autograd.grad(output.float().square().sum(), [images, conv.weight])


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("batch", [1, 7, 8])
def test_gradients_are_those_of_torch(kernel, stride, batch, splits):
    """And no less accurate in bfloat16; there are as many parts as threads, or as images."""
    torch.manual_seed(0)
    theirs = nn.Conv2d(16, 32, kernel, stride, kernel // 2, bias=False)
    ours = Conv2d(16, 32, kernel, stride, kernel // 2, bias=False)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(batch, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    exact = gradients(theirs, images, torch.float32)
    for mine, other, reference in zip(gradients(ours, images), gradients(theirs, images), exact, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        error, usual = ((value.float() - reference).norm() for value in (mine, other))
        assert error <= 1.2 * usual
        assert usual <= 0.02 * reference.norm()
    assert len(splits) == min(2, batch)


def test_gradients_repeat_and_leave_the_number_of_threads(splits):
    torch.manual_seed(0)
    conv, images = Conv2d(8, 8, 3, bias=False), torch.randn(6, 8, 9, 9)
    first, second = gradients(conv, images), gradients(conv, images)
    assert all(map(torch.equal, first, second))
    assert torch.get_num_threads() == 2
    assert len(splits) == 4


def test_frozen_weights_need_no_gradient(splits):
    conv = Conv2d(4, 4, 3, bias=False).requires_grad_(False)
    images = torch.randn(2, 4, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        conv(images).sum().backward()
    assert images.grad.shape == images.shape
    assert not splits


@pytest.mark.parametrize("case", ["float32", "one thread", "bias", "groups", "no gradient"])
def test_others_are_torch_s_own(case, splits):
    conv = Conv2d(4, 4, 3, bias=case == "bias", groups=2 if case == "groups" else 1)
    if case == "one thread":
        torch.set_num_threads(1)
    with (
        torch.set_grad_enabled(case != "no gradient"),
        torch.autocast("cpu", torch.bfloat16, enabled=case != "float32"),
    ):
        output = conv(torch.randn(2, 4, 5, 5))
    if case != "no gradient":
        output.sum().backward()
    assert not splits


@pytest.mark.parametrize("stride", [2, 3])
def test_gradient_of_weights_beside_an_image_of_one_pixel_is_zero(stride):
    """Also in memory that held something else; oneDNN alone leaves that there."""
    torch.manual_seed(0)
    conv = Conv2d(192, 96, 3, stride, 1, bias=False)
    images = torch.randn(64, 192, 1, 1)
    for _ in range(10):
        torch.full((4 * conv.weight.numel(),), torch.nan)
        output, _, of_weight = gradients(conv, images)
        assert output.shape == (64, 96, 1, 1)
        middle = of_weight[:, :, 1, 1].clone()
        of_weight[:, :, 1, 1] = 0
        assert middle.abs().sum() > 0
        assert torch.equal(of_weight, torch.zeros_like(of_weight))


def test_encoders_use_them(splits):
    encoder = make_encoder("resnet10", 4)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(4, 3, 8, 8)).sum().backward()
    assert len(splits) == 2 * sum(isinstance(module, nn.Conv2d) for module in encoder.modules())
