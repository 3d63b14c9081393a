"""Operations equal torchvision's for fixed parameters; random parameters have its distributions."""

import colorsys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from scipy.stats import ks_2samp, kstest
from torch.nn.functional import interpolate
from torchvision.transforms import ColorJitter, RandomResizedCrop

from image.views import (
    Normalise,
    Views,
    blur,
    colour_jitter,
    crop_boxes,
    grey,
    resized_crop,
    shift_hue,
    wide_blur,
)


def images(count=6, height=20, width=16, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def uint8(count=6, size=32, seed=0):
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def close(actual, wanted, atol=1e-5):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_resized_crop(size):
    x = images()
    boxes = torch.tensor(
        [(0, 0, 20, 16), (3, 2, 9, 12), (19, 15, 1, 1), (5, 5, 15, 3), (0, 8, 2, 8), (2, 0, 17, 16)]
    )
    flipped = torch.tensor([False, True, False, True, True, False])
    result = resized_crop(x, boxes.T.float(), flipped, size)
    for sample, box, flip, actual in zip(x, boxes.tolist(), flipped, result, strict=True):
        wanted = TF.resized_crop(sample, *box, [size, size], antialias=True)
        close(actual, TF.hflip(wanted) if flip else wanted)


def test_grey():
    close(grey(images()), TF.rgb_to_grayscale(images()))


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.03, 0.5])
def test_shift_hue(turns):
    x = images()
    x[0] = 0.5  # grey has no hue
    x[1, 0] = x[1, 1]  # two equal channels
    close(shift_hue(x, torch.full((6,), turns)), TF.adjust_hue(x, turns))


def test_blur():
    x = images()
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0, 0.0])
    result = blur(x, sigma)
    for sample, s, actual in zip(x[:5], sigma.tolist(), result, strict=False):
        close(actual, TF.gaussian_blur(sample, [3, 3], [s, s]))
    assert torch.equal(result[5], x[5])


@pytest.mark.parametrize("kernel", [3, 7, 23])
def test_blur_of_any_kernel(kernel):
    x = images(height=40, width=30)
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0, 0.0])
    result = wide_blur(x, sigma, kernel)
    for sample, s, actual in zip(x[:5], sigma.tolist(), result, strict=False):
        close(actual, TF.gaussian_blur(sample, [kernel, kernel], [s, s]))
    assert torch.equal(result[5], x[5])


def test_kernel_of_the_blur_is_a_tenth_of_a_large_view():
    kernels = {size: Views(size).blur_kernel for size in (16, 32, 64, 96, 224)}
    assert kernels == {16: 3, 32: 3, 64: 3, 96: 9, 224: 23}
    x = uint8(3, size=100)
    views = Views(100, scale=(1, 1), ratio=(1, 1), jitter_probability=0, grey_probability=0)
    views.blur_probability, views.blur_sigma = 1.0, (2.0, 2.0)
    views.normalise = torch.nn.Identity()
    wanted = TF.gaussian_blur(x / 255, [11, 11], [2.0, 2.0])
    for view, one in zip(views(x, torch.Generator().manual_seed(0)), wanted, strict=True):
        assert min((view - one).abs().max(), (view - TF.hflip(one)).abs().max()) < 1e-5


def test_colour_jitter_in_every_order():
    """24 images; the quarter gives the position of hue, the others have a random order."""
    x = images(count=24)
    generator = torch.Generator().manual_seed(1)
    factors = 0.6 + 0.8 * torch.rand(3, 24, generator=generator)
    hue = 0.2 * torch.rand(24, generator=generator) - 0.1
    order = torch.rand(3, 24, generator=generator).argsort(dim=0)
    result = colour_jitter(x, factors, hue, order)
    operations = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation]
    seen = set()
    for i in range(24):
        steps = [(operations[k], factors[k, i].item()) for k in order[:, i].tolist()]
        steps.insert(i // 6, (TF.adjust_hue, hue[i].item()))
        seen.add(tuple(operation.__name__ for operation, _ in steps))
        wanted = x[i]
        for operation, factor in steps:
            wanted = operation(wanted, factor)
        close(result[i], wanted)
    assert len(seen) > 8


def test_colour_jitter_with_factors_of_one_is_the_identity():
    x = images(count=8)
    order = torch.rand(3, 8).argsort(dim=0)
    close(colour_jitter(x, torch.ones(3, 8), torch.zeros(8), order), x, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 96), (20, 60)])
