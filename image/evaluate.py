"""Evaluate a run's encoder again: ``python -m image.evaluate RUN``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from core.io.digests import is_name_of
from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import DataConfig
from core.training.settings import check_ranges, load_config
from image.config import TENSOR, ImageConfig, Labels, Protocol
from shared_eval.outputs import show_scores


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Evaluate a run's trained encoder again, on the run's dataset or on another."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    dataset: str | None = None
    """Another dataset, for transfer; by default the run's own."""
    labels: Labels = "auto"
    """As in training, of another folder:PATH: its class folders (folders), these if two or more hold all
    images (auto), or none."""
    protocol: Protocol = "frozen"
    """frozen: features of whole images, computed once. paper: of images augmented in every epoch."""
    epochs: int = 100
    """Epochs of the linear probe."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, as a run does that was trained without them."""


def evaluate_run(config: EvaluateConfig) -> dict[str, float]:
    """The metrics of the model in a run's folder; on the run's own dataset, those of ``result.json``."""
    check_ranges({"epochs": config.epochs}, {"epochs": 1})
    if config.dataset is None and config.labels != "auto":
        raise InputError(
            f"`labels` is {config.labels}, which is for another `dataset`; the run's own has the run's labels"
        )
    trained = load_config(config.run, ImageConfig)
    if config.dataset is None and is_name_of(TENSOR, trained.dataset):
        raise InputError(f"{config.run} was trained on a tensor, which is not kept; name a `dataset`")
    scored = replace(
        trained,
        init=None,  # it is needed to train alone
        data_root=config.data_root,
        download=config.download,
        skip_unreadable=config.skip_unreadable or trained.skip_unreadable,
    )
    if config.dataset is not None:
        other = {"dataset": config.dataset, "labels": config.labels, "probe_dataset": None}
        scored = replace(scored, **other)
    scored.check_dataset()
    # Imported here because torch takes seconds, and help and errors do not need it.
    from core.training.launch import with_precision
    from core.training.runtime import choose_device, threads_for
    from image.data import MIN_TEST_IMAGES, load_datasets
    from image.loading import evaluation_size, load_model
    from image.scoring import Scorer

    device = choose_device(config.device)
    scored = replace(scored, image_size=evaluation_size(trained))
    dataset, probed = load_datasets(scored)
    if len(dataset.test) < MIN_TEST_IMAGES:
        raise InputError(f"{scored.dataset} has 1 image; at least {MIN_TEST_IMAGES} are needed")
    if not (probed or dataset).has_labels:
        check_no_probe(config, scored.dataset)
    model = load_model(config.run, trained).to(device)
    datasets = dataset.to(device), probed and probed.to(device)
    scorer = Scorer(model, with_precision(scored, device), *datasets)
    with threads_for(math.inf):
        return scorer.evaluate(config.protocol, config.epochs)


def check_no_probe(config: EvaluateConfig, dataset: str) -> None:
    """Raise InputError if a setting of the linear probe is given; ``dataset`` has no labels for one."""
    for name in ("protocol", "epochs"):
        if (value := getattr(config, name)) != getattr(EvaluateConfig, name):
            raise InputError(
                f"`{name}` is {value}, of the linear probe, but {dataset} has no labels for one; leave it "
                "out, or name a labelled `dataset`"
            )


@command
def main(argv: Sequence[str] | None = None) -> None:
    show_scores(evaluate_run(parse(EvaluateConfig, argv, "python -m image.evaluate")))


if __name__ == "__main__":
    main()
