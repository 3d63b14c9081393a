"""Sentence training, encoding and evaluation, timed: ``python -m benchmarks.sentence_speed``.

Beside ours: the same GRUs on padded and on bucketed sentences, ``SentenceTransformer.encode`` on the same
model, and scikit-learn's LogisticRegression for one of the regressions that evaluation fits by the hundred.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.timing import interleaved, summary, synchronise, write_results
from core.config import default_data_root, parse
from core.environment import autocast, choose_device, choose_precision, seed_everything
from core.errors import command
from core.optimizers import make_optimizer
from sentence.corpora import find_corpus
from sentence.data import Batches, SentenceBatch, encode_corpus
from sentence.encoder import GRUEncoder, QuickThought
from sentence.evaluate import PENALTIES, embed, evaluate, load_tasks
from sentence.objective import quick_thought_loss

BUCKETS = 4
SIX_TASKS = ("mr", "cr", "subj", "mpqa", "trec", "msrp")


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Time sentence training, encoding and evaluation."""

    dataset: str = "books"
    embedding_dim: int = 620
    hidden: int = 600
    batch_size: int = 400
    rounds: int = 3
    sentences: int = 2000
    """Sentences encoded a round."""
    tasks: tuple[str, ...] = SIX_TASKS
    """Tasks evaluated, once."""
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    output: Path = Path("benchmarks/results/sentence_speed.json")


def run_padded(encoder: GRUEncoder, ids: Tensor, lengths: Tensor, buckets: int = 1) -> Tensor:
    """The work of an encoder that pads sentences to the longest of their bucket: [T], [B] -> [B, D].

    A bucket holds sentences of like length. The work alone: a backward direction that reads padding first
    is not what ours computes.
    """
    order = lengths.argsort()
    sentences, states = ids.split(lengths.tolist()), []
    for chosen in order.chunk(buckets):
        padded = pad_sequence([sentences[i] for i in chosen.tolist()])
        states.append(encoder.gru(encoder.embedding(padded))[1])
    return torch.cat(states, dim=1).transpose(0, 1).flatten(1)[order.argsort().to(ids.device)]


def loss_of(pair: tuple[Tensor, Tensor], batch: SentenceBatch) -> Tensor:
    f, g = (part.float() for part in pair)
    return quick_thought_loss(f @ g.T, batch.places, batch.book, beta=1.0, tau_plus=0.1)


