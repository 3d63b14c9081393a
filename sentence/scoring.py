"""Score sentence embeddings on tasks, as SentEval does.

The reference is facebookresearch/SentEval in its scikit-learn mode with ``kfold`` 10.

Equal to it: the samples and their order (``sentence.senteval``), the folds and their seed, the grids of C and
how C is chosen, the features of pairs, which scores are taken, SICK-R's regression, and the means over the
sets of STS 2012 to 2016.

Different:

- The solver. Ours fits each regression to its minimum; scikit-learn's default, lbfgs with tolerance 1e-4,
  stops before it, on MPQA after 24 to 58 of at most 100 iterations. A fold's accuracy then differs by up to
  two samples in a thousand, and another C may be chosen. Of all-MiniLM-L6-v2 the original has 87.47 there and
  ours 87.59, as scikit-learn has with tolerance 1e-8, fold by fold. The protocol ``senteval-lbfgs`` fits as
  the original does, one after the other, in three times the time: 87.47 there, and 82.60 for 82.57 on CR,
  one sample, as embeddings differ in their last digits with the batches. scikit-learn before 0.22 had another
  default, which also penalises the intercept.
- Scores are not rounded to two digits of a percent.
- STS-B is the correlation of cosines with the test part, as for the other STS; there a regression is fitted
  as for SICK-R.
- The correlation of constant predictions is 0, there only for SICK-R and nan elsewhere.
- STS has a third figure, ``all``: the correlation over the pairs of all sets together, which SimCSE and MTEB
  report.

Shapes: N sentences or pairs · D embedding.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.training.loop import eval_mode
from core.training.progress import progress_bar
from core.training.runtime import autocast
from sentence.config import Protocol
from sentence.data import SentenceBatch
from sentence.encoder import TwoEncoders
from sentence.senteval import Classification, Relatedness, Similarity
from sentence.tasks import FOLDS, Choice, TransferTask
from shared_eval.metrics import SAMPLED, split_similarities
from shared_eval.probes import (
    SENTEVAL_SEED,
    Solver,
    best_accuracies,
    choose_penalties,
    logistic_accuracies,
    logistic_predictions,
    nested_logistic_accuracy,
    predict_relatedness,
)
from shared_eval.probes.checks import check_finite

# The rules by which scores are made, in every record; scores by other rules are not averaged with them.
# Change it with the rules.
EVALUATION = "senteval-2"
# The tasks whose mean accuracy Gao et al. (SimCSE, EMNLP 2021) report as the average of transfer tasks.
TRANSFER_TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "msrp")
TOKENS_AT_ONCE = 16_384
# Penalties C of the logistic regressions: of cross-validated tasks and of those with a validation part.
PENALTIES = {
    "senteval": tuple(2.0**power for power in range(-2, 4)),
    "quickthoughts": tuple(2.0**power for power in range(9)),
}
# Of tasks with parts for training and testing alone, where folds of the training part choose: TREC and MSRP.
KFOLD_PENALTIES = {
    "senteval": tuple(2.0**power for power in range(-1, 6)),
    "quickthoughts": PENALTIES["quickthoughts"],
}
for grids in (PENALTIES, KFOLD_PENALTIES):
    grids["senteval-lbfgs"] = grids["senteval"]

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
    tokens = flat.split(lengths.tolist())
    order = lengths.argsort(descending=True, stable=True)
    embeddings = torch.empty(len(sentences), module.get_embedding_dimension(), device=device)
    begin = 0
    with eval_mode(module), autocast(device, precision):
        while begin < len(order):
            count = max(1, TOKENS_AT_ONCE // int(lengths[order[begin]]))
            chosen = order[begin : begin + count]
            ids = torch.cat([tokens[i] for i in chosen.tolist()])
            pair = module.embed_pair(ids.to(device), lengths[chosen])
            embeddings[chosen.to(device)] = torch.cat(pair, dim=1)
            begin += count
    return embeddings


def evaluate(
    encode: Encode, tasks: dict[str, TransferTask], protocol: Protocol = "senteval", parts: int = 1
) -> dict[str, float]:
    """The scores of every task: accuracies, for MSRP also F1, for similarities correlations.

    ``transfer_accuracy`` is the mean accuracy of TRANSFER_TASKS, where all of them are evaluated. An
    embedding is the concatenation of ``parts`` encoders; quick-thoughts' protocol normalises each.

    Raises InputError if an embedding is not finite.
    """
    metrics = {}
    with progress_bar() as progress:
        for name, task in progress.track(tasks.items(), description="tasks"):

            def encode_finite(sentences: Sequence[str], name: str = name) -> Tensor:
                embeddings = encode(sentences)
                check_finite(embeddings, f"the embeddings of task {name}")
                return unit_norm_parts(embeddings, parts) if protocol == "quickthoughts" else embeddings

            scores = _score(encode_finite, task, protocol)
            metrics |= {f"{name}_{what}": value for what, value in scores.items()}
    if set(TRANSFER_TASKS) <= tasks.keys():
        accuracies = [metrics[f"{name}_accuracy"] for name in TRANSFER_TASKS]
        metrics["transfer_accuracy"] = float(np.mean(accuracies))
    return metrics


def unit_norm_parts(embeddings: Tensor, parts: int) -> Tensor:
    """Each of the concatenated parts at unit norm: [N, D] -> [N, D]."""
    return F.normalize(embeddings.unflatten(1, (parts, -1)), dim=2).flatten(1)


def _score(encode: Encode, task: TransferTask, protocol: Protocol) -> dict[str, float]:
    if isinstance(task, Similarity):
        first, second = _each(encode, task.pairs)
        cosines = torch.cosine_similarity(first.double(), second.double()).numpy(force=True)
        return _similarity_scores(cosines, task)
    if isinstance(task, Choice):
        anchor, positive, other = (unit_norm_parts(part, 1) for part in _each(encode, task.triples))
        return {"accuracy": ((anchor * positive).sum(1) > (anchor * other).sum(1)).double().mean().item()}
    if isinstance(task, Classification):
        return _classification_scores(encode(task.sentences), task.labels, task.parts, protocol)
    first, second = _each(encode, task.pairs)
    features = torch.cat([(first - second).abs(), first * second], dim=1)
    if isinstance(task, Relatedness):
        predicted = predict_relatedness(features, task.scores, task.parts)
        truth = task.scores[task.parts == "test"]
        return _correlations(predicted, truth) | {"mse": float(np.square(predicted - truth).mean())}
    return _classification_scores(features, task.labels, task.parts, protocol, with_f1=True)


def _similarity_scores(cosines: np.ndarray, task: Similarity) -> dict[str, float]:
    """Spearman's correlation; of several sets the mean, the mean weighted by pairs, and that of all pairs."""
    over_all = _correlations(cosines, task.scores)
    masks = [task.sets == name for name in np.unique(task.sets)]
    if len(masks) == 1:
        return {"spearman": over_all["spearman"]}
    by_set = [_correlations(cosines[mask], task.scores[mask]) for mask in masks]
    scores = {}
    for what, of_all in over_all.items():
        values = [correlations[what] for correlations in by_set]
        scores[f"mean_{what}"] = float(np.mean(values))
        scores[f"wmean_{what}"] = float(np.average(values, weights=[mask.sum() for mask in masks]))
        scores[f"all_{what}"] = of_all
    return scores


