"""Tiny runs of every modality as real processes, and what must hold of their folders."""

import importlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.training.checkpoints import read_checkpoint
from core.training.records import read_record
from core.training.run_folder import TEMPORARY
from tests.graph.conftest import write_tu_dataset
from tests.image.conftest import write_class_folders
from tests.processes import Trainer
from tests.runs import metrics_of
from tests.sentence.conftest import write_books, write_senteval

FLAGS = {
    "graph": "--dataset TINY --epochs 3 --batch-size 10 --hidden 8",
    "image": "--epochs 2 --batch-size 16 --arch resnet10 --width 4 --view-size 16 --image-size 16",
    "sentence": "--epochs 2 --batch-size 20 --embedding-dim 8 --hidden 6 --encoder bow --tasks stsb",
}
WEIGHTS = {
    "graph": "encoder.safetensors",
    "image": "encoder.safetensors",
    "sentence": "encoder/0_QuickThought/model.safetensors",
}


def write_tiny_data(root: Path) -> Path:
    """A data root with small data of every modality."""
    write_tu_dataset(root)
    write_class_folders(root / "images" / "train", per_class=16)
    write_class_folders(root / "images" / "test", per_class=4, seed=1)
    write_books(root / "books")
    write_senteval(root)
    return root


@dataclass(frozen=True)
class Tiny:
    """A modality's command on data that take it a second, with a checkpoint after every step."""

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

    def start(self, folder: Path, *more: str, die_at: int | None = None) -> Trainer:
        handle, log = tempfile.mkstemp(dir=self.data.parent, suffix=".log")
        os.close(handle)
        return Trainer.start(self.module, self.flags(folder, *more), Path(log), die_at)

    def run(self, folder: Path, *more: str) -> Trainer:
        """A run to its end, whatever that is."""
        trainer = self.start(folder, *more)
        assert trainer.wait(120) is not None
        return trainer

    def here(self, folder: Path, *more: str) -> None:
        """A run in this process, where it can be tampered with."""
        importlib.import_module(self.module).main(self.flags(folder, *more))

    def main(self, argv: Sequence[str | Path]) -> None:
        """``here``, as commands are called: a folder, then flags."""
        self.here(*argv)

    def weights(self, folder: Path) -> bytes:
        return (folder / WEIGHTS[self.modality]).read_bytes()


def check_is_consistent(folder: Path) -> None:
    """What holds in a run's folder at any instant: what is there is whole."""
    if (folder / "config.json").exists():
        json.loads((folder / "config.json").read_text())
    for path in folder.glob("checkpoint/*.pt"):
        read_checkpoint(path)
    if (folder / "metrics.jsonl").exists():
        lines = (folder / "metrics.jsonl").read_text().split("\n")[:-1]
        assert [json.loads(line)["epoch"] for line in lines] == list(range(len(lines)))
    if (folder / "result.json").exists():
        read_record(folder / "result.json")


def check_is_as(whole: Path, tiny: Tiny, folder: Path) -> None:
    """The same weights, losses and scores as the uninterrupted run's, each epoch once, nothing left over."""
    assert tiny.weights(folder) == tiny.weights(whole)
    metrics = [[line | {"samples_per_second": None} for line in metrics_of(path)] for path in (whole, folder)]
    assert metrics[0] == metrics[1]
    results = [json.loads((path / "result.json").read_text()) for path in (whole, folder)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert not [path for path in folder.rglob(".*") if TEMPORARY.fullmatch(path.name)]


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    """One bit of the middle byte."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def newest(folder: Path) -> Path:
    return max(folder.glob("*.pt"), key=lambda path: read_checkpoint(path)[1])


def unfinished(whole: Path, tmp_path: Path) -> Path:
    """A copy of a whole run without its record: it can go on."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    return folder
