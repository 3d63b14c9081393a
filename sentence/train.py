"""Train quick-thought embeddings on running text: ``python -m sentence.train --dataset books``."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor, nn

from core.distributed import is_main_process, local_slice, parallel
from core.io.digests import digest_of
from core.io.errors import InputError
from core.losses.collectives import all_gather
from core.losses.gradient_cache import cached
from core.training.cli import command, flag, parse_config
from core.training.config import TrainConfig, hardness_of
from core.training.launch import launch
from core.training.loop import eval_mode, fit, warn_dropped_samples
from core.training.optimizers import make_optimizer
from core.training.run_folder import Run
from core.training.seeding import seed_everything
from sentence.corpora import find_corpus
from sentence.data import ConsecutiveBatches, EncodedCorpus, SentenceBatch, encode_corpus
from sentence.encoder import PaddedTransformer, Pair, QuickThought, split_sentences
from sentence.evaluate import encoder_of, evaluate, load_model, load_tasks, sample
from sentence.objective import Denominator, quick_thought_loss
from sentence.tasks import EMBEDDED, SENTEVAL

DEFAULT_TEMPERATURE = 0.1  # of normalised scores


@dataclass(frozen=True, kw_only=True)
class SentenceConfig(TrainConfig):
    """Train quick-thought sentence embeddings, evaluate them on tasks, and record both."""

    plain_objective: ClassVar[str] = "quickthought"
    not_identity: ClassVar[frozenset[str]] = TrainConfig.not_identity | {"strict"}

    dataset: str = "pydoc"
    """pydoc (embedded), books, bookcorpus, wikitext-103, or folder:PATH (a .txt or .txt.gz a book)."""
    objective: Literal["quickthought", "debiased", "hard"] = "hard"
    """Named points of one formula: beta 0 and tau_plus 0, tau_plus > 0, beta > 0."""
    temperature: float | None = None
    """Divides the cosines of --normalize (0.1 by default); inner products have none."""
    normalize: bool = False
    """Score by cosines instead of inner products."""
    denominator: Denominator = "negatives"
    """all: the sentence itself, at score 0, and its other positives count too, as in quick-thoughts' code."""
    stop_gradient: bool = False
    """Treat the negatives' weights as constants."""
    window: int = 1
    """How many sentences to each side are positives."""
    epochs: int = 1
    batch_size: int = 400
    cache_chunk: int | None = None
    """Most sentences that a process encodes at a time (gradient caching)."""
    lr: float = 5e-4
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    encoder: Literal["gru", "bow", "transformer"] = "gru"
    """gru, bow (mean of word embeddings), or a transformer, fine-tuned from --model."""
    model: str | None = None
    """The transformer's checkpoint: a folder, or with --download a name at the Hugging Face hub."""
    embedding_dim: int = 620
    """Numbers of a word embedding."""
    hidden: int = 600
    """Numbers of the GRU's state, in each direction."""
    bidirectional: bool = True
    """Whether the GRU reads both ways."""
    vocab_size: int = 50_000
    """Most words of the vocabulary, learnt from the corpus."""
    longest: int = 30
    """Tokens that a sentence is cut at."""
    clip_norm: float = 5.0
    """Norm that a step's gradient is cut to."""
    strict: bool = False
    """End at the first fault of the corpus (bytes that are no UTF-8, books without neighbours)."""
    tasks: tuple[str, ...] = tuple(SENTEVAL)
    """Tasks to evaluate on."""

    def checked(self) -> "SentenceConfig":
        if self.batch_size < 3:
            raise InputError(
                f"--batch-size is {self.batch_size}; at least 3 sentences are needed for negatives"
            )
        for name in ("window", "embedding_dim", "hidden", "vocab_size", "longest", "cache_chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{flag(name)} is {getattr(self, name)}; it must be at least 1")
        if not self.clip_norm > 0:
            raise InputError(f"--clip-norm is {self.clip_norm}; it must be above 0")
        if self.temperature is not None and not self.normalize:
            raise InputError(
                f"--temperature is {self.temperature:g}, but scores are inner products, which have none; "
                "leave it out, or add --normalize"
            )
        if self.temperature is not None and not self.temperature > 0:
            raise InputError(f"--temperature is {self.temperature:g}; it must be above 0")
        if (self.encoder == "transformer") != (self.model is not None):
            raise InputError("--encoder transformer and --model go together: the checkpoint to fine-tune")
        if self.normalize and self.temperature is None:
            return replace(self, temperature=DEFAULT_TEMPERATURE).checked()
        return super().checked()

    def objective_slug(self) -> str:
        details = [self.unusual_encoder(), self.normalize and "normalized"]
        details += [self.denominator == "all" and "all", self.stop_gradient and "stopgradient"]
        return "-".join([super().objective_slug(), *filter(None, details)])

    def objective_record(self) -> dict[str, Any]:
        names = ("stop_gradient", "normalize", "denominator", "window")
        settings = {name: getattr(self, name) for name in names}
        return super().objective_record() | settings | {"encoder": self.unusual_encoder()}

    def unusual_encoder(self) -> str | None:
        """The encoder, or its checkpoint, where it is not the one that the dataset's name brings."""
        if self.encoder == recipe(self.dataset).encoder:
            return None
        return Path(self.model).name if self.model else self.encoder


