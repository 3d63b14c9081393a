"""Scores of an encoder whose classes are known to be separable."""

import pytest
import torch
from torch import nn

import image.scoring
from core.training.seeding import epoch_generator
from image.config import ImageConfig
from image.data import ImageDataset, Images
from image.encoder import SimCLR
from image.scoring import Scorer
from image.views import Normalise

CONFIG = {"beta": 1.0, "tau_plus": 0.1, "view_size": 16, "precision": "float32"}


class ChannelMeans(nn.Module):
    """The mean of each channel, many times over, so that a probe needs few steps."""

    dim = 384

    def forward(self, images):
        return images.mean(dim=(2, 3)).repeat(1, 128)


def colours() -> ImageDataset:
    """20 red, then 20 green, then 20 blue images, and 2 test images of each."""
    parts = [Images(*coloured(torch.arange(3).repeat_interleave(count))) for count in (20, 2)]
    return ImageDataset("colours", parts[0], *parts, ("red", "green", "blue"))


def coloured(labels):
    images = 200 * nn.functional.one_hot(labels, 3)[:, :, None, None].expand(-1, -1, 16, 16)
    return images.byte(), labels


@pytest.mark.parametrize("protocol", ["frozen", "paper"])
def test_probe_learns_the_label_of_each_image(monkeypatch, protocol):
    """In shuffled chunks of 16; the paper's protocol has views that keep the colour."""
    monkeypatch.setattr(image.scoring, "CHUNK", 16)
    torch.manual_seed(0)
    scorer = Scorer(SimCLR(ChannelMeans()), ImageConfig(**CONFIG), colours())
    scorer.views.grey_probability, scorer.views.jitter_strength = 0.0, (0.4, 0.4, 0.4, 0.0)
    scores = scorer.evaluate(protocol, epochs=20)
    assert (scores["linear_accuracy"], scores["knn_accuracy"]) == (1, 1)


def test_views_show_at_least_the_share_of_the_image_that_crop_scale_says():
    """A view of the whole image is the image, or its mirror image, once all else is off."""
    pixels = torch.randint(0, 256, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    dataset = ImageDataset.unlabelled("noise", pixels, None)
    normalised = Normalise()(pixels)
    whole = {}
    for scale in (0.3, 1.0):
        views = Scorer(SimCLR(ChannelMeans()), ImageConfig(crop_scale=scale, **CONFIG), dataset).views
        views.jitter_probability = views.grey_probability = views.blur_probability = 0.0
        view = views(pixels, epoch_generator(0, 1, torch.device("cpu")))
        distances = torch.stack(
            [(view - wanted).abs().amax((1, 2, 3)) for wanted in (normalised, normalised.flip(3))]
        )
        whole[scale] = (distances.amin(0) < 1e-4).sum().item()
    assert whole[1.0] == 32
    assert whole[0.3] < 16
