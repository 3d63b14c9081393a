"""The batches of SimCLR training: two views of each image.

Shapes: N images · B batch of this process · S size of the views.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from core.distributed import local_slice, rank
from core.training.runtime import to_device
from core.training.seeding import epoch_generator, epoch_order
from image.config import ImageConfig
from image.data import Images
from image.views import Views


class ViewBatches:
    """The batches of every epoch, two views each; order and draws depend on seed and epoch alone.

    Each process makes the views of its own part of every batch, with draws of its own. Images that do not
    fill a batch are dropped.
    """

    def __init__(self, train: Images, views: Views, config: ImageConfig) -> None:
        self.train, self.views, self.config = train, views, config
        self.steps = len(train) // config.batch_size
        self.local = local_slice(config.batch_size)
        if config.positives == "label":
            self.labels = train.labels.cpu()
            self.by_class = self.labels.argsort(stable=True)
            self.counts = torch.bincount(self.labels)
            self.first = self.counts.cumsum(0) - self.counts

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield pairs of views, float32 [B, 3, S, S] each, with labels [B] if negatives depend on them."""
        order = epoch_order(len(self.train), self.config.seed, epoch)
        generator = epoch_generator(self.config.seed, epoch, self.train.device, rank())
        chosen = self._local_batches(order, self.train.device)
        for indices, pair in zip(chosen, self._pairs(order, epoch), strict=True):
            views = tuple(self.views(images, generator) for images in pair)
            yield views if self.config.negatives == "batch" else (*views, self.train.labels[indices])

    def _pairs(self, order: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of which each batch has views: twice the same, or another one of the class."""
        memory = self.train.images.device
        chosen = self._local_batches(order, memory)
        if self.config.positives == "views":
            for images in self.train.fetch(chosen):
                yield images, images
            return
        others = self._local_batches(self._others_of_class(order, epoch), memory)
        yield from zip(self.train.fetch(chosen), self.train.fetch(others), strict=True)

    def _local_batches(self, order: Tensor, device: torch.device) -> list[Tensor]:
        """This process's part of every batch, moved to ``device`` once an epoch."""
        order = to_device(order, device)
        return [batch[self.local] for batch in order.split(self.config.batch_size)[: self.steps]]

    def _others_of_class(self, order: Tensor, epoch: int) -> Tensor:
        """For each image another image of its class, or itself if it is the only one: [N] -> [N]."""
        classes = self.labels[order]
        index_in_class = torch.empty_like(order)
        index_in_class[self.by_class] = torch.arange(len(order)) - self.first.repeat_interleave(self.counts)
        generator = epoch_generator(self.config.seed, epoch, torch.device("cpu"))
        draws = torch.rand(len(order), generator=generator)
        others = (self.counts[classes] - 1).clamp(min=1)
        step = 1 + (draws * others).long()  # 1 to count - 1: goes round the class and never back to the image
        return self.by_class[self.first[classes] + (index_in_class[order] + step) % self.counts[classes]]
