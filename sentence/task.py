"""Quick-thoughts as a task for the training loop.

sentence_transformers is imported where a model is loaded or saved: that takes seconds.

Shapes: b sentences of this process · B sentences of the whole batch · D dim.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from core.distributed import is_main_process, local_slice, parallel
from core.io.digests import digest_of
from core.losses.collectives import all_gather
from core.losses.gradient_cache import cached
from core.training.cli import with_flags
from core.training.loop import eval_mode, warn_dropped_samples
from core.training.model_card import CardLines
from core.training.optimizers import make_optimizer
from core.training.run_folder import Run
from core.training.seeding import seed_everything
from core.training.task import Scores, Task
from sentence import held_out
from sentence.config import SentenceConfig
from sentence.corpora import Corpus, find_corpus
from sentence.data import ConsecutiveBatches, EncodedCorpus, SentenceBatch, encode_corpus
from sentence.encoder import TwoEncoders
from sentence.held_out import hold_out
from sentence.objective import quick_thought_loss
from sentence.pair import PaddedTransformer, Pair, split_sentences
from sentence.scoring import EVALUATION, encoder_of, evaluate, load_tasks, sample


class SentenceTask(Task):
    """Train two encoders f and g to score a sentence's neighbours above the other sentences of a batch."""

    card_lines = CardLines(
        "A sentence encoder, trained without labels by quick-thoughts: neighbours in a text are pairs.",
        "import sentence\n\nmodel = sentence.load_encoder(RUN)  # a SentenceTransformer\n"
        'vectors = model.encode(["The door was open."])  # [sentences, dim]',
    )

    def __init__(
        self, configs: Sequence[SentenceConfig], device: torch.device, source: Corpus | None = None
    ) -> None:
        """``source`` is the corpus, by default the one that the config's dataset names."""
        [config] = configs
        self.config, self.device = config, device
        self.clip_norm = config.clip_norm
        source = source or find_corpus(config.dataset, config.data_root, config.download)
        self.tasks, missing = load_tasks(config.tasks, config.data_root, config.download, required=False)
        self.record_fields = {
            "labelled": bool(self.tasks),
            "missing_tasks": missing,
            "evaluation": EVALUATION,
        }
        if config.encoder == "gru" and device.type == "cuda" and config.precision != "float32":
            self.record_fields["gru_precision"] = "float32"  # see GRUEncoder.encode
        tokenizer = tokenizer_of(config)
        corpus = encode_corpus(source, config.vocab_size, strict=config.strict, tokenizer=tokenizer)
        if not self.tasks:
            corpus = hold_out(corpus)
            self.record_fields |= {
                "evaluation": held_out.EVALUATION,
                "held_out_sentences": len(corpus) - trained_sentences(corpus),
            }
        self.corpus = corpus
        self.local = local_slice(config.batch_size)
        self.sentence_batches = ConsecutiveBatches(
            corpus, config.batch_size, config.longest, config.seed, self.local, device
        )
        self.fingerprint = fingerprint(corpus)
        self.steps_per_epoch = self.sentence_batches.steps
        self.samples_per_epoch = self.steps_per_epoch * config.batch_size
        if is_main_process():
            describe(config, source, corpus)
        dropped = trained_sentences(corpus) - self.samples_per_epoch
        warn_dropped_samples(dropped, "sentences", config.batch_size)

        seed_everything(config.seed)
        self.model = make_model(config, corpus.tokenizer, device)
        self.is_transformer = config.encoder == "transformer"
        self.pair = Pair(PaddedTransformer(self.model) if self.is_transformer else self.model[0])
        # Many checkpoints have parameters that the embedding does not use, such as a pooler's.
        self.network = parallel(
            cached(self.pair, config.cache_chunk, split_sentences), device, has_unused=self.is_transformer
        )
        self.encode = encoder_of(self.model, config.precision)
        self.optimizer = make_optimizer("adam", self.model.parameters(), config.lr, weight_decay=0.0)

    def batches(self, epoch: int) -> Iterable[SentenceBatch]:
        return self.sentence_batches.epoch(epoch)

    def training_step(self, batch: SentenceBatch) -> tuple[Tensor, Tensor]:
        config = self.config
        f, g = self.network(batch.ids, batch.lengths)
        with torch.autocast(f.device.type, enabled=False):
            if config.normalize:
                f, g = F.normalize(f, dim=1) / config.temperature, F.normalize(g, dim=1)
            loss = quick_thought_loss(
                f @ all_gather(g).T,  # (b, B)
                batch.positions,
                batch.book,
                self.local.start,
                beta=config.beta,
                tau_plus=config.tau_plus,
                window=config.window,
                denominator=config.denominator,
                floor=-1 / config.temperature if config.normalize else None,
                stop_gradient=config.stop_gradient,
            )
        return loss.unsqueeze(0), f.unsqueeze(0)

    def evaluate(self) -> list[Scores]:
        if not self.tasks:
            return [self._held_out_scores()]
        parts = 1 if self.is_transformer else TwoEncoders.parts
        return [evaluate(self.encode, self.tasks, parts=parts)]

    def _held_out_scores(self) -> Scores:
        """Without labels; none if nothing is held out."""
        config = self.config
        if self.corpus.held_out is None:
            return {}
        return held_out.scores(
            self.pair, self.corpus, config.longest, config.normalize, self.device, config.precision
        )

    def probe_embeddings(self) -> Tensor:
        batch = self._first_batch()
        with eval_mode(self.pair):
            return torch.cat(self.pair(batch.ids, batch.lengths), dim=1).unsqueeze(0)

    def save(self, runs: Sequence[Run]) -> None:
        [run] = runs
        run.save_sample(
            sample(self.pair, self._first_batch(), self.local, self.config.window, self.encode, self.tasks)
        )
        from sentence.quick_thought import save_encoders

        def write(folder: Path) -> None:
            if self.is_transformer:
                self.model.save(str(folder), create_model_card=False)
            else:
                save_encoders(self.model[0], folder)

        run.save_encoder_folder(write)

    def _first_batch(self) -> SentenceBatch:
        return next(iter(self.batches(epoch=1)))


