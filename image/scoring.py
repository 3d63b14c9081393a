"""Score an encoder's representations of images.

Shapes: N images · D representation · P projection.
"""

import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.distributed import is_main_process
from core.io.files import one_line
from core.training.loop import eval_mode
from core.training.runtime import autocast
from core.training.seeding import epoch_generator, epoch_order
from image.config import ImageConfig, Protocol
from image.data import ImageDataset, Images
from image.encoder import SimCLR
from image.views import Normalise, Views
from shared_eval.metrics import SAMPLED, SHOWN, effective_rank, embedding_metrics, split_similarities
from shared_eval.probes import knn_accuracy, linear_probe
from shared_eval.probes.knn import NEIGHBOURS

CHUNK = 512
METRIC_SAMPLES = 1024
THUMBNAIL = 64  # pixels
PROBE_EVALUATION = "probe-size-2"  # rule of a ``probe_dataset``: its images have the size of the run's


def represent(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    """The output of ``model`` for normalised images, a chunk at a time: float32 [N, D]."""
    with eval_mode(model), autocast(images.device, precision):
        chunks = [model(chunk.contiguous(memory_format=torch.channels_last)) for chunk in images.split(CHUNK)]
    return torch.cat(chunks).float()


def represent_all(encoder: nn.Module, images: Images, precision: str) -> Tensor:
    """The representations of images without augmentation: [N, D]."""
    normalise = Normalise().to(images.device)
    return torch.cat([represent(encoder, normalise(chunk), precision) for chunk in images.chunks(CHUNK)])


def warn_few_neighbours(dataset: ImageDataset) -> None:
    """Say on stderr if there are so few labelled images that each is a neighbour of every test image."""
    images = len(dataset.labelled)
    if dataset.has_labels and images <= NEIGHBOURS and is_main_process():
        warning = (
            f"warning: {dataset.name} has {images} labelled images, and the {NEIGHBOURS} nearest vote in "
            "knn_accuracy: all of them do, which favours the largest class"
        )
        print(one_line(warning), file=sys.stderr)


class Scorer:
    """The scores of a model on images.

    Args:
        config: Says how views are made, the seed and the precision.
        dataset: What is scored without labels.
        probed: The dataset whose labels the probes predict; by default ``dataset``, if it has any.
    """

    def __init__(
        self, model: SimCLR, config: ImageConfig, dataset: ImageDataset, probed: ImageDataset | None = None
    ) -> None:
        self.model, self.dataset, self.probed = model, dataset, probed or dataset
        self.seed, self.precision = config.seed, config.precision
        warn_few_neighbours(self.probed)
        self.views = Views(config.view_size, scale=(config.crop_scale, 1.0)).to(dataset.train.device)

    def evaluate(self, protocol: Protocol = "frozen", epochs: int = 100) -> dict[str, float]:
        """Scores of nearest neighbours and a linear probe if there are labels, and scores without labels.

        ``protocol="frozen"`` computes the features of whole images once; ``"paper"`` trains the probe on the
        features of images augmented again in every epoch, as the paper's code does. There batch norm's
        statistics follow these images; here they stay those of training.
        """
        scores = self._probe(protocol, epochs) if self.probed.has_labels else {}
        return scores | self._label_free_scores()

    def score_neighbours(self) -> dict[str, float]:
        """Weighted nearest-neighbour accuracy on the test images (temperature 0.5)."""
        return self._score_neighbours(*self._features())

    def sample(self) -> dict[str, Tensor]:
        """Representations of random test images with labels, and cosines of positives and negatives."""
        images = self._random(self.dataset.test, SAMPLED)
        view1, view2 = self._projections(self._random(images, METRIC_SAMPLES))
        return {
            "representations": represent_all(self.model.encoder, images, self.precision),
            "labels": images.labels,
            **split_similarities(view1 @ view2.T),
        }

    def shown(self) -> tuple[Tensor, Tensor]:
        """A few random test images, small enough for a page, and their representations [n, D]."""
        images = self._random(self.dataset.test, SHOWN)
        step = max(1, images.images.shape[-1] // THUMBNAIL)
        return images.images[:, :, ::step, ::step], represent_all(self.model.encoder, images, self.precision)

    def _features(self) -> tuple[Tensor, Tensor]:
        """The representations of the labelled and of the test images."""
        parts = (self.probed.labelled, self.probed.test)
        memory, test = (represent_all(self.model.encoder, part, self.precision) for part in parts)
        return memory, test

    def _score_neighbours(self, memory: Tensor, test: Tensor) -> dict[str, float]:
        probed = self.probed
        return {"knn_accuracy": knn_accuracy(memory, probed.labelled.labels, test, probed.test.labels)}

    def _probe(self, protocol: Protocol, epochs: int) -> dict[str, float]:
        """Accuracies of nearest neighbours and of a linear probe on the test images."""
        memory, test = self._features()
        labelled, seed = self.probed.labelled, self.seed

        def frozen(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for chosen in epoch_order(len(memory), seed, epoch).to(memory.device).split(CHUNK):
                yield memory[chosen], labelled.labels[chosen]

        def augmented(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            generator = epoch_generator(seed, epoch, memory.device)
            order = epoch_order(len(memory), seed, epoch).to(labelled.images.device).split(CHUNK)
            for chosen, images in zip(order, labelled.fetch(order), strict=True):
                features = represent(self.model.encoder, self.views(images, generator), self.precision)
                yield features, labelled.labels[chosen.to(labelled.device)]

        batches = frozen if protocol == "frozen" else augmented
        classes = len(self.probed.classes)
        return {
            **self._score_neighbours(memory, test),
            **linear_probe(batches, test, self.probed.test.labels, classes, seed, epochs),
        }

    def _label_free_scores(self) -> dict[str, float]:
        """Alignment, uniformity and similarities of projections, effective rank of representations.

        Of random test images; without labels these are training images.
        """
        images = self._random(self.dataset.test, METRIC_SAMPLES)
        whole = represent_all(self.model.encoder, images, self.precision)
        return {**embedding_metrics(*self._projections(images)), "effective_rank": effective_rank(whole)}

    def _random(self, images: Images, count: int) -> Images:
        """At most ``count`` of the images, the same ones at each call."""
        chosen = epoch_order(len(images), self.seed, epoch=0)[:count]
        return images.only(chosen)

    def _projections(self, images: Images) -> tuple[Tensor, Tensor]:
        """Projections of two views of the same images, unit norm: [N, P] twice."""
        pixels = images.images.to(images.device)
        generator = epoch_generator(self.seed, 0, images.device)
        pair = [self.views(pixels, generator) for _ in range(2)]
        with eval_mode(self.model), autocast(images.device, self.precision):
            projected = (torch.cat([self.model(chunk)[1] for chunk in view.split(CHUNK)]) for view in pair)
            view1, view2 = (F.normalize(projections.float(), dim=1) for projections in projected)
        return view1, view2
