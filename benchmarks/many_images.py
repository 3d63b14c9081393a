"""Training on more images than memory should hold: ``python -m benchmarks.many_images``.

Makes a folder of images, decodes them into an empty cache, and trains a few steps from the full cache, on one
process and on two. Each process reports its largest anonymous memory, which is what lies beside the page
cache, and the seconds from its settings to the end of its first step. Every process runs
``python -m benchmarks.many_images --worker FOLDER``.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import ROOT
from benchmarks.memory import memory_of
from core.distributed import process_group, rank
from core.io.errors import TrainingError
from core.training.cli import command, parse
from core.training.loop import optimizer_step
from image.config import ImageConfig, defaults_for
from image.task import ImageTask
from shared_eval.outputs import show

CLASSES = 20
DIFFERENT = 1000  # files; the others are hard links to them
MAX_ANONYMOUS = 1.5 * 2**30
MAX_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class ManyImagesConfig:
    """Memory and time of training on many images."""

    images: int = 200_000
    size: int = 64
    steps: int = 20
    """Steps of training."""
    batch: int = 64
    """Images of a step, of all processes together."""
    worker: Path | None = None
    """The folder of images, in the processes that this one starts."""


def write_images(root: Path, count: int, size: int) -> None:
    """Write root/CLASS/NUMBER.jpg: random patterns, equal files as hard links."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = root / f"{number % CLASSES:02}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= DIFFERENT:
            os.link(root / f"{number % DIFFERENT % CLASSES:02}" / f"{number % DIFFERENT:07}.jpg", path)
        else:
            pattern = draw.integers(0, 256, (size // 8, size // 8, 3), np.uint8)
            Image.fromarray(pattern).resize((size, size), Image.Resampling.BICUBIC).save(path)


@contextmanager
def largest_memory() -> Iterator[list[int]]:
    """The largest anonymous memory of this process inside, in bytes, sampled every 20 ms."""
    largest, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            largest[0] = max(largest[0], memory_of("/proc/self/status", "RssAnon"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield largest
    finally:
        ended.set()
        thread.join()


def train_config(config: ManyImagesConfig) -> ImageConfig:
    """A small encoder, so that the data are most of the memory."""
    defaults = defaults_for(f"folder:{config.worker}")
    sizes = {"image_size": config.size, "view_size": config.size, "batch_size": config.batch}
    return replace(defaults, **sizes, arch="resnet10", width=16, precision="float32", device="cpu")


def work(config: ManyImagesConfig) -> dict[str, Any]:
    """Train in this process; what it needed."""
    started, cpu = time.perf_counter(), time.process_time()
    with largest_memory() as largest:
        task = ImageTask([train_config(config)], torch.device("cpu"))
        for step, batch in zip(range(config.steps), task.batches(1), strict=False):
            losses, _ = task.training_step(batch)
            optimizer_step(task, losses, task.config.lr)
            if step == 0:
                first = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {"rank": rank(), "anonymous_bytes": largest[0], **first}


def start(config: ManyImagesConfig, folder: Path, processes: int) -> list[dict[str, Any]]:
    """What each of a group of processes needed."""
    sizes = ("images", "size", "steps", "batch")
    flags = [f"--{name}={getattr(config, name)}" for name in sizes]
    group = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*group, "-m", "benchmarks.many_images", *flags, "--worker", str(folder / "images")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
    )
    if done.returncode:
        raise TrainingError(f"a group of {processes} processes ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ManyImagesConfig, argv, "python -m benchmarks.many_images")
    if config.worker is not None:
        with process_group(torch.device("cpu")):
            print(json.dumps(work(config)) + "\n", end="", flush=True)  # at once: ranks share the pipe
        return
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name) / "images", config.images, config.size)
        for case, processes in (("decoded", 1), ("cached", 1), ("cached", 2)):
            for found in start(config, Path(name), processes):
                memory = found["anonymous_bytes"] / 2**30
                show(
                    f"{case}, rank {found['rank']} of {processes}: {memory:.2f} GiB beside the page cache "
                    f"(at most {MAX_ANONYMOUS / 2**30:g}), first step after {found['seconds']:.1f} s, "
                    f"{found['cpu_seconds']:.1f} s of them on the CPU (at most {MAX_SECONDS:g} when cached)"
                )


if __name__ == "__main__":
    main()