def training(
    module: QuickThought, batch: SentenceBatch, device: torch.device, precision: str
) -> tuple[dict[str, Callable[[], None]], Callable[[dict[str, float]], None]]:
    """Steps with packed, padded and bucketed sentences, and one that adds up the seconds of its parts."""
    optimizer = make_optimizer("adam", module.parameters(), 5e-4, 0.0)

    def finish(loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()

    def packed() -> None:
        with autocast(device, precision):
            pair = module.embed_pair(batch.ids, batch.lengths)
        finish(loss_of(pair, batch))

    def padded(buckets: int) -> None:
        with autocast(device, precision):
            pair = tuple(
                run_padded(encoder, batch.ids, batch.lengths, buckets) for encoder in (module.f, module.g)
            )
        finish(loss_of(pair, batch))

    def in_parts(seconds: dict[str, float]) -> None:
        started = time.perf_counter()

        def done(part: str) -> None:
            nonlocal started
            synchronise(device)
            now = time.perf_counter()
            seconds[part] = seconds.get(part, 0.0) + now - started
            started = now

        with autocast(device, precision):
            pair = module.embed_pair(batch.ids, batch.lengths)
        done("encoders, forward")
        leaves = [part.detach().requires_grad_() for part in pair]
        loss = loss_of(tuple(leaves), batch)
        loss.backward()
        done("objective")
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(pair, [leaf.grad for leaf in leaves])
        done("encoders, backward")
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
        done("clipping and optimizer")

    subjects = {"packed": packed, "padded": lambda: padded(1), "bucketed": lambda: padded(BUCKETS)}
    return subjects, in_parts


def encoding(
    module: QuickThought, sentences: list[str], device: torch.device
) -> dict[str, Callable[[], object]]:
    """Encoding for evaluation: ours, and sentence-transformers' own loop over the same module."""
    model = SentenceTransformer(modules=[module], device=str(device))
    return {
        "ours": lambda: embed(module, sentences, device, "float32"),
        "SentenceTransformer.encode": lambda: model.encode(
            sentences, convert_to_tensor=True, show_progress_bar=False
        ),
    }


def seconds_of(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - started


def page_of(results: dict) -> str:
    """The results as a page of Markdown."""
    settings, train, encode = results["settings"], results["training"], results["encoding"]
    lines = [
        "# Speed of the sentence wing",
        "",
        "Quick-thoughts with two bidirectional GRUs of {hidden} a direction on word embeddings of "
        "{embedding_dim}, {precision}, batches of {batch_size} sentences of {dataset}; medians of {rounds} "
        "interleaved rounds. "
        "Again: `python -m benchmarks.sentence_speed`.".format(**settings),
        "",
        "| training | tokens a second | time beside ours |",
        "| --- | --- | --- |",
        *(
            f"| {what} | {train[name]['tokens_per_second']} | {train['ratio'].get(name, 1)} |"
            for name, what in (
                ("packed", "packed (ours)"),
                ("padded", "padded to the longest sentence"),
                ("bucketed", f"padded in {BUCKETS} buckets of like length"),
            )
        ),
        "",
        f"{train['padding']:.0%} of a padded batch is padding.",
        "",
        "| part of our step | milliseconds | share |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {part} | {value['milliseconds']} | {value['share']:.1%} |"
        for part, value in train["parts"].items()
    ]
    lines += ["", "| encoding for evaluation, float32 | sentences a second |", "| --- | --- |"]
    lines += [
        f"| {name} | {encode[name]['sentences_per_second']} |"
        for name in ("ours", "SentenceTransformer.encode")
    ]
    lines += [f"| **ratio** | {encode['ratio']} |", "", "| evaluation | seconds |", "| --- | --- |"]
    evaluation = results["evaluation"]
    lines += [f"| {name} | {value} |" for name, value in evaluation["seconds"].items()]
    lines += [
        f"| **all** | {round(sum(evaluation['seconds'].values()), 1)} |",
        "",
        f"Encoding is {evaluation['encoding_share']:.0%} of it, the regressions are the rest. One fit of "
        f"scikit-learn's LogisticRegression to nine tenths of the largest cross-validated task takes "
        f"{evaluation['one_fit_seconds']} s; that task has {evaluation['fits']} of them, "
        f"{evaluation['one_by_one_ratio']} times what ours takes for all, encoding included.",
    ]
    return "\n".join(lines) + "\n"


@command
def main() -> None:
    config = parse(SpeedConfig, None, "python -m benchmarks.sentence_speed")
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    corpus = encode_corpus(find_corpus(config.dataset, default_data_root()), 50_000)
    seed_everything(0)
    module = QuickThought(corpus.tokenizer, "gru", config.embedding_dim, config.hidden, True, 30).to(device)
    batch = next(Batches(corpus, config.batch_size, 30, 0, slice(None), device).of_epoch(1))
    results = {}

    subjects, in_parts = training(module, batch, device, precision)
    tokens = int(batch.lengths.sum())
    times = {name: summary(seconds) for name, seconds in interleaved(subjects, config.rounds).items()}
    for value in times.values():
        value["tokens_per_second"] = round(tokens / value["median_seconds"])
    parts: dict[str, float] = {}
    for _ in range(config.rounds):
        in_parts(parts)
    total = sum(parts.values())
    results["training"] = times | {
        "ratio": {
            name: round(times[name]["median_seconds"] / times["packed"]["median_seconds"], 2)
            for name in ("padded", "bucketed")
        },
        "padding": 1 - tokens / (len(batch.lengths) * int(batch.lengths.max())),
        "parts": {
            name: {"milliseconds": round(1000 * value / config.rounds, 1), "share": round(value / total, 4)}
            for name, value in parts.items()
        },
    }
    print(f"training: {times['packed']['tokens_per_second']} tokens a second")

    tasks, _ = load_tasks(config.tasks, default_data_root(), download=False)
    classified = {name: task for name, task in tasks.items() if hasattr(task, "sentences")}
    largest = max(classified, key=lambda name: len(tasks[name].sentences))
    sentences = tasks[largest].sentences[: config.sentences]
    seconds = interleaved(encoding(module, sentences, device), config.rounds)
    encode = {name: summary(values) for name, values in seconds.items()}
    for value in encode.values():
        value["sentences_per_second"] = round(len(sentences) / value["median_seconds"])
    theirs, ours = (encode[name]["median_seconds"] for name in ("SentenceTransformer.encode", "ours"))
    results["encoding"] = encode | {"ratio": round(theirs / ours, 2)}
    print(f"encoding: {encode['ours']['sentences_per_second']} sentences a second, ratio {theirs / ours:.1f}")

    spent = {}
    encoded_seconds = 0.0

    def encode_timed(texts: list[str]) -> Tensor:
        nonlocal encoded_seconds
        started = time.perf_counter()
        found = embed(module, texts, device, precision)
        synchronise(device)
        encoded_seconds += time.perf_counter() - started
        return found

    for name, task in tasks.items():
        spent[name] = round(seconds_of(lambda task=task, name=name: evaluate(encode_timed, {name: task})), 1)
        print(f"evaluation of {name}: {spent[name]} s")
    task = tasks[largest]
    features = embed(module, task.sentences, device, precision).cpu().numpy()
    first = range(0, len(features), 10)
    kept = [i for i in range(len(features)) if i not in set(first)]
    one_fit = seconds_of(lambda: LogisticRegression(C=1.0).fit(features[kept], task.labels[kept]))
    fits = 10 * 10 * len(PENALTIES["senteval"]) + 10
    results["evaluation"] = {
        "seconds": spent,
        "encoding_share": round(encoded_seconds / sum(spent.values()), 3),
        "one_fit_seconds": round(one_fit, 2),
        "fits": fits,
        "one_by_one_ratio": round(fits * one_fit / spent[largest], 1),
    }
    names = ("dataset", "embedding_dim", "hidden", "batch_size", "rounds")
    results["settings"] = {name: getattr(config, name) for name in names} | {"precision": precision}
    write_results(config.output, results, page_of(results), device)


if __name__ == "__main__":
    main()
