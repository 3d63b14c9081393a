"""SimCLR's step compared with the usual pipeline: PIL images, torchvision transforms, a DataLoader."""

from collections.abc import Callable, Iterable, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import Findings, Stopwatch, Timer, operator_seconds, untimed
from benchmarks.settings import ImageSettings
from core import HardNegativeLoss
from core.training.config import default_data_root
from core.training.optimizers import make_optimizer
from core.training.runtime import autocast, choose_precision
from core.training.seeding import seed_everything
from image.batches import ViewBatches
from image.config import ImageConfig
from image.data import Images, load_dataset
from image.encoder import SimCLR, make_encoder
from image.views import CIFAR10_MEAN, CIFAR10_STD, Views

TITLE = "Image throughput"
ABOUT = (
    "SimCLR on batches of images, and its views alone. The usual pipeline (PIL, torchvision transforms, a "
    "DataLoader) feeds the same model."
)
USUAL = "PIL + DataLoader"

Pairs = Iterable[tuple[Tensor, Tensor]]


class PilViews(Dataset):
    """Two views of an image as torchvision makes them, one image at a time."""

    def __init__(self, images: Tensor, size: int) -> None:
        self.images = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
        jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([transforms.GaussianBlur(3, sigma=(0.1, 2.0))], p=0.5),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[number]), self.transform(self.images[number])


class ImageSteps:
    """Training steps of SimCLR, with an optional timer of their parts."""

    def __init__(self, settings: ImageSettings, device: torch.device, precision: str, compiled: bool) -> None:
        seed_everything(0)
        self.device, self.precision = device, precision
        self.model = SimCLR(make_encoder(settings.arch, settings.width)).to(device)
        if compiled:
            self.model.compile()
        self.optimizer = make_optimizer("adam", self.model.parameters(), 1e-3, 1e-6)
        self.objective = HardNegativeLoss(1.0, 0.1, 0.5, normalize=False)

    def train(self, batches: Pairs, timer: Timer = untimed) -> None:
        """One step per batch."""
        batches = iter(batches)
        while True:
            with timer("views"):
                pair = next(batches, None)
            if pair is None:
                return
            with autocast(self.device, self.precision):
                with timer("forward"):
                    _, projection = self.model(torch.cat(pair))
                with timer("objective"):
                    loss = self.objective(*projection.chunk(2))
            with timer("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
            with timer("optimizer"):
                self.optimizer.step()


def pipelines(
    settings: ImageSettings, train: Images, device: torch.device
) -> dict[str, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    """Functions that make the pairs of views of a round: ours, and the usual one."""
    count = settings.steps * settings.batch_size
    chosen = Images(train.images[:count], train.labels[:count])
    size = train.images.shape[2]
    config = ImageConfig(dataset=settings.dataset, beta=1.0, tau_plus=0.1, batch_size=settings.batch_size)
    batches = ViewBatches(chosen.to(device, resident=True), Views(size).to(device), config)
    # Persistent workers fetch nothing between rounds, so that every round pays for its own batches.
    loader = DataLoader(
        PilViews(chosen.images, size),
        batch_size=settings.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=device.type == "cuda",
    )

    def usual() -> Iterator[tuple[Tensor, Tensor]]:
        for pair in loader:
            yield tuple(view.to(device, non_blocking=True) for view in pair)

    return {"ours": lambda: batches.epoch(1), USUAL: usual}


def measure(settings: ImageSettings, device: torch.device, findings: Findings) -> None:
    """Measure views alone and training, ours and the usual pipeline."""
    precision = choose_precision(settings.precision, device)
    dataset = load_dataset(settings.dataset, default_data_root())
    findings.settings |= {"precision": precision, "image_size": dataset.image_size}
    steps = ImageSteps(settings, device, precision, compiled=False)
    made = pipelines(settings, dataset.train, device)
    count = min(settings.steps * settings.batch_size, len(dataset.train))

    def drain(make: Callable[[], Pairs]) -> Callable[[], None]:
        return lambda: [None for _ in make()]

    views = {name: drain(make) for name, make in made.items()}
    findings.compare("views", views, settings.rounds, "images", count)
    training = {name: lambda make=make: steps.train(make()) for name, make in made.items()}
    if settings.compile:
        compiled = ImageSteps(settings, device, precision, compiled=True)
        training["ours, compiled"] = lambda: compiled.train(made["ours"]())
    findings.compare("training", training, settings.rounds, "images", count)

    stopwatch = Stopwatch(device)
    for _ in range(settings.rounds):
        steps.train(made["ours"](), stopwatch)
    findings.share("our step, by part", stopwatch.seconds)
    operators = operator_seconds(training["ours"], device, steps=1)
    findings.share("our step, by operator", operators)
    findings.note_waits("a step", training["ours"], device)
