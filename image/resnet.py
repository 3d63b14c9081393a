"""ResNets with torchvision's state dict and, from the same seed, its initial weights.

They are built here because any import from torchvision takes longer than the import of torch.

Shapes: B batch · H, W height and width · C classes.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]  # takes the number of channels

CLASSES = 1000  # of ImageNet


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He, Zhang, Ren and Sun, CVPR 2016, figure 5, left)."""

    expansion = 1  # channels of the block's output for each of its convolutions

    def __init__(
        self, inputs: int, channels: int, stride: int, downsample: nn.Module | None, norm: NormLayer
    ) -> None:
        super().__init__()
        self.conv1 = conv(inputs, channels, 3, stride)
        self.bn1 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = norm(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (figure 5, right), with the stride in the 3x3 one."""

    expansion = 4

    def __init__(
        self, inputs: int, channels: int, stride: int, downsample: nn.Module | None, norm: NormLayer
    ) -> None:
        super().__init__()
        self.conv1 = conv(inputs, channels, 1)
        self.bn1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = norm(channels)
        self.conv3 = conv(channels, channels * self.expansion, 1)
        self.bn3 = norm(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """ResNet for ImageNet: [B, 3, H, W] -> [B, C]; ``dim`` is the number of features before the classifier.

    Args:
        layers: Number of blocks in each of the four stages.
        norm: Makes the normalisation after each convolution.
    """

    def __init__(self, block: Block, layers: Sequence[int], norm: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = make_stages(block, layers, 64, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dim = 512 * block.expansion
        self.fc = nn.Linear(self.dim, CLASSES)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def make_stages(block: Block, layers: Sequence[int], width: int, norm: NormLayer) -> Iterator[nn.Sequential]:
    """The four stages; each doubles the channels, from ``width``, and all but the first halve H and W."""
    inputs = width
    for stage, count in enumerate(layers):
        channels = width * 2**stage
        outputs = channels * block.expansion
        stride = 1 if stage == 0 else 2
        blocks = []
        for _ in range(count):
            downsample = None
            if stride != 1 or inputs != outputs:
                downsample = nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))
            blocks.append(block(inputs, channels, stride, downsample, norm))
            inputs, stride = outputs, 1
        yield nn.Sequential(*blocks)


def init_convolutions(model: nn.Module) -> None:
    """Draw the weights of all convolutions (He, Zhang, Ren and Sun, ICCV 2015, equation 14)."""
    for module in model.modules():
        # A tensor on the meta device has no values, and its normal_ imports torch._dynamo, slow as torch.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
