"""Quick-thoughts as a task for the training loop.

sentence_transformers is imported where a model is loaded or saved: that takes seconds.

Shapes: b sentences of this process · B sentences of the whole batch · D dim.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
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
from sentence.corpora import Corpus, Faults, find_corpus, read_lines
from sentence.data import ConsecutiveBatches, EncodedCorpus, SentenceBatch, encode_corpus, split_sentences
from sentence.encoder import TwoEncoders
from sentence.objective import neighbour_scores, quick_thought_loss
from sentence.scoring import EVALUATION, encoder_of, evaluate, sample, some_sentences
from sentence.tasks import load_tasks
from sentence.text import describe_left_out, warn_if_wrapped
from sentence.transformer import PaddedTransformer
from shared_eval.metrics import SHOWN


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
        self.is_transformer = config.encoder == "transformer"
        source = source or find_corpus(config.dataset, config.data_root, config.download)
        self.tasks, missing = load_tasks(config.tasks, config.data_root, config.download, required=False)
        seed_everything(config.seed)
        tokenizer = None
        if self.is_transformer:
            self.model, tokenizer = checkpoint_to_tune(config, device)
        corpus = encode_corpus(source, config.vocab_size, strict=config.strict, tokenizer=tokenizer)
        self.corpus = corpus = corpus if self.tasks else held_out.hold_out(corpus)
        if not self.is_transformer:
            self.model = new_encoders(config, corpus.tokenizer, device)

        self.local = local_slice(config.batch_size)
        self.sentence_batches = ConsecutiveBatches(
            corpus, config.batch_size, config.longest, config.seed, self.local, device, config.max_steps
        )
        self.fingerprint = fingerprint(corpus)
        self.steps_per_epoch = self.sentence_batches.steps
        self.samples_per_epoch = self.steps_per_epoch * config.batch_size
        self.record_fields = self._record_fields(missing)
        if is_main_process():
            describe(config, source, corpus)
            if self.steps_per_epoch < self.sentence_batches.batches:
                parts = f"{self.steps_per_epoch:,} of {self.sentence_batches.batches:,}"
                print(f"each epoch has {parts} batches", file=sys.stderr)
        filled = self.sentence_batches.batches * config.batch_size
        warn_dropped_samples(self.fingerprint["sentences"] - filled, "sentences", config.batch_size)

        self.encoders = PaddedTransformer(self.model) if self.is_transformer else self.model[0]
        # Many checkpoints have parameters that the embedding does not use, such as a pooler's.
        self.network = parallel(
            cached(self.encoders, config.cache_chunk, split_sentences), device, has_unused=self.is_transformer
        )
        self.encode = encoder_of(self.model, config.precision)
        self.shown_texts, _ = some_sentences(self.tasks, SHOWN)
        self.shown_before = self.encode(self.shown_texts) if self.shown_texts else None
        self.optimizer = make_optimizer("adam", self.model.parameters(), config.lr, weight_decay=0.0)

    def _record_fields(self, missing_tasks: list[str]) -> dict[str, Any]:
        config = self.config
        fields = {
            "labelled": bool(self.tasks),
            "missing_tasks": missing_tasks,
            "evaluation": EVALUATION if self.tasks else held_out.EVALUATION,
        }
        if (faults := self.corpus.faults).count:
            fields["faults"] = {"count": faults.count, "reported": faults.reported}
        if not self.tasks:
            fields["held_out_sentences"] = int(self.corpus.held_out.sum())
        if config.encoder == "gru" and self.device.type == "cuda" and config.precision != "float32":
            fields["gru_precision"] = "float32"  # see GRUEncoder.forward
        return fields

    def batches(self, epoch: int) -> Iterable[SentenceBatch]:
        return self.sentence_batches.epoch(epoch)

    def training_step(self, batch: SentenceBatch) -> tuple[Tensor, Tensor]:
        config = self.config
        f, g = self.network(batch.ids, batch.lengths)
        with torch.autocast(f.device.type, enabled=False):
            loss = quick_thought_loss(
                neighbour_scores(f, all_gather(g), config.temperature),
                batch.positions,
                batch.book,
                self.local.start,
                beta=config.beta,
                tau_plus=config.tau_plus,
                window=config.window,
                denominator=config.denominator,
                floor=-1 / config.temperature if config.temperature else None,
                stop_gradient=config.stop_gradient,
            )
        return loss.unsqueeze(0), f.unsqueeze(0)

    def evaluate(self) -> list[Scores]:
        """On the tasks; without tasks on the held-out sentences, if there are any."""
        config = self.config
        if self.tasks:
            return [evaluate(self.encode, self.tasks)]
        if not self.corpus.held_out.any():
            return [{}]
        return [
            held_out.scores(
                self.encoders, self.corpus, config.longest, config.temperature, self.device, config.precision
            )
        ]

    def probe_embeddings(self) -> Tensor:
        batch = self._first_batch()
        with eval_mode(self.encoders):
            return torch.cat(self.encoders(batch.ids, batch.lengths), dim=1).unsqueeze(0)

    def save(self, runs: Sequence[Run]) -> None:
        from sentence.quick_thought import save_model

        [run] = runs
        batch = self._first_batch()
        sampled = sample(self.encoders, batch, self.local, self.config.window, self.encode, self.tasks)
        if self.shown_before is not None:
            texts = torch.frombuffer(bytearray(json.dumps(self.shown_texts).encode()), dtype=torch.uint8)
            after = self.encode(self.shown_texts)
            sampled |= {"shown_texts": texts, "shown_before": self.shown_before, "shown_after": after}
        run.save_sample(sampled)
        run.save_encoder_folder(partial(save_model, self.model))

    def _first_batch(self) -> SentenceBatch:
        return next(iter(self.batches(epoch=1)))


def new_encoders(config: SentenceConfig, tokenizer: Tokenizer, device: torch.device) -> nn.Sequential:
    """``TwoEncoders`` as the only module, where a SentenceTransformer has its own."""
    module = TwoEncoders(
        tokenizer, config.encoder, config.embedding_dim, config.hidden, config.bidirectional, config.longest
    )
    return nn.Sequential(module).to(device)


def checkpoint_to_tune(config: SentenceConfig, device: torch.device) -> tuple[nn.Sequential, Tokenizer]:
    """A SentenceTransformer and its tokenizer, which cut sentences at ``longest`` tokens."""
    from sentence.checkpoints import fast_tokenizer
    from sentence.quick_thought import load_model

    model = load_model(config.model, config.download, device)
    tokenizer = fast_tokenizer(model, config.model, config.longest)
    model.max_seq_length = config.longest
    return model, tokenizer


def describe(config: SentenceConfig, source: Corpus, corpus: EncodedCorpus) -> None:
    """Say on stderr how large the corpus is, what is left out of it, and what the vocabulary lacks."""
    words, tokens = corpus.tokenizer.get_vocab_size(), len(corpus.tokens)
    lines = [
        f"{config.dataset}: {len(corpus.books) - 1} books, {len(corpus):,} sentences, {tokens:,} tokens; "
        f"{corpus.unknown:,} of them ({corpus.unknown / tokens:.2%}) are not in the vocabulary of {words:,}"
    ]
    if cut := np.count_nonzero(np.diff(corpus.starts) > config.longest):
        lines.append(
            with_flags(f"{cut:,} sentences have more than `longest` {config.longest} tokens: the rest is cut")
        )
    lines += describe_left_out(source.other_files, source.hidden, corpus.left_out)
    if corpus.held_out.any():
        lines.append(
            f"held out for the scores without labels: {corpus.held_out.sum():,} sentences, the last ones of "
            f"{np.count_nonzero(corpus.held_out)} books"
        )
    if config.encoder != "transformer" and words < config.vocab_size:
        lines.append(
            with_flags(f"the corpus has fewer words than `vocab_size` {config.vocab_size:,}: all are kept")
        )
    print(*lines, sep="\n", file=sys.stderr)
    if source.lines == "sentences" and source.files:
        warnings, path = Faults(), source.files[0]
        warn_if_wrapped(read_lines(path, Faults()), str(path), warnings.note)
        warnings.report()


def fingerprint(corpus: EncodedCorpus) -> dict[str, int | str]:
    """What distinguishes the data from others: counts, and digests of vocabulary and text."""
    return {
        "books": len(corpus.books) - 1,
        "sentences": len(corpus) - int(corpus.held_out.sum()),  # that are trained on
        "tokens": len(corpus.tokens),
        "vocabulary": digest_of([json.dumps(corpus.tokenizer.get_vocab(), sort_keys=True)]),
        "text": corpus.digest,
    }
