"""Evaluate a run's encoder again: ``python -m graph.evaluate RUN``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.io.digests import is_name_of
from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import DataConfig
from core.training.records import HEADS
from core.training.settings import load_config
from graph.config import GraphConfig
from graph.names import GIVEN, has_tu_dataset
from shared_eval.outputs import show_scores


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Evaluate a run's trained encoder again, on the run's dataset and folds.

    Without labels the scores are those that need none."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""


def evaluate_run(config: EvaluateConfig) -> dict[str, float]:
    """The metrics of the encoder in a run's folder, as ``result.json`` has them."""
    trained = load_config(config.run, GraphConfig)
    if is_name_of(GIVEN, trained.dataset) and not has_tu_dataset(trained.dataset, config.data_root):
        raise InputError(
            f"the run in {config.run} was trained by train_on, on graphs that are in no file; "
            "result.json there has its scores"
        )
    # Imported here because torch takes seconds, and help and errors do not need it.
    import torch

    from core.training.runtime import choose_device, threads_for
    from graph.batch import make_batches, step_elements
    from graph.data import load_dataset
    from graph.encoder import GIN, InfoGraph
    from graph.loading import load_state, recorded_coding
    from graph.scoring import check_classes, evaluate, evaluate_without_labels

    device = choose_device(config.device)
    coding = recorded_coding(config.run)
    dataset = load_dataset(trained.dataset, config.data_root, config.download, trained.node_features, coding)
    if len(dataset.graphs) < 2:
        raise InputError(f"{trained.dataset} has {len(dataset.graphs)} graph; at least 2 are needed")
    if dataset.labels is not None:
        check_classes(dataset.labels, trained.dataset, "remove its _graph_labels.txt")
    with torch.device("meta"):  # the settings may ask for more memory than the weights need
        model = InfoGraph(GIN(dataset.num_features, trained.hidden, trained.layers))
    load_state(model.encoder, config.run)
    batches = make_batches(dataset, trained.batch_size, [trained.seed], device, trained.layers)
    with threads_for(step_elements(batches, trained.hidden)):  # as in training, so that the metrics are equal
        if dataset.labels is not None:
            [scores] = evaluate(model.encoder.to(device), batches, dataset.labels, [trained.seed])
            return scores
        if not (config.run / HEADS).exists():
            raise InputError(
                f"{trained.dataset} has no labels, and the run in {config.run} was trained with labels and "
                f"has no {HEADS}; put the file with the labels back"
            )
        load_state(model.heads, config.run, HEADS)
        del model.prior  # not saved, and not scored
        [scores] = evaluate_without_labels(model.to(device), batches)
    return scores


@command
def main(argv: Sequence[str] | None = None) -> None:
    show_scores(evaluate_run(parse(EvaluateConfig, argv, "python -m graph.evaluate")))


if __name__ == "__main__":
    main()
