"""Evaluate a run's encoder again, or any SentenceTransformer: ``python -m sentence.evaluate RUN|MODEL``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import DataConfig
from core.training.settings import load_config
from sentence.config import SENTEVAL_TASKS, Protocol, SentenceConfig
from sentence.embed import check_source
from sentence.models import find_model, is_run
from shared_eval.outputs import show_scores


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Evaluate a run's sentence encoder, or any SentenceTransformer."""

    model: Annotated[str, tyro.conf.Positional]
    """A run's folder, a SentenceTransformer's folder, or its name at the Hugging Face hub."""
    tasks: tuple[str, ...] = ()
    """Tasks, or all for every one of SentEval's; by default those of the run, or of training, and none with a
    --text."""
    text: str | None = None
    """A text file with one sentence per line, or - for standard input: its first 400 sentences give scores
    without labels, such as how often the next one is found."""
    protocol: Protocol = "senteval"
    """How penalties are chosen and embeddings scaled; figures of senteval and quickthoughts do not compare.
    senteval-lbfgs: each fit by scikit-learn, as in the original harness: nearer to its figures, slower."""
    download: bool = True
    """Download the tasks, and a model that is named, if there is no local copy."""


def evaluate_model(config: EvaluateConfig) -> dict[str, float]:
    """The metrics of a run or model; of a run with its own tasks, what ``result.json`` has."""
    if config.text is not None:
        check_source(config.text)
    find_model(config.model, config.download)
    names, precision, temperature = SENTEVAL_TASKS, "float32", 1.0  # scores are cosines
    if is_run(Path(config.model)):
        trained = load_config(Path(config.model), SentenceConfig)
        names, precision, temperature = trained.tasks, trained.precision, trained.temperature
    tasks = {}
    if config.text is None or config.tasks:
        from sentence.tasks import load_tasks

        tasks, _ = load_tasks(config.tasks or names, config.data_root, config.download)
    if not tasks and config.text is None:
        own = f"; the run's own scores are in {config.model}/README.md" if is_run(Path(config.model)) else ""
        raise InputError(f"there is no task to evaluate on; name some with `tasks`, or a `text`{own}")
    # Imported here because torch takes seconds, and help and errors do not need it.
    from core.training.runtime import choose_device, choose_precision, threads_for
    from sentence.embedding import sentences_in
    from sentence.held_out import MAX_HELD_OUT, scores_of_lines
    from sentence.quick_thought import load_model
    from sentence.scoring import encoder_of, evaluate

    device = choose_device(config.device)
    model = load_model(config.model, config.download, device)
    encode = encoder_of(model, choose_precision(precision, device))
    parts = getattr(model[0], "parts", 1)
    with threads_for(math.inf):
        metrics = evaluate(encode, tasks, config.protocol, parts)
        if config.text is not None:
            metrics |= scores_of_lines(sentences_in(config.text, MAX_HELD_OUT), encode, parts, temperature)
    return metrics


@command
def main(argv: Sequence[str] | None = None) -> None:
    show_scores(evaluate_model(parse(EvaluateConfig, argv, "python -m sentence.evaluate")))


if __name__ == "__main__":
    main()
