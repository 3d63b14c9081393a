"""SimCLR's augmentation of a whole batch at once, on its device, with random parameters for each image.

Every operation is a function of explicit parameters, one for each image, and equals torchvision's with these.
Nothing synchronises with the device. Random numbers come from the generator that is passed in.

Shapes: B batch · H, W height and width of an image · S size of a view.
"""

import math

import torch
from torch import Tensor, nn

from image.config import MAX_SMALL_VIEW

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2023, 0.1994, 0.2010)
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue, those of torchvision
CROP_TRIES = 10


class Views(nn.Module):
    """One random view of each image: resized crop, flip, colour jitter, greyscale, blur, normalisation.

    The augmentation of the image code of Robinson et al. (2021). Each image has its own order of brightness,
    contrast, saturation and hue, as in torchvision's ColorJitter; in a batch of a multiple of four it is
    uniform over all 24. Views above 64 pixels are blurred by a kernel of a tenth of their size (Chen et al.,
    ICML 2020, A), others by one of 3 pixels.

    Args:
        size: S.
        scale: Range of the crop's area as a fraction of the image's.
        ratio: Range of the crop's width divided by its height.
        jitter: Strengths of brightness, contrast, saturation and hue.
        blur_sigma: Range of the Gaussian's standard deviation, in pixels.
        mean, std: Of the channels, for the normalisation.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        mean: tuple[float, float, float] = CIFAR10_MEAN,
        std: tuple[float, float, float] = CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.size, self.scale, self.ratio = size, scale, ratio
        self.jitter_strength, self.jitter_probability = jitter, jitter_probability
        self.grey_probability = grey_probability
        self.blur_probability, self.blur_sigma = blur_probability, blur_sigma
        self.blur_kernel = 3 if size <= MAX_SMALL_VIEW else 2 * (size // 20) + 1
        self.normalise = Normalise(size, mean, std)

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, 3, S, S], normalised."""
        count, height, width = len(images), *images.shape[2:]

        def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
            draws = torch.rand(*shape, device=images.device, generator=generator)
            return low + (high - low) * draws

        # In a random order of the images, quarter k has hue as the k-th operation of its jitter.
        order = uniform(count).argsort()
        with torch.autocast(images.device.type, enabled=False):
            x = images[order].float() / 255
            boxes = crop_boxes(uniform(4, count, CROP_TRIES), height, width, self.scale, self.ratio)
            x = resized_crop(x, boxes, uniform(count) < 0.5, self.size)

            jittered = uniform(count) < self.jitter_probability
            *strengths, hue = self.jitter_strength
            factors = torch.stack([uniform(count, low=1 - s, high=1 + s) for s in strengths])
            factors = torch.where(jittered, factors, 1.0)
            shift = torch.where(jittered, uniform(count, low=-hue, high=hue), 0.0)
            x = colour_jitter(x, factors, shift, uniform(3, count).argsort(dim=0))

            x = torch.where(per_sample(uniform(count) < self.grey_probability), grey(x), x)
            sigma = uniform(count, low=self.blur_sigma[0], high=self.blur_sigma[1])
            sigma = torch.where(uniform(count) < self.blur_probability, sigma, 0.0)
            x = blur(x, sigma) if self.blur_kernel == 3 else wide_blur(x, sigma, self.blur_kernel)
            return self.normalise(x)[order.argsort()]


class Normalise(nn.Module):
    """The whole image, resized to ``size`` if that is given, and normalised: the input of evaluation."""

    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        size: int | None = None,
        mean: tuple[float, float, float] = CIFAR10_MEAN,
        std: tuple[float, float, float] = CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1], [B, 3, H, W] -> float32 [B, 3, S, S], or H x W without a size."""
        x = images if images.is_floating_point() else images.float() / 255
        if self.size is not None and x.shape[2:] != (self.size, self.size):
            x = nn.functional.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return (x - self.mean) / self.std


def crop_boxes(
    draws: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes as torchvision's RandomResizedCrop draws them: uniform [4, B, tries] -> [4, B].

    Rows of the result: top, left, height and width in pixels. An image's box is the first try that fits into
    it; if none does, the largest centred box with an allowed ratio.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[1])
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    tops = (draws[2] * (height - heights + 1)).floor()
    lefts = (draws[3] * (width - widths + 1)).floor()
    first = fits.int().argmax(dim=1, keepdim=True)
    boxes = torch.stack([tops, lefts, heights, widths]).gather(2, first.expand(4, -1, 1)).squeeze(2)

    max_width = min(width, round(height * ratio[1]))
    max_height = min(height, round(width / ratio[0]))
    largest = ((height - max_height) // 2, (width - max_width) // 2, max_height, max_width)
    fallback = torch.stack([torch.full_like(boxes[0], value) for value in largest])
    return torch.where(fits.any(dim=1), boxes, fallback)


def resized_crop(images: Tensor, boxes: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Crop to boxes (top, left, height, width), resize bilinearly, flip: [B, 3, H, W], [4, B], [B] -> S x S.

    Crops that shrink are antialiased, as by torchvision and Pillow. Resizing is linear and separable: each
    image has a small matrix for columns and one for rows.
    """
    top, left, height, width = boxes
    down = interpolation(top, height, size, images.shape[2])
    across = interpolation(left, width, size, images.shape[3])
    across = torch.where(flipped.view(-1, 1, 1), across.flip(1), across)
    return down.unsqueeze(1) @ images @ across.mT.unsqueeze(1)


