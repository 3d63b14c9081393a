"""How many of a sentence's hardest negatives stand close to it in the text, before and after training.

    python -m benchmarks.false_negatives runs/sentence/books --output false-negatives.json

Neighbours are positives; sentences a little further away are negatives, although they are often about the
same thing. Without labels, how close they are is what can be known of false negatives.

Shapes: B sentences of a batch · A anchors.
"""

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.config import default_data_root
from core.training.progress import progress_bar
from core.training.settings import load_config
from sentence.config import SentenceConfig
from shared_eval.outputs import show, text_table, write_output
from shared_eval.records import find_records

if TYPE_CHECKING:
    from torch import Tensor

    from sentence.task import SentenceTask

CHANCE = "all"  # negatives: the share that a random one has
TOP = (1, 10)
BETAS = (0.5, 1.0, 2.0)
PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class FalseNegativeSettings:
    """What share of sentences' hardest negatives stand close to them in the text."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Finished runs of sentences, or folders of them."""
    distance: int = 5
    """Sentences to each side that count as close."""
    batches: int = 50
    """Batches of a run's first epoch at most, on which each encoder is measured."""
    output: Path | None = None
    """File for the shares of every run, in JSON."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder with local copies of the datasets; $HCL_DATA sets the default."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    settings = parse(FalseNegativeSettings, argv, "python -m benchmarks.false_negatives")
    folders = [path.parent for path in find_records(settings.runs)]
    if not folders:
        raise InputError(f"{' '.join(map(str, settings.runs))} has no finished run")
    configs = [load_config(folder, SentenceConfig) for folder in folders]
    with progress_bar() as progress:
        pairs = list(zip(folders, configs, strict=True))
        runs = [measured(*pair, settings) for pair in progress.track(pairs, description="runs")]
    if settings.output is not None:
        import torch

        from core.training.provenance import describe_environment

        environment = describe_environment(torch.device("cpu"))
        content = {"settings": asdict(settings), "environment": environment, "runs": runs}
        write_output(settings.output, json.dumps(content, indent=2, default=str) + "\n")
    show(text_table(*table_of(runs)))


def measured(folder: Path, config: SentenceConfig, settings: FalseNegativeSettings) -> dict[str, Any]:
    """The shares of a run's encoder as its seed makes it, and of the trained one, on the same batches."""
    from core.training.runtime import choose_device
    from sentence.task import SentenceTask

    device = choose_device(config.device)
    task = SentenceTask([replace(config, data_root=settings.data_root)], device)
    before = mean_shares(task, settings)
    load_trained(folder, task)
    return {
        "run": str(folder),
        "dataset": config.dataset,
        "objective": config.objective_label(),
        "seed": config.seed,
        "before": before,
        "after": mean_shares(task, settings),
    }


def load_trained(folder: Path, task: "SentenceTask") -> None:
    """Give a task's encoders the weights of a run; raises InputError if the run has other words."""
    from sentence.quick_thought import load_model

    model = load_model(str(folder), False, task.device)
    if model.tokenizer.get_vocab() != task.corpus.tokenizer.get_vocab():
        raise InputError(f"{folder} was trained on another text than {task.config.dataset} is now")
    task.model.load_state_dict(model.state_dict())


def mean_shares(task: "SentenceTask", settings: FalseNegativeSettings) -> dict[str, float]:
    """``shares_of`` the first batches of a task, averaged over them."""
    from itertools import islice

    from core.training.loop import eval_mode
    from sentence.objective import neighbour_scores

    config = task.config
    shares = []
    with eval_mode(task.encoders):
        for batch in islice(task.batches(epoch=1), settings.batches):
            f, g = task.encoders(batch.ids, batch.lengths)
            scores = neighbour_scores(f, g, config.temperature)
            shares.append(shares_of(scores, batch.positions, batch.book, config.window, settings.distance))
    return {name: statistics.mean(share[name] for share in shares) for name in shares[0]}


def shares_of(
    scores: "Tensor", positions: "Tensor", book: "Tensor", window: int, distance: int
) -> dict[str, float]:
    """The share of negatives that are at most ``distance`` sentences away, averaged over the anchors.

    An anchor's negatives are the other sentences of the batch, except its neighbours in the ``window``. The
    share is that of all negatives (``all``: what chance gives), of those with the highest scores, and of all
    as the objective weighs them at some betas, w_j = e^{beta s_j} / sum_k e^{beta s_k}.

    Args:
        scores: [B, B], of anchors (rows) and candidates.
        positions: [B], of the sentences in the text.
        book: [B].

    Raises InputError if no anchor has enough negatives.
    """
    import torch

    away = (positions - positions[:, None]).abs().masked_fill(book != book[:, None], distance + window + 1)
    negatives = away > window
    enough = negatives.sum(dim=1) >= max(TOP)
    if not enough.any():
        raise InputError(f"no sentence of a batch of {len(scores)} has {max(TOP)} negatives")
    scores, negatives = scores.double()[enough], negatives[enough]
    is_close = negatives & (away[enough] <= distance)
    scores = scores.masked_fill(~negatives, -torch.inf)
    order = scores.topk(max(TOP), dim=1).indices
    shares = {CHANCE: is_close.sum(dim=1) / negatives.sum(dim=1)}
    shares |= {f"top {k}": is_close.gather(1, order[:, :k]).double().mean(dim=1) for k in TOP}
    for beta in BETAS:
        weights = torch.softmax(beta * scores, dim=1)
        shares[f"beta {beta:g}"] = (weights * is_close).sum(dim=1)
    return {name: share.double().mean().item() for name, share in shares.items()}


def table_of(runs: Sequence[dict[str, Any]]) -> tuple[list[str], Iterator[list[str]]]:
    """Head and rows: percent, mean ± standard deviation over seeds, of each objective before and after."""
    names = list(runs[0]["before"])
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["dataset"], run["objective"]), []).append(run)
    rows = (
        [*group, when, str(len(own)), *(spread(run[when][name] for run in own) for name in names)]
        for group, own in groups.items()
        for when in ("before", "after")
    )
    return ["dataset", "objective", "training", "runs", *names], rows


def spread(shares: Iterable[float]) -> str:
    """Mean ± standard deviation, in percent."""
    values = [PERCENT * share for share in shares]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
