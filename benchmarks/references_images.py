"""SimCLR with lightly's loss, and views from a DataLoader, beside ours."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.alternatives import LIBRARIES
from benchmarks.images import PilViews
from benchmarks.measure import Findings
from benchmarks.settings import ReferenceSettings
from core import NTXentLoss
from core.training.config import default_data_root
from core.training.optimizers import make_optimizer
from core.training.seeding import seed_everything
from image.batches import ViewBatches
from image.config import ImageConfig
from image.data import Images, load_dataset
from image.encoder import SimCLR, make_encoder
from image.views import Views

TEMPERATURE = 0.5

Pairs = Iterable[Iterable[Tensor]]


def measure_images(settings: ReferenceSettings, device: torch.device, findings: Findings) -> None:
    """SimCLR's step on the same views, its views alone, and its loop from images to weights."""
    lightly = LIBRARIES["lightly"]
    if lightly is None:
        findings.notes.append("lightly's SimCLR: not installed.")
        return
    losses = {"ours": NTXentLoss(TEMPERATURE), "lightly": lightly.NTXentLoss(TEMPERATURE)}
    measure_step(losses, settings, device, findings)
    measure_loop(losses, settings, device, findings)


def measure_step(
    losses: dict[str, nn.Module], settings: ReferenceSettings, device: torch.device, findings: Findings
) -> None:
    """A step with each loss, from the same views."""
    seed_everything(0)
    views = torch.randn(2, settings.images, 3, 32, 32, device=device)
    subjects = {name: loop(loss, lambda: [views], device) for name, loss in losses.items()}
    findings.compare("SimCLR, step", subjects, settings.rounds, "images", settings.images)


def measure_loop(
    losses: dict[str, nn.Module], settings: ReferenceSettings, device: torch.device, findings: Findings
) -> None:
    """Batches of the same images, each library with its own views and loss: views alone, then training."""
    shapes = load_dataset("shapes", default_data_root()).train
    count = settings.image_steps * settings.images
    train = Images(shapes.images[:count], shapes.labels[:count])
    pairs = {
        "ours": our_pairs(train, settings, device),
        "lightly": lightly_pairs(train.images, settings, device),
    }
    views = {name: lambda make=make: [None for _ in make()] for name, make in pairs.items()}
    loops = {name: loop(losses[name], make, device) for name, make in pairs.items()}
    for case, subjects in {"SimCLR, views": views, "SimCLR, loop": loops}.items():
        findings.compare(case, subjects, settings.rounds, "images", len(train))


def loop(loss: nn.Module, make_pairs: Callable[[], Pairs], device: torch.device) -> Callable[[], None]:
    """A function that takes one step on each pair of views."""
    seed_everything(0)
    model = SimCLR(make_encoder("resnet10", 16)).to(device)
    optimizer = make_optimizer("adam", model.parameters(), 1e-3, 1e-6)

    def steps() -> None:
        for view1, view2 in make_pairs():
            projections = model(torch.cat([view1, view2]))[1]
            optimizer.zero_grad(set_to_none=True)
            loss(*projections.chunk(2)).backward()
            optimizer.step()

    return steps


def our_pairs(train: Images, settings: ReferenceSettings, device: torch.device) -> Callable[[], Pairs]:
    """Our views of an epoch."""
    config = ImageConfig(dataset="shapes", beta=0.0, tau_plus=0.0, batch_size=settings.images)
    views = Views(train.images.shape[-1]).to(device)
    batches = ViewBatches(train.to(device, resident=True), views, config)
    return lambda: batches.epoch(1)


def lightly_pairs(images: Tensor, settings: ReferenceSettings, device: torch.device) -> Callable[[], Pairs]:
    """Views of an epoch from a DataLoader, by torchvision's transforms, of which lightly's are made."""
    loader = DataLoader(
        PilViews(images, images.shape[-1]),
        batch_size=settings.images,
        shuffle=True,
        drop_last=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
    )

    def pairs() -> Iterator[list[Tensor]]:
        for pair in loader:
            yield [view.to(device, non_blocking=True) for view in pair]

    return pairs
