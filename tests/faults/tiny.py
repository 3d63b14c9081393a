"""Tiny runs of every modality as real processes, and what must hold for their folders."""

import importlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.training.checkpoints import read_checkpoint
from core.training.claim import TEMPORARY
from core.training.records import read_record
from tests.graph.conftest import write_tu_dataset
from tests.image.conftest import write_class_folders
from tests.processes import TrainProcess
from tests.runs import metrics_of
from tests.sentence.conftest import write_books, write_senteval

FLAGS = {
    "graph": "--dataset TINY --epochs 3 --batch-size 10 --hidden 8",
    "image": "--epochs 2 --batch-size 16 --arch resnet10 --width 4 --view-size 16 --image-size 16",
    "sentence": "--epochs 2 --batch-size 20 --embedding-dim 8 --encoder bow --tasks stsb",
}
WEIGHTS = {
    "graph": "encoder.safetensors",
    "image": "encoder.safetensors",
    "sentence": "encoder/model.safetensors",
}


def write_tiny_data(root: Path) -> Path:
    """Write a data root with small data of every modality."""
    write_tu_dataset(root)
    write_class_folders(root / "images" / "train", per_class=16)
    write_class_folders(root / "images" / "test", per_class=4, seed=1)
    write_books(root / "books")
    write_senteval(root)
    return root


@dataclass(frozen=True)
class TinyCommand:
    """A modality's training command on tiny data: about a second, with a checkpoint after every step."""

    modality: str
    data: Path

    @property
    def module(self) -> str:
        return f"{self.modality}.train"

    def flags(self, folder: Path, *more: str) -> list[str]:
        folders = {"image": self.data / "images", "sentence": self.data / "books"}
        dataset = ["--dataset", f"folder:{folders[self.modality]}"] if self.modality in folders else []
        where = ["--data-root", str(self.data), "--output-dir", str(folder), "--device", "cpu"]
        precision = ["--precision", "float32", "--checkpoint-seconds", "0"]
        return [*shlex.split(FLAGS[self.modality]), *dataset, *where, *precision, *more]

    def start(self, folder: Path, *more: str, die_at: int | None = None) -> TrainProcess:
        handle, log = tempfile.mkstemp(dir=self.data.parent, suffix=".log")
        os.close(handle)
        return TrainProcess.start(self.module, self.flags(folder, *more), Path(log), die_at)

    def run(self, folder: Path, *more: str) -> TrainProcess:
        """Start a process and wait until it exits."""
        process = self.start(folder, *more)
        assert process.wait(120) is not None
        return process

    def finish(self, folder: Path, *more: str) -> TrainProcess:
        """Run to the end, which must succeed."""
        process = self.run(folder, *more)
        assert process.wait() == 0, process.output()
        return process

    def run_inline(self, folder: Path, *more: str) -> None:
        """Run in this process, where it can be monkeypatched."""
        importlib.import_module(self.module).main(self.flags(folder, *more))

    def main(self, argv: Sequence[str | Path]) -> None:
        """``run_inline`` with the signature of a command: a folder, then flags."""
        self.run_inline(*argv)

    def weights(self, folder: Path) -> bytes:
        return (folder / WEIGHTS[self.modality]).read_bytes()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until ``condition()`` is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def has_started(folder: Path) -> bool:
    return (folder / "checkpoint").exists()


def has_trained(folder: Path) -> bool:
    """Whether the run is in its third epoch or later."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") > 2


def assert_consistent(folder: Path) -> None:
    """Assert that every file of the run folder is complete; must hold at any instant."""
    if (folder / "config.json").exists():
        json.loads((folder / "config.json").read_text())
    for path in folder.glob("checkpoint/*.pt"):
        read_checkpoint(path)
    if (folder / "metrics.jsonl").exists():
        lines = (folder / "metrics.jsonl").read_text().split("\n")[:-1]
        assert [json.loads(line)["epoch"] for line in lines] == list(range(len(lines)))
    if (folder / "result.json").exists():
        read_record(folder / "result.json")


def assert_same_run(expected: Path, tiny: TinyCommand, folder: Path) -> None:
    """Assert the weights, losses, scores and files of the uninterrupted run ``expected``, each epoch once."""
    assert tiny.weights(folder) == tiny.weights(expected)
    ours, theirs = (
        [line | {"samples_per_second": None} for line in metrics_of(run)] for run in (folder, expected)
    )
    assert ours == theirs
    ours, theirs = (json.loads((run / "result.json").read_text())["metrics"] for run in (folder, expected))
    assert ours == theirs
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    assert not [path for path in folder.rglob(".*") if TEMPORARY.fullmatch(path.name)]


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    """Flip one bit of the middle byte."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def newest_checkpoint(folder: Path) -> Path:
    return max(folder.glob("*.pt"), key=lambda path: read_checkpoint(path)[1])


def copy_unfinished(finished: Path, tmp_path: Path) -> Path:
    """Copy a finished run without its record, so that it can resume."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    return folder
