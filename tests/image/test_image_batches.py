"""Batches of two views, and whose images are positives and negatives."""

import torch

from core.training.seeding import epoch_order
from image.batches import ViewBatches
from image.config import ImageConfig
from image.data import load_dataset
from image.views import Views


def make_batches(tiny_folder, tmp_path, **settings):
    dataset = load_dataset(f"folder:{tiny_folder}", tmp_path, image_size=16)
    config = ImageConfig(dataset="tiny", beta=1.0, tau_plus=0.1, batch_size=16, view_size=16, **settings)
    return ViewBatches(dataset.train, Views(16), config), dataset


def test_batches_depend_only_on_seed_and_epoch(tiny_folder, tmp_path):
    batches, _ = make_batches(tiny_folder, tmp_path)
    first = list(batches.epoch(1))
    second = list(batches.epoch(2))
    again = list(batches.epoch(1))
    assert len(first) == batches.steps == 3
    for (view1, view2), same, other in zip(first, again, second, strict=True):
        assert view1.shape == view2.shape == (16, 3, 16, 16)
        assert torch.equal(view1, same[0])
        assert torch.equal(view2, same[1])
        assert not torch.equal(view1, view2)
        assert not torch.equal(view1, other[0])
    other_seed, _ = make_batches(tiny_folder, tmp_path, seed=1)
    assert not torch.equal(next(other_seed.epoch(1))[0], first[0][0])


def test_true_positives_are_uniform_over_other_images_of_the_class(tiny_folder, tmp_path):
    batches, dataset = make_batches(tiny_folder, tmp_path, positives="label")
    labels = dataset.train.labels
    counts = torch.zeros(48, 48)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(1, 101):
        order = torch.randperm(48, generator=generator)
        others = batches._others_of_class(order, epoch)
        assert torch.equal(labels[order], labels[others])
        assert (order != others).all()
        counts[order, others] += 1
    # Every other image of the class is drawn, about equally often: 100 / 15 times.
    same_class = counts[(labels[:, None] == labels) & ~torch.eye(48, dtype=torch.bool)]
    assert (same_class > 0).float().mean() > 0.99
    assert same_class.std() < 4
    for view1, view2 in batches.epoch(1):
        assert view1.shape == view2.shape == (16, 3, 16, 16)


def test_true_positive_in_a_class_of_one_image_is_the_image_itself(tiny_folder, tmp_path):
    batches, dataset = make_batches(tiny_folder, tmp_path, positives="label")
    dataset.train.labels[0] = 3
    batches = ViewBatches(dataset.train, Views(16), batches.config)
    order = torch.arange(48)
    others = batches._others_of_class(order, 1)
    assert others[0] == 0
    assert (others[1:] != order[1:]).all()


def test_labels_of_true_negatives_are_those_of_the_views(tiny_folder, tmp_path):
    """The views are those of the same epoch without labels."""
    batches, dataset = make_batches(tiny_folder, tmp_path, negatives="label")
    plain, _ = make_batches(tiny_folder, tmp_path)
    order = epoch_order(48, batches.config.seed, 3)
    labels = []
    for (view1, view2, own), expected in zip(batches.epoch(3), plain.epoch(3), strict=True):
        assert torch.equal(view1, expected[0])
        assert torch.equal(view2, expected[1])
        labels.append(own)
    assert torch.equal(torch.cat(labels), dataset.train.labels[order])