def _correlations(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation, 0 if the predictions are all the same."""
    from scipy.stats import pearsonr, spearmanr  # slow to import

    if (predicted == predicted[0]).all():
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(pearsonr(predicted, truth).statistic),
        "spearman": float(spearmanr(predicted, truth).statistic),
    }


def _classification_scores(
    features: Tensor,
    targets: np.ndarray,
    parts: np.ndarray | None,
    protocol: Protocol,
    with_f1: bool = False,
) -> dict[str, float]:
    """The accuracy of a logistic regression on [N, D], its C chosen by nested folds, by folds or on "dev".

    Also F1 of two classes ``with_f1``.
    """
    labels = torch.from_numpy(targets).to(features.device)
    solver: Solver = "lbfgs" if protocol == "senteval-lbfgs" else "newton"
    if parts is None:
        accuracies = nested_logistic_accuracy(features, labels, PENALTIES[protocol], FOLDS, solver=solver)
        return {"accuracy": float(accuracies.mean())}
    train, dev, test = (
        torch.from_numpy(parts == part).to(features.device) for part in ("train", "dev", "test")
    )
    if dev.any():
        grid = PENALTIES[protocol]
        masks = [dev] * len(grid) + [test] * len(grid)
        accuracies = logistic_accuracies(features, labels, [train] * len(masks), masks, grid * 2, solver)
        on_dev, on_test = np.split(accuracies, 2)
        return {"accuracy": float(on_test[best_accuracies(on_dev)])}
    grid = KFOLD_PENALTIES[protocol]
    chosen = choose_penalties(features, labels, [train], grid, FOLDS, SENTEVAL_SEED, solver)
    [predicted] = logistic_predictions(features, labels, [train], [test], chosen, solver)
    classes, truth = predicted.numpy(force=True), labels[test].numpy(force=True)
    metrics = {"accuracy": float((classes == truth).mean())}
    if with_f1:
        from sklearn.metrics import f1_score  # slow to import

        metrics["f1"] = float(f1_score(truth, classes))
    return metrics


def _each(encode: Encode, tuples: Sequence[tuple[str, ...]]) -> tuple[Tensor, ...]:
    """Embeddings of the first, second, ... sentence of every tuple, encoded together: [N, D] each."""
    columns = list(zip(*tuples, strict=True))
    return encode([sentence for column in columns for sentence in column]).chunk(len(columns))


def sample(
    encoders: nn.Module,
    batch: SentenceBatch,
    part: slice,
    window: int,
    encode: Encode,
    tasks: dict[str, TransferTask],
) -> dict[str, Tensor]:
    """Embeddings of a task's sentences with labels, and cosines of neighbours and of others in a batch.

    The task is the first classification task; without one there are cosines alone.
    """
    with eval_mode(encoders):
        f, g = (F.normalize(side, dim=1) for side in encoders(batch.ids, batch.lengths))
    positions, book = batch.positions[part], batch.book[part]
    distance = (positions - positions[:, None]).abs()
    is_neighbour = (book == book[:, None]) & (distance > 0) & (distance <= window)
    sampled = split_similarities(f @ g.T, is_neighbour, distance > 0)
    sentences, labels = some_sentences(tasks, SAMPLED)
    if sentences:
        sampled |= {"representations": encode(sentences), "labels": torch.from_numpy(labels)}
    return sampled


def some_sentences(tasks: dict[str, TransferTask], count: int) -> tuple[list[str], np.ndarray]:
    """Random sentences of the first classification task and their labels; none without such a task."""
    for task in tasks.values():
        if isinstance(task, Classification):
            chosen = np.random.default_rng(0).permutation(len(task.sentences))[:count]
            return [task.sentences[i] for i in chosen], task.labels[chosen]
    return [], np.empty(0, np.int64)
