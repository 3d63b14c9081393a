"""SimCLR's step, timed whole and by its parts: ``python -m benchmarks.image_throughput``.

Beside it the usual pipeline feeds the same model: PIL images, torchvision's transforms, a DataLoader.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import interleaved, summary, synchronise, write_results
from core import HardNegativeLoss
from core.config import default_data_root, parse
from core.environment import autocast, choose_device, choose_precision, seed_everything
from core.errors import command
from core.optimizers import make_optimizer
from image.data import Images, load_dataset
from image.encoder import SimCLR, make_encoder
from image.train import Batches, ImageConfig
from image.views import CIFAR10_MEAN, CIFAR10_STD, Views

PARTS = ("augmentation", "forward", "loss", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig:
    """Time SimCLR's step beside a PIL + DataLoader pipeline."""

    dataset: str = "shapes"
    arch: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet10"
    width: int = 16
    batch_size: int = 256
    steps: int = 8
    """Steps of a round."""
    rounds: int = 5
    workers: int = os.cpu_count() or 1
    """Processes of the DataLoader."""
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    output: Path = Path("benchmarks/results/image_throughput.json")


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


class Step:
    """One training step, its parts timed on demand."""

    def __init__(self, config: ThroughputConfig, device: torch.device, precision: str) -> None:
        seed_everything(0)
        self.device, self.precision = device, precision
        self.model = SimCLR(make_encoder(config.arch, config.width)).to(device)
        if config.compile:
            self.model.compile()
        self.optimizer = make_optimizer("adam", self.model.parameters(), 1e-3, 1e-6)
        self.objective = HardNegativeLoss(1.0, 0.1, 0.5)

    def take(self, batches: Iterable[tuple[Tensor, Tensor]], seconds: dict[str, float] | None = None) -> None:
        """One step a batch. With ``seconds``, wait for the device after each part and add its time."""
        batches = iter(batches)
        while True:
            self.started = time.perf_counter()
            pair = next(batches, None)
            if pair is None:
                return
            self._part_done("augmentation", seconds)
            with autocast(self.device, self.precision):
                _, projection = self.model(torch.cat(pair))
                self._part_done("forward", seconds)
                loss = self.objective(*projection.chunk(2))
                self._part_done("loss", seconds)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._part_done("backward", seconds)
            self.optimizer.step()
            self._part_done("optimizer", seconds)

    def _part_done(self, part: str, seconds: dict[str, float] | None) -> None:
        if seconds is None:
            return
        synchronise(self.device)
        now = time.perf_counter()
        seconds[part] = seconds.get(part, 0.0) + now - self.started
        self.started = now


def pipelines(
    config: ThroughputConfig, train: Images, device: torch.device
) -> dict[str, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    """What makes a round's pairs of views: ours, and the usual one."""
    count = config.steps * config.batch_size
    chosen = Images(train.images[:count], train.labels[:count])
    size = train.images.shape[2]
    settings = ImageConfig(dataset=config.dataset, beta=1.0, tau_plus=0.1, batch_size=config.batch_size)
    batches = Batches(chosen.to(device, resident=True), Views(size).to(device), settings)
    # Persistent workers fetch nothing between rounds: no round starts with what another has paid for.
    loader = DataLoader(
        PilViews(chosen.images, size),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=device.type == "cuda",
    )

    def usual() -> Iterator[tuple[Tensor, Tensor]]:
        for pair in loader:
            yield tuple(view.to(device, non_blocking=True) for view in pair)

    return {"ours": lambda: batches.of_epoch(1), "PIL + DataLoader": usual}


def no_synchronisation(step: Step, batches: Iterable[tuple[Tensor, Tensor]]) -> bool | None:
    """Whether steps run without the host waiting for the device; None where there is no GPU."""
    if step.device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.take(batches)
        return True
    except RuntimeError as error:
        print(f"a step waits for the device: {error}")
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")


def page_of(results: dict) -> str:
    """The results as a page of Markdown."""
    ours, usual = (results["pipelines"][name] for name in ("ours", "PIL + DataLoader"))
    settings = results["settings"]
    lines = [
        "# Image throughput",
        "",
        "SimCLR, {arch} of width {width}, batches of {batch_size} images of {image_size} pixels from "
        "{dataset}, {precision}; medians of {rounds} interleaved rounds of {steps} steps. The usual pipeline "
        "(PIL, torchvision's transforms, DataLoader with {workers} workers) feeds the same model. "
        "Again: `python -m benchmarks.image_throughput`.".format(**settings),
        "",
        "| | images a second, training | images a second, views alone |",
        "| --- | --- | --- |",
    ]
    for name, result in (("ours", ours), ("PIL + DataLoader", usual)):
        lines.append(
            f"| {name} | {result['training']['images_per_second']} | {result['views']['images_per_second']} |"
        )
    ratios = (results["ratio"][what] for what in ("training", "views"))
    lines.append("| **ratio** | " + " | ".join(f"{ratio}" for ratio in ratios) + " |")
    lines += ["", "| part of our step | milliseconds | share |", "| --- | --- | --- |"]
    for part, value in results["parts"].items():
        lines.append(f"| {part} | {value['milliseconds']} | {value['share']:.1%} |")
    if results["no_synchronisation"] is not None:
        free = "never waits" if results["no_synchronisation"] else "waits"
        lines.append(f"\nInside a step the host {free} for the device.")
    return "\n".join(lines) + "\n"


@command
def main() -> None:
    config = parse(ThroughputConfig, None, "python -m benchmarks.image_throughput")
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    dataset = load_dataset(config.dataset, default_data_root())
    step = Step(config, device, precision)
    made = pipelines(config, dataset.train, device)

    def drain(make: Callable[[], Iterator]) -> Callable[[], None]:
        return lambda: [None for _ in make()]

    images = config.steps * config.batch_size
    results = {"pipelines": {name: {} for name in made}, "ratio": {}}
    subjects = {
        "views": {name: drain(make) for name, make in made.items()},
        "training": {name: lambda make=make: step.take(make()) for name, make in made.items()},
    }
    for what, of_what in subjects.items():
        for name, seconds in interleaved(of_what, config.rounds).items():
            times = summary(seconds)
            results["pipelines"][name][what] = times | {
                "images_per_second": round(images / times["median_seconds"])
            }
        ours, usual = (results["pipelines"][name][what]["images_per_second"] for name in made)
        results["ratio"][what] = round(ours / usual, 2)
        print(f"{what}: {ours} images a second, {ours / usual:.1f} times the usual pipeline")

    seconds: dict[str, float] = {}
    for _ in range(config.rounds):
        step.take(made["ours"](), seconds)
    total = sum(seconds.values())
    results["parts"] = {
        part: {
            "milliseconds": round(1000 * seconds[part] / config.rounds / config.steps, 2),
            "share": round(seconds[part] / total, 4),
        }
        for part in PARTS
    }
    for part, value in results["parts"].items():
        print(f"{part}: {value['milliseconds']} ms, {value['share']:.1%}")
    results["no_synchronisation"] = no_synchronisation(step, made["ours"]())
    results["settings"] = {
        name: getattr(config, name)
        for name in ("dataset", "arch", "width", "batch_size", "steps", "rounds", "workers", "compile")
    } | {"precision": precision, "image_size": dataset.image_size}
    write_results(config.output, results, page_of(results), device)


if __name__ == "__main__":
    main()
