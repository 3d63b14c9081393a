"""ResNets with the stem for small images, and SimCLR's projection head.

Shapes: B batch · H, W height and width · D representation · P projection.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

ARCHITECTURES = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}


def make_encoder(arch: str, width: int = 64) -> ResNet:
    """torchvision's ResNet with a 3x3 first convolution and no max-pool (Chen et al., ICML 2020, B.9).

    ``width`` is that of the first stage; 64 is the architecture's own. The encoder maps [B, 3, H, W] to
    [B, D]; ``encoder.dim`` is D.
    """
    block, layers = ARCHITECTURES[arch]
    encoder = ResNet(block, layers)
    encoder.dim = 8 * width * block.expansion
    encoder.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
    encoder.bn1 = nn.BatchNorm2d(width)
    encoder.maxpool = nn.Identity()
    encoder.fc = nn.Identity()
    if width != 64:
        encoder.inplanes = width
        for stage, count in enumerate(layers):
            made = encoder._make_layer(block, width * 2**stage, count, stride=1 if stage == 0 else 2)
            setattr(encoder, f"layer{stage + 1}", made)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return encoder.to(memory_format=torch.channels_last)


class SimCLR(nn.Module):
    """An encoder and its projection head: Linear, BN, ReLU, Linear, to 128 numbers of unit norm."""

    def __init__(self, encoder: ResNet, hidden: int = 512, projection: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.Linear(encoder.dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, projection),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return representations and unit-norm float32 projections: [B, 3, H, W] -> [B, D], [B, P]."""
        representation = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return representation, F.normalize(self.head(representation).float(), dim=1)