def recipe(dataset: str = "pydoc", objective: str = "hard", encoder: str = "gru") -> SentenceConfig:
    """Quick-thoughts' settings, and small ones for the embedded corpus, made for two cores."""
    beta, tau_plus = hardness_of(objective)
    config = SentenceConfig(dataset=dataset, beta=beta, tau_plus=tau_plus)
    if encoder == "transformer":
        config = replace(config, batch_size=64, lr=2e-5, normalize=True)
    if dataset != "pydoc":
        return config
    config = replace(config, tasks=tuple(EMBEDDED))
    if encoder == "transformer":
        return config
    # A GRU has too few sentences to learn from here.
    return replace(
        config,
        encoder="bow",
        embedding_dim=128,
        hidden=128,
        epochs=30,
        batch_size=100,
        lr=5e-3,
        precision="float32",
    )


def make_model(
    config: SentenceConfig, tokenizer: Tokenizer | None, device: torch.device
) -> SentenceTransformer:
    """The encoder that is trained, as the SentenceTransformer that it will be saved as."""
    if config.encoder == "transformer":
        model = load_model(config.model, config.download, device)
        model.max_seq_length = config.longest
        return model
    module = QuickThought(
        tokenizer, config.encoder, config.embedding_dim, config.hidden, config.bidirectional, config.longest
    )
    return SentenceTransformer(modules=[module], device=str(device))


def tokenizer_of(config: SentenceConfig) -> Tokenizer | None:
    """The transformer's own, cutting sentences at ``longest`` tokens; None where one is to be learnt."""
    if config.encoder != "transformer":
        return None
    model = load_model(config.model, config.download, torch.device("cpu"))
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.longest)
    return tokenizer


def describe(config: SentenceConfig, corpus: EncodedCorpus) -> None:
    """Say on stderr how large the corpus is, and what the vocabulary leaves out of it."""
    words, tokens = corpus.tokenizer.get_vocab_size(), len(corpus.tokens)
    print(
        f"{config.dataset}: {len(corpus.books) - 1} books, {len(corpus):,} sentences, {tokens:,} tokens; "
        f"{corpus.unknown:,} of them ({corpus.unknown / tokens:.2%}) are not in the vocabulary of {words:,}",
        file=sys.stderr,
    )
    if config.encoder != "transformer" and words < config.vocab_size:
        print(
            f"the corpus has fewer words than --vocab-size {config.vocab_size:,}: all are kept",
            file=sys.stderr,
        )