def test_crop_boxes_are_distributed_as_torchvision_s(height, width):
    """Areas, ratios and positions of 3,000 boxes, by the Kolmogorov-Smirnov test."""
    torch.manual_seed(0)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    canvas = torch.empty(3, height, width)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(canvas, list(scale), list(ratio)) for _ in range(3000)]
    ).T
    draws = torch.rand(4, 3000, 10, generator=torch.Generator().manual_seed(1))
    ours = crop_boxes(draws, height, width, scale, ratio)
    assert (ours[:2] >= 0).all()
    assert (ours[0] + ours[2] <= height).all()
    assert (ours[1] + ours[3] <= width).all()
    for statistic in (
        lambda box: box[2] * box[3],
        lambda box: box[3] / box[2],
        lambda box: box[0],
        lambda box: box[1],
    ):
        assert ks_2samp(statistic(ours.float()), statistic(theirs.float())).pvalue > 1e-3


def test_crop_falls_back_to_the_largest_centred_box():
    """If all ten tries fail, as for a sliver of an image; the same box as torchvision's."""
    draws = torch.ones(4, 2, 10) * 0.999
    ours = crop_boxes(draws, 4, 100, (0.9, 1.0), (3 / 4, 4 / 3))
    torch.manual_seed(0)
    theirs = RandomResizedCrop.get_params(torch.empty(3, 4, 100), [0.9, 1.0], [3 / 4, 4 / 3])
    assert ours[:, 0].tolist() == [float(value) for value in theirs]


