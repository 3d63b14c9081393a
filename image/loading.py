"""The encoder of a finished run, to be used anywhere: ``image.load_encoder(run)``.

Shapes: B batch · H, W height and width · S size · D representation.
"""

import os
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from core.training.run_folder import load_encoder_state
from core.training.settings import load_config
from image.config import TIMM, ImageConfig
from image.data import FOLDER_IMAGE_SIZE, resize
from image.decoding import tags_of, to_square
from image.encoder import SimCLR, make_model
from image.published import SOURCES
from image.shapes import SIZE as SHAPES_SIZE
from image.views import Normalise

IMAGE_SIZES = {
    **{"shapes": SHAPES_SIZE, "digits": 16},
    **{name: source.image_size for name, source in SOURCES.items()},
}

# What a bicubic filter makes of [0, 1] lies between these; images in [-1, 1] do not.
MIN_FLOAT, MAX_FLOAT = -0.5, 1.5


class Transform(nn.Module):
    """From an image to the encoder's input, as evaluation sees it; it has no state.

    Takes a PIL image, or a tensor [3, H, W] or [B, 3, H, W], uint8 or float in [0, 1]. The image is resized
    at the short side, cropped in the centre and normalised: float32 [3, S, S] or [B, 3, S, S], on the device
    of this module. Raises ValueError for a tensor of another shape, type or scale.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.normalise = Normalise()

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Image.Image):
            square = to_square(ImageOps.exif_transpose(image), self.size, tags_of(image))
            image = torch.from_numpy(square.copy()).permute(2, 0, 1)
        if not isinstance(image, Tensor):
            raise ValueError(
                f"`image` is a {type(image).__name__}; it must be a tensor or an image of Pillow"
            )
        if image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise ValueError(f"`image` has shape {list(image.shape)}; it must be [3, H, W] or [B, 3, H, W]")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise ValueError(f"`image` is {image.dtype}; it must be uint8, or float with values in [0, 1]")
        if image.is_floating_point():
            image = clamped("image", image).float()
        batch = _square(image if image.ndim == 4 else image.unsqueeze(0), self.size)
        normalised = self.normalise(batch.to(self.normalise.mean.device))
        return normalised if image.ndim == 4 else normalised.squeeze(0)


def clamped(argument: str, images: Tensor) -> Tensor:
    """Float images in [0, 1]: rounding and sharp filters leave it a little.

    Raises ValueError, which names the ``argument``, for NaN and for values of another scale.
    """
    if images.numel():
        low, high = torch.stack(images.aminmax()).tolist()
        if not MIN_FLOAT <= low <= high <= MAX_FLOAT:
            raise ValueError(f"`{argument}` has values from {low:g} to {high:g}; floats must be in [0, 1]")
    return images.clamp(0, 1)


def _square(images: Tensor, size: int) -> Tensor:
    """Images resized at the short side and cropped in the centre: [B, 3, H, W] -> [B, 3, S, S]."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side]
    if images.dtype == torch.uint8:
        return resize(images, size)
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True) if side != size else images


def load_encoder(run: str | os.PathLike[str]) -> nn.Module:
    """The trained encoder of a finished run, on the CPU, in eval mode: [B, 3, S, S] -> [B, D].

    The state dict of a ResNet has torchvision's names. ``encoder.dim`` is D, and ``encoder.transform`` makes
    its input of a PIL image or a tensor (see ``Transform``), of the size that the run's evaluation used.

    Raises:
        InputError: ``run`` is not the folder of a finished image run, or its weights are damaged.
    """
    folder = Path(run)
    config = load_config(folder, ImageConfig)
    encoder = load_model(folder, config).encoder
    encoder.transform = Transform(evaluation_size(config))
    return encoder.eval()


def load_model(run: Path, config: ImageConfig) -> SimCLR:
    """Encoder and projection head of a finished run with this config; raises InputError as above."""
    # The settings may ask for more memory than the weights need. timm's models have buffers without weights.
    with nullcontext() if config.arch.startswith(TIMM) else torch.device("meta"):
        model = make_model(config.arch, config.width, config.norm, config.stem, config.view_size)
    load_encoder_state(model, run)
    model.encoder.to(memory_format=torch.channels_last)
    return model


def evaluation_size(config: ImageConfig) -> int:
    """S: the size of the images that a run evaluates on its own dataset."""
    return config.image_size or IMAGE_SIZES.get(config.dataset, FOLDER_IMAGE_SIZE)
