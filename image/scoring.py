"""Score an encoder's representations of images.

Shapes: N images · D representation · P projection.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.training.loop import eval_mode
from core.training.runtime import autocast
from core.training.seeding import epoch_generator, epoch_order
from image.config import Protocol
from image.data import ImageDataset, Images
from image.encoder import SimCLR
from image.views import Normalise, Views
from shared_eval.metrics import SAMPLED, effective_rank, embedding_metrics, split_similarities
from shared_eval.probes import knn_accuracy, linear_probe

CHUNK = 512
METRIC_SAMPLES = 1024


def represent(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    """The output of ``model`` for normalised images, a chunk at a time: float32 [N, D]."""
    with eval_mode(model), autocast(images.device, precision):
        chunks = [model(chunk.contiguous(memory_format=torch.channels_last)) for chunk in images.split(CHUNK)]
    return torch.cat(chunks).float()


def represent_all(encoder: nn.Module, images: Images, precision: str) -> Tensor:
    """The representations of images without augmentation: [N, D]."""
    normalise = Normalise().to(images.device)
    return torch.cat([represent(encoder, normalise(chunk), precision) for chunk in images.chunks(CHUNK)])


def score_neighbours(encoder: nn.Module, dataset: ImageDataset, precision: str) -> dict[str, float]:
    """Weighted nearest-neighbour accuracy on the test images (k 200, temperature 0.5)."""
    memory, test = (represent_all(encoder, part, precision) for part in (dataset.labelled, dataset.test))
    return {"knn_accuracy": knn_accuracy(memory, dataset.labelled.labels, test, dataset.test.labels)}


def evaluate(
    model: SimCLR,
    dataset: ImageDataset,
    views: Views,
    seed: int,
    precision: str,
    protocol: Protocol = "frozen",
    epochs: int = 100,
    probed: ImageDataset | None = None,
) -> dict[str, float]:
    """Scores of nearest neighbours and a linear probe, and scores without labels.

    ``protocol="frozen"`` computes the features of whole images once; ``"paper"`` trains the probe on the
    features of images augmented again in every epoch, as the paper's code does. ``probed`` is the dataset
    whose labels are predicted, by default ``dataset`` if it has any.
    """
    probed = probed or dataset
    scores = probe(model, probed, views, seed, precision, protocol, epochs) if probed.has_labels else {}
    return scores | label_free_scores(model, dataset, views, seed, precision)


def probe(
    model: SimCLR,
    dataset: ImageDataset,
    views: Views,
    seed: int,
    precision: str,
    protocol: Protocol,
    epochs: int,
) -> dict[str, float]:
    """Accuracies of nearest neighbours and of a linear probe on the test images."""
    memory, test = (
        represent_all(model.encoder, part, precision) for part in (dataset.labelled, dataset.test)
    )
    labels = dataset.labelled.labels

    def frozen(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in epoch_order(len(memory), seed, epoch).to(memory.device).split(CHUNK):
            yield memory[chosen], labels[chosen]

    def augmented(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = epoch_generator(seed, epoch, memory.device)
        order = epoch_order(len(memory), seed, epoch).to(dataset.labelled.images.device).split(CHUNK)
        for chosen, images in zip(order, dataset.labelled.fetch(order), strict=True):
            features = represent(model.encoder, views(images, generator), precision)
            yield features, labels[chosen.to(labels.device)]

    batches = frozen if protocol == "frozen" else augmented
    return {
        "knn_accuracy": knn_accuracy(memory, labels, test, dataset.test.labels),
        **linear_probe(batches, test, dataset.test.labels, len(dataset.classes), seed, epochs),
    }


def label_free_scores(
    model: SimCLR, dataset: ImageDataset, views: Views, seed: int, precision: str
) -> dict[str, float]:
    """Alignment, uniformity and similarities of projections, effective rank of representations.

    Of random test images; without labels these are training images.
    """
    chosen = epoch_order(len(dataset.test), seed, epoch=0)[:METRIC_SAMPLES].to(dataset.test.images.device)
    images = dataset.test.take(chosen)
    whole = represent(model.encoder, Normalise().to(images.device)(images), precision)
    return {
        **embedding_metrics(*_projections(model, dataset.test, views, seed, precision)),
        "effective_rank": effective_rank(whole),
    }


def sample(
    model: SimCLR, dataset: ImageDataset, views: Views, seed: int, precision: str
) -> dict[str, Tensor]:
    """Representations of random test images with labels, and cosines of positives and negatives."""
    test = dataset.test
    chosen = epoch_order(len(test), seed, epoch=0)[:SAMPLED].to(test.images.device)
    images = Images(test.images[chosen], test.labels[chosen.to(test.device)])
    view1, view2 = _projections(model, images, views, seed, precision)
    return {
        "representations": represent_all(model.encoder, images, precision),
        "labels": images.labels,
        **split_similarities(view1 @ view2.T),
    }


def _projections(
    model: SimCLR, test: Images, views: Views, seed: int, precision: str
) -> tuple[Tensor, Tensor]:
    """Projections of two views of the same random test images, unit norm: [N, P] twice."""
    chosen = epoch_order(len(test), seed, epoch=0)[:METRIC_SAMPLES]
    images = test.take(chosen.to(test.images.device))
    generator = epoch_generator(seed, 0, test.device)
    pair = [views(images, generator) for _ in range(2)]
    with eval_mode(model), autocast(test.device, precision):
        return tuple(F.normalize(model(view)[1].float(), dim=1) for view in pair)