def interpolation(start: Tensor, length: Tensor, size: int, source: int) -> Tensor:
    """Weights of ``source`` pixels in ``size`` points of a crop: [B], [B] -> [B, size, source].

    A triangle as wide as two points, at least as two pixels, on the pixels of the crop alone.
    """
    step = (length / size).unsqueeze(1)  # pixels from one point to the next
    points = (torch.arange(size, device=start.device) + 0.5) * step  # of the crop
    pixels = torch.arange(source, device=start.device) + 0.5 - start.unsqueeze(1)
    distance = (points.unsqueeze(2) - pixels.unsqueeze(1)).abs()
    is_inside = (pixels > 0) & (pixels < length.unsqueeze(1))
    weights = (1 - distance / step.clamp(min=1).unsqueeze(2)).clamp(min=0) * is_inside.unsqueeze(1)
    return weights / weights.sum(dim=2, keepdim=True)


def colour_jitter(images: Tensor, factors: Tensor, hue: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, each image in its own order: [B, 3, H, W] -> the same.

    Args:
        factors: [3, B], of brightness, contrast and saturation; 1 is the identity.
        hue: [B], in turns; 0 is the identity.
        order: [3, B], which of the three factors comes first, second and third. Hue comes before all three
            in the first quarter of the batch, after the first one in the second quarter, and so on.
    """
    quarters = [len(images) * k // 4 for k in range(5)]

    def shift_quarter(x: Tensor, k: int) -> Tensor:
        part = slice(quarters[k], quarters[k + 1])
        return torch.cat([x[: part.start], shift_hue(x[part], hue[part]), x[part.stop :]])

    x = images
    for position in range(3):
        x = shift_quarter(x, position)
        which = order[position]
        # All three mix the image with black, with its mean grey or with its grey version, and clamp.
        greys = grey(x)
        mean = greys.mean(dim=(1, 2, 3), keepdim=True)
        towards = torch.where(per_sample(which == 1), mean, torch.where(per_sample(which == 2), greys, 0.0))
        factor = per_sample(factors.gather(0, which.unsqueeze(0)).squeeze(0))
        x = (factor * x + (1 - factor) * towards).clamp(0, 1)
    return shift_quarter(x, 3)


def grey(images: Tensor) -> Tensor:
    """The luminance: [B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = images.unbind(dim=1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV space: images [B, 3, H, W] in [0, 1], turns [B] -> images.

    With V the largest channel and C = V S the largest minus the smallest, a channel of the result is
    V - C max(0, min(k, 4 - k, 1)), k = (n + 6 hue) mod 6, n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = images.unbind(dim=1)
    value, channel = images.max(dim=1)
    chroma = value - images.amin(dim=1)
    scale = 1 / torch.where(chroma == 0, 1.0, chroma)
    sector = torch.where(
        channel == 0,
        (green - blue) * scale,
        torch.where(channel == 1, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    sector = sector + 6 * turns.view(-1, 1, 1)
    k = torch.stack([sector + n for n in (5, 3, 1)], dim=1).remainder(6)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of kernel size 3, reflected at the border; sigma 0 is the identity: [B, 3, H, W], [B]."""
    side = torch.exp(-0.5 / sigma.clamp(min=1e-3) ** 2)
    side = per_sample(side / (1 + 2 * side))
    for dim in (2, 3):
        last = images.shape[dim] - 1
        before = torch.cat([images.narrow(dim, 1, 1), images.narrow(dim, 0, last)], dim)
        after = torch.cat([images.narrow(dim, 1, last), images.narrow(dim, last - 1, 1)], dim)
        images = (1 - 2 * side) * images + side * (before + after)
    return images


def wide_blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """``blur`` with a kernel of any odd size, less than twice the image's; each image has small matrices."""
    down, across = (blur_matrix(sigma, kernel, length) for length in images.shape[2:])
    return down.unsqueeze(1) @ images @ across.mT.unsqueeze(1)


def blur_matrix(sigma: Tensor, kernel: int, length: int) -> Tensor:
    """The blur of a row of L pixels, reflected at its ends, as a matrix: [B] -> [B, L, L]."""
    sigma = sigma.clamp(min=1e-3).view(-1, 1, 1)
    pixels = torch.arange(length, device=sigma.device)
    here, there = pixels.unsqueeze(1), pixels.unsqueeze(0)

    def weights(distance: Tensor) -> Tensor:
        return torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= kernel // 2)

    # A pixel, its mirror image at the first pixel, and the one at the last; these two are not mirrored.
    last = length - 1
    matrix = weights(here - there)
    matrix = matrix + weights(here + there) * (there > 0) + weights(2 * last - here - there) * (there < last)
    return matrix / matrix.sum(2, keepdim=True)


def per_sample(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1], to broadcast over images."""
    return values.view(-1, 1, 1, 1)