def loss_function(config: SentenceConfig, network: nn.Module, first: int):
    """What takes a batch to its loss, scores of this process's sentences against everybody's, and to f."""

    def loss_of(batch: SentenceBatch) -> tuple[Tensor, Tensor]:
        f, g = network(batch.ids, batch.lengths)
        with torch.autocast(f.device.type, enabled=False):
            if config.normalize:
                f, g = F.normalize(f, dim=1) / config.temperature, F.normalize(g, dim=1)
            loss = quick_thought_loss(
                f @ all_gather(g).T,
                batch.positions,
                batch.book,
                first,
                beta=config.beta,
                tau_plus=config.tau_plus,
                window=config.window,
                denominator=config.denominator,
                floor=-1 / config.temperature if config.normalize else None,
                stop_gradient=config.stop_gradient,
            )
        return loss, f

    return loss_of


def fingerprint(corpus: EncodedCorpus) -> dict[str, int | str]:
    """What tells other data from those that a run began with: counts, and a digest of the vocabulary."""
    return {
        "books": len(corpus.books) - 1,
        "sentences": len(corpus),
        "tokens": len(corpus.tokens),
        "vocabulary": digest_of([json.dumps(corpus.tokenizer.get_vocab(), sort_keys=True)]),
    }


def train(run: Run, config: SentenceConfig, device: torch.device) -> None:
    """Train, evaluate and record: everything that ``run``'s folder is to hold."""
    found = find_corpus(config.dataset, config.data_root, config.download)
    tasks, missing = load_tasks(config.tasks, config.data_root, config.download)
    tokenizer = tokenizer_of(config)
    corpus = encode_corpus(found, config.vocab_size, strict=config.strict, tokenizer=tokenizer)
    part = local_slice(config.batch_size)
    batches = ConsecutiveBatches(corpus, config.batch_size, config.longest, config.seed, part, device)
    if is_main_process():
        describe(config, corpus)
    warn_dropped_samples(len(corpus) - batches.steps * config.batch_size, "sentences", config.batch_size)

    seed_everything(config.seed)
    model = make_model(config, corpus.tokenizer, device)
    is_transformer = config.encoder == "transformer"
    pair = Pair(PaddedTransformer(model) if is_transformer else model[0])
    network = cached(pair, config.cache_chunk, split_sentences)
    network = parallel(network, device, has_unused=is_transformer)  # such as the pooler of many a checkpoint
    encode = encoder_of(model, config.precision)
    optimizer = make_optimizer("adam", model.parameters(), config.lr, weight_decay=0.0)

    def score() -> dict[str, float]:
        return evaluate(encode, tasks, parts=1 if is_transformer else QuickThought.parts)

    def represent() -> Tensor:
        batch = next(batches.of_epoch(1))
        with eval_mode(pair):
            return torch.cat(pair(batch.ids, batch.lengths), dim=1)

    trained = fit(
        run,
        model,
        optimizer,
        batches.of_epoch,
        loss_function(config, network, part.start or 0),
        lambda epoch: {} if epoch else score(),
        represent,
        data=fingerprint(corpus),
        steps=batches.steps,
        device=device,
        samples_per_epoch=batches.steps * config.batch_size,
        clip_norm=config.clip_norm,
    )
    if is_main_process():
        started = time.perf_counter()
        metrics = score()
        run.save_sample(sample(pair, next(batches.of_epoch(1)), part, config.window, encode, tasks))
        run.save_encoder_folder(lambda folder: model.save(str(folder), create_model_card=False))
        eval_seconds = time.perf_counter() - started
        run.finish(metrics, trained, eval_seconds=eval_seconds, device=device, missing_tasks=missing)


@command
def main(argv: Sequence[str] | None = None) -> None:
    launch("sentence", train, parse_config(SentenceConfig, recipe, argv, "python -m sentence.train"))


if __name__ == "__main__":
    main()
