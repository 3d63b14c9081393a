"""Score sentence embeddings on tasks.

Shapes: N sentences or pairs · D embedding.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.io.errors import InputError
from core.training.loop import eval_mode
from core.training.progress import progress_bar
from core.training.runtime import autocast
from sentence.config import Protocol
from sentence.data import SentenceBatch
from sentence.encoder import Pair, TwoEncoders
from sentence.tasks import (
    SENTEVAL,
    TASKS,
    Choice,
    Classification,
    PairClassification,
    Similarity,
    Task,
    check_names,
    fetch_senteval,
    load_task,
)
from shared_eval.metrics import SAMPLED, split_similarities
from shared_eval.probes import (
    SENTEVAL_SEED,
    choose_penalties,
    fit_logistic,
    logistic_accuracies,
    nested_logistic_accuracy,
    predict_logistic,
)

FOLDS = 10
TOKENS_AT_ONCE = 16_384
# Penalties C of the logistic regressions: of cross-validated tasks and MSRP, and of TREC, which has its own.
PENALTIES = {
    "senteval": tuple(2.0**power for power in range(-2, 4)),
    "quickthoughts": tuple(2.0**power for power in range(9)),
}
TREC_PENALTIES = {
    "senteval": tuple(2.0**power for power in range(-1, 6)),
    "quickthoughts": PENALTIES["quickthoughts"],
}

Encode = Callable[[Sequence[str]], Tensor]


def encoder_of(model: nn.Sequential, precision: str = "float32") -> Encode:
    """A function from sentences to float32 embeddings [N, D] on the model's device.

    A SentenceTransformer encodes them itself, unless its module is one of ours: that is called directly, on
    batches of equally many tokens, sorted by length. The embeddings are the same.
    """
    first = model[0]
    if not isinstance(first, TwoEncoders):
        return lambda sentences: model.encode(list(sentences), convert_to_tensor=True).float()
    device = next(first.parameters()).device
    return lambda sentences: embed(first, sentences, device, precision)


def embed(module: TwoEncoders, sentences: Sequence[str], device: torch.device, precision: str) -> Tensor:
    """f and g of every sentence in eval mode, concatenated: [N, D]."""
    flat, lengths = module.tokens_of(sentences)
    starts = lengths.cumsum(0) - lengths
    order = lengths.argsort(descending=True, stable=True)
    embeddings = torch.empty(len(sentences), module.get_embedding_dimension(), device=device)
    begin = 0
    with eval_mode(module), autocast(device, precision):
        while begin < len(order):
            count = max(1, TOKENS_AT_ONCE // int(lengths[order[begin]]))
            chosen = order[begin : begin + count]
            ids = torch.cat([flat[starts[i] : starts[i] + lengths[i]] for i in chosen])
            pair = module.embed_pair(ids.to(device), lengths[chosen])
            embeddings[chosen.to(device)] = torch.cat(pair, dim=1)
            begin += count
    return embeddings


def evaluate(
    encode: Encode, tasks: dict[str, Task], protocol: Protocol = "senteval", parts: int = 1
) -> dict[str, float]:
    """Accuracies (and for MSRP F1, for STS-B Spearman's correlation) of every task.

    An embedding is the concatenation of ``parts`` encoders; quick-thoughts' protocol normalises each.
    """
    normalised = (
        encode if protocol == "senteval" else lambda sentences: unit_norm_parts(encode(sentences), parts)
    )
    metrics = {}
    with progress_bar() as progress:
        for name, task in progress.track(tasks.items(), description="tasks"):
            metrics |= {
                f"{name}_{what}": value for what, value in _score(normalised, name, task, protocol).items()
            }
    return metrics


def unit_norm_parts(embeddings: Tensor, parts: int) -> Tensor:
    """Each of the concatenated parts at unit norm: [N, D] -> [N, D]."""
    return F.normalize(embeddings.unflatten(1, (parts, -1)), dim=2).flatten(1)


def _score(encode: Encode, name: str, task: Task, protocol: Protocol) -> dict[str, float]:
    if isinstance(task, Similarity):
        from scipy.stats import spearmanr  # slow to import

        first, second = _each(encode, task.pairs)
        cosines = torch.cosine_similarity(first.double(), second.double())
        return {"spearman": float(spearmanr(cosines.numpy(force=True), task.scores).statistic)}
    if isinstance(task, Choice):
        anchor, positive, other = (unit_norm_parts(part, 1) for part in _each(encode, task.triples))
        return {"accuracy": ((anchor * positive).sum(1) > (anchor * other).sum(1)).double().mean().item()}
    if isinstance(task, PairClassification):
        first, second = _each(encode, task.pairs)
        features = torch.cat([(first - second).abs(), first * second], dim=1)
    else:
        features = encode(task.sentences)
    labels = torch.from_numpy(task.labels).to(features.device)
    penalties = (TREC_PENALTIES if name == "trec" else PENALTIES)[protocol]
    if task.parts is None:
        return {"accuracy": float(nested_logistic_accuracy(features, labels, penalties, FOLDS).mean())}
    train, dev, test = (
        torch.from_numpy(task.parts == part).to(features.device) for part in ("train", "dev", "test")
    )
    if dev.any():
        on_dev = logistic_accuracies(
            features, labels, [train] * len(penalties), [dev] * len(penalties), penalties
        )
        chosen = penalties[on_dev.argmax()]
    else:
        chosen = choose_penalties(features, labels, [train], penalties, FOLDS, SENTEVAL_SEED)[0]
    classes = int(labels.max()) + 1
    coefficients = fit_logistic(
        features, labels, classes, train[None], torch.tensor([chosen], device=features.device)
    )
    predicted = predict_logistic(features[test], coefficients)[0].numpy(force=True)
    truth = labels[test].numpy(force=True)
    metrics = {"accuracy": float((predicted == truth).mean())}
    if isinstance(task, PairClassification):
        from sklearn.metrics import f1_score  # slow to import

        metrics["f1"] = float(f1_score(truth, predicted))
    return metrics


def _each(encode: Encode, tuples: Sequence[tuple[str, ...]]) -> tuple[Tensor, ...]:
    """Embeddings of the first, second, ... sentence of every tuple, encoded together: [N, D] each."""
    columns = list(zip(*tuples, strict=True))
    return encode([sentence for column in columns for sentence in column]).chunk(len(columns))


def sample(
    pair: Pair, batch: SentenceBatch, part: slice, window: int, encode: Encode, tasks: dict[str, Task]
) -> dict[str, Tensor]:
    """Embeddings of a task's sentences with labels, and cosines of neighbours and of others in a batch.

    The task is the first classification task; without one there are cosines alone.
    """
    with eval_mode(pair):
        f, g = (F.normalize(side, dim=1) for side in pair(batch.ids, batch.lengths))
    positions, book = batch.positions[part], batch.book[part]
    distance = (positions - positions[:, None]).abs()
    is_neighbour = (book == book[:, None]) & (distance > 0) & (distance <= window)
    sampled = split_similarities(f @ g.T, is_neighbour, distance > 0)
    for task in tasks.values():
        if isinstance(task, Classification):
            chosen = np.random.default_rng(0).permutation(len(task.sentences))[:SAMPLED]
            sampled["representations"] = encode([task.sentences[i] for i in chosen])
            sampled["labels"] = torch.from_numpy(task.labels[chosen])
            break
    return sampled


def load_tasks(names: Sequence[str], data_root: Path, download: bool) -> tuple[dict[str, Task], list[str]]:
    """The tasks whose data are there, and the names of the others, which a warning names.

    Raises InputError if a name is unknown, or no task has data.
    """
    check_names(names)
    if download and any(name in SENTEVAL for name in names):
        fetch_senteval(data_root)
    tasks = {name: load_task(name, data_root) for name in names}
    missing = [name for name, task in tasks.items() if task is None]
    if missing:
        where = f"no data for {', '.join(missing)} under {data_root / 'SentEval' / 'downstream'}"
        if len(missing) == len(tasks):
            raise InputError(
                f"{where}; set `download` to fetch them, or choose among `tasks` {' '.join(TASKS)}"
            )
        print(f"warning: {where}; the other tasks are evaluated", file=sys.stderr)
    return {name: task for name, task in tasks.items() if task is not None}, missing
