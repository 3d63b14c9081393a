"""Sentence training compared with padded batches, encoding with ``SentenceTransformer.encode``."""

from collections.abc import Callable

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.measure import Findings, Stopwatch, Timer, operator_seconds, untimed
from benchmarks.settings import SentenceSettings
from core.io.errors import InputError
from core.training.config import default_data_root
from core.training.optimizers import make_optimizer
from core.training.runtime import autocast, choose_precision
from core.training.seeding import seed_everything
from sentence.corpora import find_corpus
from sentence.data import ConsecutiveBatches, EncodedCorpus, SentenceBatch, encode_corpus
from sentence.encoder import GRUEncoder, QuickThought
from sentence.objective import quick_thought_loss
from sentence.scoring import embed
from sentence.tasks import load_task

TITLE = "Sentence training and encoding"
ABOUT = (
    "Quick-thoughts with two bidirectional GRUs. Ours packs sentences. The same GRUs run on sentences "
    "padded to the longest of the batch, and to the longest of four buckets of similar length. Encoding, in "
    "float32, is that of evaluation, on sentences of the built-in topic task."
)
BUCKETS = 4
BUILT_IN = "pydoc"


def run_padded(encoder: GRUEncoder, ids: Tensor, lengths: Tensor, buckets: int = 1) -> Tensor:
    """Encode with sentences padded to the longest of their bucket: [T], [B] -> [B, D].

    A bucket has sentences of similar length. Only the amount of work is that of ours, not the values: the
    backward direction reads padding first.
    """
    order = lengths.argsort()
    sentences, states = ids.split(lengths.tolist()), []
    for chosen in order.chunk(buckets):
        padded = pad_sequence([sentences[i] for i in chosen.tolist()])
        states.append(encoder.gru(encoder.embedding(padded))[1])
    return torch.cat(states, dim=1).transpose(0, 1).flatten(1)[order.argsort().to(ids.device)]


def loss_of(pair: tuple[Tensor, Tensor], batch: SentenceBatch) -> Tensor:
    f, g = (part.float() for part in pair)
    return quick_thought_loss(f @ g.T, batch.positions, batch.book, beta=1.0, tau_plus=0.1)


class SentenceSteps:
    """Training steps of quick-thoughts on one batch, with an optional timer of their parts."""

    def __init__(
        self, module: QuickThought, batch: SentenceBatch, device: torch.device, precision: str
    ) -> None:
        self.module, self.batch, self.device, self.precision = module, batch, device, precision
        self.optimizer = make_optimizer("adam", module.parameters(), 5e-4, 0.0)

    def packed(self) -> tuple[Tensor, Tensor]:
        return self.module.embed_pair(self.batch.ids, self.batch.lengths)

    def padded(self, buckets: int) -> tuple[Tensor, Tensor]:
        encoders = (self.module.f, self.module.g)
        return tuple(run_padded(one, self.batch.ids, self.batch.lengths, buckets) for one in encoders)

    def step(self, embed_pair: Callable[[], tuple[Tensor, Tensor]], timer: Timer = untimed) -> None:
        with timer("encoders, forward"), autocast(self.device, self.precision):
            pair = embed_pair()
        with timer("objective"):
            leaves = [part.detach().requires_grad_() for part in pair]
            loss_of(tuple(leaves), self.batch).backward()
        with timer("encoders, backward"):
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(pair, [leaf.grad for leaf in leaves])
        with timer("clipping and optimizer"):
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
            self.optimizer.step()


def corpus_of(settings: SentenceSettings, findings: Findings) -> EncodedCorpus:
    """The corpus of the settings, or the built-in one if that is missing, with a note."""
    try:
        corpus = find_corpus(settings.dataset, default_data_root())
    except InputError as error:
        findings.notes.append(f"Measured on {BUILT_IN} instead: {error}.")
        corpus = find_corpus(BUILT_IN, default_data_root())
    return encode_corpus(corpus, 50_000)


def measure(settings: SentenceSettings, device: torch.device, findings: Findings) -> None:
    """Measure training steps on the first batch, then encoding of the topic task's sentences."""
    precision = choose_precision(settings.precision, device)
    corpus = corpus_of(settings, findings)
    findings.settings |= {"precision": precision, "vocabulary": corpus.tokenizer.get_vocab_size()}
    seed_everything(0)
    module = QuickThought(
        corpus.tokenizer, "gru", settings.embedding_dim, settings.hidden, bidirectional=True, longest=30
    ).to(device)
    batch = next(ConsecutiveBatches(corpus, settings.batch_size, 30, 0, slice(None), device).epoch(1))
    steps = SentenceSteps(module, batch, device, precision)
    subjects = {
        "ours, packed": lambda: steps.step(steps.packed),
        "padded": lambda: steps.step(lambda: steps.padded(1)),
        f"padded in {BUCKETS} buckets": lambda: steps.step(lambda: steps.padded(BUCKETS)),
    }
    tokens = int(batch.lengths.sum())
    findings.compare("training", subjects, settings.rounds, "tokens", tokens)
    padding = 1 - tokens / (len(batch.lengths) * int(batch.lengths.max()))
    findings.notes.append(f"{padding:.0%} of a padded batch is padding.")
    stopwatch = Stopwatch(device)
    for _ in range(settings.rounds):
        steps.step(steps.packed, stopwatch)
    findings.share("our step, by part", stopwatch.seconds)
    findings.share("our step, by operator", operator_seconds(subjects["ours, packed"], device, steps=1))
    findings.note_waits("a step", subjects["ours, packed"], device)

    sentences = load_task("topic", default_data_root()).sentences[: settings.sentences]
    model = SentenceTransformer(modules=[module], device=str(device))
    encoding = {
        "ours": lambda: embed(module, sentences, device, "float32"),
        "SentenceTransformer.encode": lambda: model.encode(
            sentences, convert_to_tensor=True, show_progress_bar=False
        ),
    }
    findings.compare("encoding", encoding, settings.rounds, "sentences", len(sentences))
