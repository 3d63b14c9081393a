"""The commands that people start."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command that people start."""

    unknown: tuple[str, ...]  # flags that name something which does not exist
    works_with: tuple[str, ...]  # modules that it imports for its work


COMMANDS = {
    "graph.train": Command(("--dataset", "no-such-dataset"), ("core.training.launch", "graph.task")),
    "graph.evaluate": Command(("no-such-run",), ("graph.scoring",)),
    "graph.embed": Command(("no-such-run", "motifs", "--output", "x.npz"), ("graph.embedding",)),
    "image.train": Command(("--dataset", "no-such-dataset"), ("core.training.launch", "image.task")),
    "image.evaluate": Command(("no-such-run",), ("image.scoring",)),
    "image.embed": Command(("no-such-run", "digits", "--output", "x.npz"), ("image.embedding",)),
    "image.cache": Command(("--trim", "no-such-size"), ("core.io.cache",)),
    "image.export": Command(
        ("no-such-run", "--to", "torchvision", "--output", "x.safetensors"), ("image.exporting",)
    ),
    "sentence.train": Command(("--dataset", "no-such-dataset"), ("core.training.launch", "sentence.task")),
    "sentence.evaluate": Command(("./no-such-folder",), ("sentence.quick_thought", "sentence.scoring")),
    "sentence.embed": Command(
        ("./no-such-run", "no-such-file", "--output", "vectors.parquet"), ("sentence.embedding",)
    ),
    "shared_eval.compare": Command(("no-such-run", "another"), ("shared_eval.comparison",)),
    "shared_eval.records": Command(("no-such-folder",), ("pandas",)),
    "shared_eval.report": Command(("no-such-folder",), ("shared_eval.report_page",)),
    "shared_eval.reproduce": Command(("no-such-table",), ("shared_eval.reproduce.results",)),
    "benchmarks": Command(("--page", "--output", "no-such-folder"), ("benchmarks.suite",)),
}
