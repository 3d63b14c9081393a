"""Image training by two processes: together they take the batches, the views and the steps of one."""

from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from core.training.seeding import epoch_order
from image.batches import ViewBatches
from image.config import ImageConfig
from image.data import Images
from image.train import main as train_main
from image.views import Views
from tests.image.commands import FAST
from tests.processes import in_processes
from tests.runs import losses_of, result_of

pytestmark = pytest.mark.distributed


def normalised(views, images, generator):
    """Views without any random operation."""
    return views.normalise(images)


def train_without_draws(tiny_folder, folder, *flags):
    """The views of a pair differ as they are of two images of a class; draws would depend on the process."""
    flags = [*FAST, "--epochs", "1", "--norm", "group", "--optimizer", "sgd", "--positives", "label", *flags]
    with mock.patch.object(Views, "forward", normalised):
        train_main([*flags, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)])


@pytest.mark.parametrize("chunk", [(), ("--cache-chunk", "3")])
def test_two_processes_equal_one(tiny_folder, tmp_path, chunk):
    one, two = tmp_path / "one", tmp_path / "two"
    train_without_draws(tiny_folder, one)
    in_processes(2, train_without_draws, tiny_folder, two, *chunk)
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    weights, expected = (load_file(folder / "encoder.safetensors") for folder in (two, one))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    assert result_of(two)["environment"]["processes"] == 2


def batches_of(images, epoch):
    config = ImageConfig(beta=1.0, tau_plus=0.1, batch_size=8, view_size=8)
    train = Images(images, torch.zeros(len(images), dtype=torch.long))
    return [[view.numpy() for view in pair] for pair in ViewBatches(train, Views(8), config).epoch(epoch)]


def test_two_processes_divide_every_batch_of_the_epoch():
    """An image has its number as the value of its pixels, and a view is the image itself."""
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 3, 8, 8)
    batches = zip(*in_processes(2, unchanged_batches, images), strict=True)
    batches = [torch.cat([torch.from_numpy(view1[:, 0, 0, 0]) for view1, _ in parts]) for parts in batches]
    assert torch.equal(torch.stack(batches), epoch_order(20, seed=0, epoch=2)[:16].view(2, 8))


def unchanged_batches(images):
    with mock.patch.object(Views, "forward", lambda views, images, generator: images):
        return batches_of(images, epoch=2)


def test_two_processes_draw_different_views_of_an_image():
    image = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    ranks = in_processes(2, batches_of, image.expand(16, -1, -1, -1), 1)
    views = torch.cat([torch.from_numpy(view) for batches in ranks for pair in batches for view in pair])
    assert views.shape == (32, 3, 8, 8)
    distances = torch.cdist(views.flatten(1), views.flatten(1)) + 1e9 * torch.eye(32)
    assert distances.min() > 0.01