def make_model(config: SentenceConfig, tokenizer: Tokenizer | None, device: torch.device) -> nn.Sequential:
    """The encoder that is trained: a SentenceTransformer, or ``TwoEncoders`` as the only module."""
    if config.encoder == "transformer":
        from sentence.quick_thought import load_model

        model = load_model(config.model, config.download, device)
        model.max_seq_length = config.longest
        return model
    module = TwoEncoders(
        tokenizer, config.encoder, config.embedding_dim, config.hidden, config.bidirectional, config.longest
    )
    return nn.Sequential(module).to(device)


def tokenizer_of(config: SentenceConfig) -> Tokenizer | None:
    """The transformer's own, cutting sentences at ``longest`` tokens; None if one is to be learned."""
    if config.encoder != "transformer":
        return None
    from sentence.checkpoints import fast_tokenizer
    from sentence.quick_thought import load_model

    model = load_model(config.model, config.download, torch.device("cpu"))
    return fast_tokenizer(model, config.model, config.longest)


def describe(config: SentenceConfig, source: Corpus, corpus: EncodedCorpus) -> None:
    """Say on stderr how large the corpus is, what is left out of it, and what the vocabulary lacks."""
    words, tokens = corpus.tokenizer.get_vocab_size(), len(corpus.tokens)
    print(
        f"{config.dataset}: {len(corpus.books) - 1} books, {len(corpus):,} sentences, {tokens:,} tokens; "
        f"{corpus.unknown:,} of them ({corpus.unknown / tokens:.2%}) are not in the vocabulary of {words:,}",
        file=sys.stderr,
    )
    others = f"{source.other_files:,} files that are not .txt or .txt.gz" if source.other_files else ""
    hidden = f"{source.hidden:,} hidden files and folders" if source.hidden else ""
    if others or hidden:
        print(f"left out of the folder: {' and '.join(filter(None, (others, hidden)))}", file=sys.stderr)
    if corpus.held_out is not None:
        print(
            f"held out for the scores without labels: {corpus.held_out.sum():,} sentences, the last ones of "
            f"{np.count_nonzero(corpus.held_out)} books",
            file=sys.stderr,
        )
    if corpus.left_out:
        print(
            f"left out of the text: {corpus.left_out:,} pieces that are not sentences (one word; or "
            "capitals, numbers and signs alone)",
            file=sys.stderr,
        )
    if config.encoder != "transformer" and words < config.vocab_size:
        print(
            with_flags(f"the corpus has fewer words than `vocab_size` {config.vocab_size:,}: all are kept"),
            file=sys.stderr,
        )


def trained_sentences(corpus: EncodedCorpus) -> int:
    return int(np.diff(corpus.trained(), axis=1).sum())


def fingerprint(corpus: EncodedCorpus) -> dict[str, int | str]:
    """What distinguishes the data from others: counts, and a digest of the vocabulary."""
    return {
        "books": len(corpus.books) - 1,
        "sentences": trained_sentences(corpus),
        "tokens": len(corpus.tokens),
        "vocabulary": digest_of([json.dumps(corpus.tokenizer.get_vocab(), sort_keys=True)]),
    }
