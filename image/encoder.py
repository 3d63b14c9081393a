"""ResNets with a stem for small images or with ImageNet's, and SimCLR's projection head.

Shapes: B batch · H, W height and width · D representation · P projection.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.config import TIMM, Norm, Stem
from image.resnet import BasicBlock, Bottleneck, ResNet, conv, init_convolutions, make_stages
from image.timm_models import make_timm_encoder

ARCHITECTURES = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}
GROUP = 16  # channels normalised together (Wu and He, ECCV 2018, table 3)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 16 channels a group, more if 16 does not divide them, all if there are fewer."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels)


def make_encoder(
    arch: str, width: int = 64, norm: Norm = "batch", stem: Stem = "small", view_size: int = 32
) -> nn.Module:
    """The encoder of an architecture, which maps [B, 3, H, W] to [B, D]; ``encoder.dim`` is D."""
    if arch.startswith(TIMM):
        encoder = make_timm_encoder(arch, view_size)
    else:
        encoder = make_resnet(arch, width, norm, stem)
    return encoder.to(memory_format=torch.channels_last)


def make_resnet(arch: str, width: int, norm: Norm, stem: Stem) -> ResNet:
    """A ResNet with a 3x3 first convolution and no max-pool (Chen et al., ICML 2020, B.9).

    ``stem="imagenet"`` keeps ImageNet's 7x7 convolution of stride 2 and its max-pool. ``width`` is the number
    of channels of the first stage, 64 in ImageNet's.
    """
    block, layers = ARCHITECTURES[arch]
    norm_layer = nn.BatchNorm2d if norm == "batch" else group_norm
    encoder = ResNet(block, layers, norm_layer)
    encoder.dim = 8 * width * block.expansion
    if stem == "small":
        encoder.conv1 = conv(3, width, 3)
        encoder.maxpool = nn.Identity()
    elif width != 64:
        encoder.conv1 = conv(3, width, 7, stride=2)
    encoder.bn1 = norm_layer(width)
    encoder.fc = nn.Identity()
    if width != 64:
        stages = make_stages(block, layers, width, norm_layer)
        encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4 = stages
    init_convolutions(encoder)
    return encoder


class SimCLR(nn.Module):
    """An encoder and its projection head (Linear, norm, ReLU, Linear), whose output has unit norm."""

    def __init__(
        self, encoder: nn.Module, hidden: int = 512, projection: int = 128, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.dim, hidden, bias=False),
            nn.BatchNorm1d(hidden) if norm == "batch" else group_norm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, projection),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return representations and unit-norm float32 projections: [B, 3, H, W] -> [B, D], [B, P]."""
        representation = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return representation, F.normalize(self.head(representation).float(), dim=1)


def make_model(
    arch: str, width: int = 64, norm: Norm = "batch", stem: Stem = "small", view_size: int = 32
) -> SimCLR:
    """SimCLR with an encoder of that architecture; encoder and head have the same kind of norm."""
    return SimCLR(make_encoder(arch, width, norm, stem, view_size), norm=norm)


class TwoViews(nn.Module):
    """SimCLR's projections of two views in one call, as DistributedDataParallel needs.

    Batch norm's statistics are those of both views together.
    """

    def __init__(self, model: SimCLR) -> None:
        super().__init__()
        self.model = model

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] twice -> [B, P] twice."""
        _, projections = self.model(torch.cat([view1, view2]))
        return projections.chunk(2)
