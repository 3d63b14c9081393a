"""What each part of the suite measures, in full and with ``--quick``; imports nothing heavy."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.commands import COMMANDS

Part = Literal[
    "objective",
    "ranks",
    "images",
    "graphs",
    "sentences",
    "evaluation",
    "references",
    "startup",
    "busy",
    "revisions",
]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """The objective, forward and backward."""

    batches: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    """Batches of all implementations."""
    large_batches: tuple[int, ...] = (16_384, 65_536)
    """Batches of the hard objective in tiles alone, called once each."""
    dim: int = 128
    tile_size: int = 512
    temperature: float = 0.5
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """The objective over processes, and gradient caching."""

    processes: int = 2
    """Ranks on a CPU; on GPUs, one for each."""
    batch: int = 4096
    """Samples of all ranks together."""
    dim: int = 128
    tile_size: int = 512
    encoder_batch: int = 512
    """Images of the step with gradient caching: ResNet-18 of width 16, 32 pixels."""
    chunks: tuple[int, ...] = (128, 32)
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """SimCLR's step compared with a PIL + DataLoader pipeline."""

    dataset: str = "shapes"
    arch: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet10"
    width: int = 16
    batch_size: int = 256
    steps: int = 8
    """Steps per round."""
    rounds: int = 5
    workers: int = os.cpu_count() or 1
    """Processes of the DataLoader."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    """Also time the compiled model."""


@dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """Graph training compared with the reference, and complete commands."""

    datasets: tuple[str, ...] = ("motifs", "MUTAG", "PROTEINS", "REDDIT-BINARY", "DD")
    """Datasets on which an epoch, a step and the objective alone are timed."""
    batch_size: int = 128
    rounds: int = 5
    command_dataset: str = "MUTAG"
    """Dataset of the complete commands."""
    seeds: str = "0-9"
    """Seeds that one command trains together."""
    betas: str = "0,1,2,10"
    """Betas that one command trains together with the seeds."""
    command_rounds: int = 2
    """0 skips the complete commands."""


@dataclass(frozen=True, kw_only=True)
class SentenceSettings:
    """Quick-thoughts' step, and encoding."""

    dataset: str = "books"
    """The corpus; the built-in one if it is missing."""
    embedding_dim: int = 620
    hidden: int = 600
    batch_size: int = 400
    rounds: int = 3
    sentences: int = 1000
    """Sentences encoded per round."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Probes on frozen features."""

    graphs: str = "MUTAG"
    """Graphs of the SVM; the built-in ones if they are missing."""
    task: str = "mr"
    """Task of the nested logistic regression; the built-in one if it is missing."""
    task_samples: int = 3000
    """Maximum number of its sentences."""
    task_dim: int = 1200
    """Dimension of the sentence embeddings."""
    train: int = 10_000
    """Training samples of nearest neighbours and linear probe."""
    test: int = 2000
    dim: int = 512
    classes: int = 10
    epochs: int = 20
    """Epochs of the linear probe."""
    rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """Other libraries' steps beside ours."""

    graphs: tuple[str, ...] = ("MUTAG", "REDDIT-BINARY")
    """Datasets of graphs; those that are missing are left out."""
    batch_size: int = 128
    pairs: int = 512
    """Sentence pairs of an epoch."""
    sentence_batch: int = 64
    hidden: int = 300
    """Width of the sentence encoder's GRUs."""
    images: int = 256
    """Images of a batch."""
    image_steps: int = 4
    """Batches of SimCLR's loop."""
    workers: int = os.cpu_count() or 1
    """Processes of lightly's DataLoader."""
    task: str = "mr"
    """Task of SentEval's protocol; the built-in one if it is missing."""
    task_samples: int = 2000
    """Maximum number of its sentences."""
    folds: int = 10
    """Folds outside and inside; SentEval's are 10."""
    rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class StartupSettings:
    """Commands in fresh processes."""

    commands: tuple[str, ...] = tuple(COMMANDS)
    """Commands to start: modules, such as image.train."""
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class BusySettings:
    """Training and evaluation alone and beside a busy process."""

    image: tuple[str, ...] = ("shapes",)
    """Image datasets."""
    graph: tuple[str, ...] = ("MUTAG", "REDDIT-BINARY")
    """Graph datasets."""
    sentence: tuple[str, ...] = ("pydoc",)
    """Corpora."""
    steps: int = 20
    """Training steps per round."""
    batch_size: int | None = None
    """By default each dataset's own."""
    evaluation: bool = True
    """Also time the evaluation."""
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class RevisionSettings:
    """Commands of an older revision and of this checkout."""

    old: str = "2caac4f"
    """The older revision, which git must have."""
    commands: tuple[str, ...] = ()
    """Commands to compare, by the names in benchmarks/revisions.py; by default all."""
    busy: bool = True
    """Also measure training beside a process that keeps a core busy."""
    rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """Measure speed and memory, part by part, and write a page of all results."""

    only: tuple[Part, ...] = PARTS
    """Parts to measure; results of the others are kept."""
    quick: bool = False
    """Small sizes, few rounds, built-in data: under two minutes."""
    page: bool = False
    """Only write the page and its figures again, from the recorded results."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."""
    output: Path | None = None
    """Folder of the results; by default benchmarks/results/speed, with --quick runs/speed."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ranks: RankSettings = field(default_factory=RankSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    graphs: GraphSettings = field(default_factory=GraphSettings)
    sentences: SentenceSettings = field(default_factory=SentenceSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    references: ReferenceSettings = field(default_factory=ReferenceSettings)
    startup: StartupSettings = field(default_factory=StartupSettings)
    busy: BusySettings = field(default_factory=BusySettings)
    revisions: RevisionSettings = field(default_factory=RevisionSettings)

    def folder(self) -> Path:
        return self.output or Path("runs/speed" if self.quick else "benchmarks/results/speed")


QUICK: dict[str, Any] = {
    "objective": ObjectiveSettings(batches=(128, 1024), large_batches=(4096,), rounds=3),
    "ranks": RankSettings(batch=512, encoder_batch=64, chunks=(16,), rounds=3),
    "images": ImageSettings(batch_size=128, steps=2, rounds=3, workers=0),
    "graphs": GraphSettings(datasets=("motifs",), rounds=3, command_rounds=0),
    "sentences": SentenceSettings(
        dataset="pydoc", embedding_dim=128, hidden=128, batch_size=100, sentences=200
    ),
    "evaluation": EvaluationSettings(
        graphs="motifs",
        task="topic",
        task_samples=600,
        task_dim=64,
        train=2000,
        test=500,
        dim=128,
        epochs=5,
        rounds=2,
    ),
    "references": ReferenceSettings(
        graphs=("motifs",),
        pairs=64,
        sentence_batch=16,
        hidden=32,
        images=16,
        image_steps=2,
        workers=0,
        task_samples=300,
        rounds=2,
    ),
    "startup": StartupSettings(commands=("graph.train", "image.train", "sentence.train"), rounds=3),
    "busy": BusySettings(graph=("motifs",), steps=3, evaluation=False, rounds=3),
    "revisions": RevisionSettings(old="HEAD", commands=("help", "flag"), rounds=3),
}
