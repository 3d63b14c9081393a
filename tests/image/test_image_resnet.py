"""Our ResNets equal torchvision's bit for bit: names, initial weights, outputs and gradients."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import resnet as theirs

from core.training.seeding import seeded
from image import resnet as ours
from image.encoder import ARCHITECTURES, group_norm, make_encoder

DEPTHS = {
    "resnet18": (ours.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (ours.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (ours.Bottleneck, [3, 4, 6, 3]),
}
BLOCKS = {ours.BasicBlock: theirs.BasicBlock, ours.Bottleneck: theirs.Bottleneck}


def assert_same(mine: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> None:
    """The same names in the same order, and tensors equal bit for bit."""
    assert list(mine) == list(reference)
    different = [name for name, tensor in mine.items() if not torch.equal(tensor, reference[name])]
    assert not different


@pytest.mark.parametrize("arch", DEPTHS)
def test_initial_weights_are_torchvision_s(arch):
    with seeded(3):
        mine, next_draw = ours.ResNet(*DEPTHS[arch]), torch.rand(())
    with seeded(3):
        reference, their_next_draw = getattr(torchvision.models, arch)(), torch.rand(())
    assert_same(mine.state_dict(), reference.state_dict())
    assert_same(dict(mine.named_parameters()), dict(reference.named_parameters()))  # the optimizer's order
    assert next_draw == their_next_draw


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
def test_outputs_and_gradients_are_torchvision_s(block, is_training):
    layers = [2, 1, 1, 1]  # a block with a shortcut of its own, and one without
    mine, reference = ours.ResNet(block, layers), theirs.ResNet(BLOCKS[block], layers)
    reference.load_state_dict(mine.state_dict())
    images = torch.randn(2, 3, 40, 40)
    outputs = []
    for model in (mine, reference):
        outputs.append(model.train(is_training)(images))
        outputs[-1].square().mean().backward()
    assert torch.equal(*outputs)
    gradients = [{name: x.grad for name, x in model.named_parameters()} for model in (mine, reference)]
    assert_same(*gradients)
    assert_same(mine.state_dict(), reference.state_dict())  # with the statistics of batch norm


def encoder_of_torchvision(arch: str, width: int, norm: str) -> nn.Module:
    """``make_encoder`` with torchvision's ResNet."""
    block, layers = ARCHITECTURES[arch]
    norm_layer = nn.BatchNorm2d if norm == "batch" else group_norm
    encoder = theirs.ResNet(BLOCKS[block], layers, norm_layer=norm_layer)
    encoder.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
    encoder.bn1 = norm_layer(width)
    encoder.maxpool = encoder.fc = nn.Identity()
    if width != 64:
        encoder.inplanes = width
        for stage, count in enumerate(layers):
            layer = encoder._make_layer(BLOCKS[block], width * 2**stage, count, stride=1 if stage == 0 else 2)
            setattr(encoder, f"layer{stage + 1}", layer)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("arch", "width", "norm"),
    [
        ("resnet10", 16, "batch"),
        ("resnet18", 64, "batch"),
        ("resnet34", 8, "group"),
        ("resnet50", 8, "batch"),
    ],
)
def test_encoder_is_made_as_from_torchvision_s(arch, width, norm):
    with seeded(5):
        mine = make_encoder(arch, width, norm)
    with seeded(5):
        reference = encoder_of_torchvision(arch, width, norm)
    assert_same(mine.state_dict(), reference.state_dict())
    images = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert torch.equal(mine(images), reference(images))