def only(**changes):
    """Views without any random operation except the flip and those in ``changes``."""
    off = {
        "scale": (1.0, 1.0),
        "ratio": (1.0, 1.0),
        "jitter_probability": 0.0,
        "grey_probability": 0.0,
        "blur_probability": 0.0,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    return Views(32, **off | changes)


def test_flip_grey_blur_and_jitter_have_their_probabilities():
    """Among 2,000 images, within four standard errors."""
    x = uint8(1).expand(2000, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    plain = x[0].float() / 255
    view = only()(x, generator)
    same = (view - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (view - plain.flip(2)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all()
    for share, probability in (
        (mirrored.float().mean(), 0.5),
        (changed(only(grey_probability=0.2)(x, generator), plain), 0.2),
        (changed(only(blur_probability=0.5, blur_sigma=(1.0, 2.0))(x, generator), plain), 0.5),
        (changed(only(jitter_probability=0.8)(x, generator), plain), 0.8),
    ):
        assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 2000) ** 0.5)


def changed(view, plain):
    unflipped = (view - plain).abs().amax(dim=(1, 2, 3)) > 1e-3
    return (unflipped & ((view - plain.flip(2)).abs().amax(dim=(1, 2, 3)) > 1e-3)).float().mean()


def test_default_settings_are_the_papers():
    """Of the image code of Robinson et al. (2021), and its blur's probability and range from SimCLR's."""
    views = Views(32)
    assert (views.scale, views.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
    assert (views.jitter_strength, views.jitter_probability) == ((0.4, 0.4, 0.4, 0.1), 0.8)
    assert views.grey_probability == 0.2
    assert (views.blur_probability, views.blur_sigma) == (0.5, (0.1, 2.0))


def test_default_views_turn_grey_and_shift_the_hue_as_often_and_as_far_as_the_papers():
    """Images of one colour, which no factor clamps: brightness, contrast and saturation keep its hue."""
    x = torch.tensor([100, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(4000, -1, 8, 8)
    view = Views(8, mean=(0, 0, 0), std=(1, 1, 1))(x, torch.Generator().manual_seed(0))
    colours = view.mean(dim=(2, 3))
    is_grey = colours.amax(1) - colours.amin(1) < 1e-5
    assert is_grey.float().mean() == pytest.approx(0.2, abs=0.025)
    hues = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours[~is_grey].tolist()])
    shifts = (hues + 0.5) % 1 - 0.5  # of red, whose hue is 0
    is_shifted = np.abs(shifts) > 1e-4
    assert is_shifted.mean() == pytest.approx(0.8, abs=0.03)
    assert kstest(shifts[is_shifted], "uniform", args=(-0.1, 0.2)).pvalue > 1e-3


def test_default_views_are_blurred_as_often_and_as_far_as_the_papers():
    """The kernel's two side weights are what a black stripe, one pixel wide, gets of the white ones.

    Nine columns are their own mirror image.
    """
    x = torch.zeros(4000, 3, 9, 9, dtype=torch.uint8)
    x[..., ::2] = 255
    still = {"scale": (1, 1), "ratio": (1, 1), "jitter_probability": 0, "grey_probability": 0}
    view = Views(9, **still, mean=(0, 0, 0), std=(1, 1, 1))(x, torch.Generator().manual_seed(0))
    side = view[:, 0, 4, 3].double().clamp(min=1e-12) / 2
    sigmas = (-0.5 / (side / (1 - 2 * side)).log()).sqrt()
    is_seen = sigmas > 0.5  # smaller ones are lost in rounding
    assert is_seen.double().mean() == pytest.approx(0.5 * 1.5 / 1.9, abs=0.03)
    assert kstest(sigmas[is_seen].numpy(), "uniform", args=(0.5, 1.5)).pvalue > 1e-3


def test_brightness_is_distributed_as_torchvision_s():
    """A grey image shows brightness alone: its factor is uniform in [0.6, 1.4]."""
    x = torch.full((4000, 3, 32, 32), 100, dtype=torch.uint8)
    view = only(jitter_probability=1.0)(x, torch.Generator().manual_seed(0))
    factors = view.mean(dim=(1, 2, 3)) * 255 / 100
    assert kstest(factors.numpy(), "uniform", args=(0.6, 0.8)).pvalue > 1e-3
    torch.manual_seed(0)
    theirs = [ColorJitter.get_params((0.6, 1.4), None, None, None)[1] for _ in range(4000)]
    assert ks_2samp(factors.numpy(), theirs).pvalue > 1e-3


def test_views_depend_on_the_generator_alone():
    x = uint8(16)
    views = Views(32)
    first, again, other = (views(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_copies_of_an_image_get_different_views():
    x = uint8(1).expand(16, -1, -1, -1)
    views = Views(32)(x, torch.Generator().manual_seed(0))
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + 1e9 * torch.eye(16)
    assert distances.min() > 0.1


def test_views_are_in_the_order_of_the_images():
    """The random order that the jitter uses is undone."""
    x = (torch.arange(8, dtype=torch.uint8) * 30).view(8, 1, 1, 1).expand(8, 3, 32, 32)
    view = only()(x, torch.Generator().manual_seed(0))
    close(view, x.float() / 255)


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shape_type_and_range(count, memory_format):
    x = uint8(count, size=40).to(memory_format=memory_format)
    view = Views(24, mean=(0, 0, 0), std=(1, 1, 1))(x, torch.Generator().manual_seed(0))
    assert view.shape == (count, 3, 24, 24)
    assert view.dtype == torch.float32
    assert view.min() >= -1e-6
    assert view.max() <= 1 + 1e-6


def test_views_do_not_depend_on_autocast():
    x = uint8(8)
    views = Views(32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = views(x, torch.Generator().manual_seed(0))
    assert torch.equal(inside, views(x, torch.Generator().manual_seed(0)))


def test_normalise():
    x = uint8(4, size=40)
    wanted = TF.normalize(x.float() / 255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    close(Normalise()(x), wanted)
    assert torch.equal(Normalise(40)(x), Normalise()(x))
    small = interpolate(x.float() / 255, (32, 32), mode="bilinear", antialias=True)
    close(Normalise(32, (0, 0, 0), (1, 1, 1))(x), small)


@pytest.mark.gpu
def test_views_never_synchronise_with_the_device():
    views, x = Views(32).cuda(), uint8(64).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    views(x, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        views(x, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
