"""A corpus as token ids, made once and memory-mapped, and its batches.

Shapes: S sentences of the corpus · T tokens of all of them · B batch · L longest sentence of a batch.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer
from torch import Tensor

from core.io.errors import InputError
from core.io.files import user_cache
from sentence.cache import build_once
from sentence.corpora import Corpus, Faults
from sentence.text import sentences_of

FORMAT = 2  # of the cache; another number makes every cache anew
UNKNOWN, PADDING = "[UNK]", "[PAD]"
ENCODED_AT_ONCE = 10_000


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of all sentences in reading order, memory-mapped."""

    tokenizer: Tokenizer
    tokens: np.ndarray  # (T,)
    starts: np.ndarray  # (S + 1,): sentence i is tokens[starts[i] : starts[i + 1]]
    books: np.ndarray  # (books + 1,): book b is sentences books[b] to books[b + 1]
    unknown: int  # tokens that the vocabulary has not

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, chosen: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
        """Sentences cut at ``longest`` tokens, one after the other: ids [tokens], lengths [B]."""
        starts = self.starts[chosen]
        lengths = np.minimum(self.starts[chosen + 1] - starts, longest)
        place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        ids = self.tokens[np.repeat(starts, lengths) + place]
        return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths.astype(np.int64))


def encode_corpus(
    corpus: Corpus, vocab_size: int, *, strict: bool = False, tokenizer: Tokenizer | None = None
) -> EncodedCorpus:
    """Split and encode a corpus, or find it done in the user's cache; text and settings name the cache.

    With a ``tokenizer`` its vocabulary is used; else a word-level one of ``vocab_size`` words is learnt from
    the corpus. Memory does not grow with the text. Raises InputError where the corpus has nothing to learn
    from.
    """
    learnt = vocab_size if tokenizer is None else tokenizer.to_str()
    settings = json.dumps([FORMAT, corpus.fingerprint(), learnt, strict])
    folder = user_cache() / "sentences" / hashlib.sha256(settings.encode()).hexdigest()[:16]
    try:
        facts = build_once(
            folder, lambda scratch: _encode_into(scratch, corpus, vocab_size, strict, tokenizer)
        )
    except OSError as error:
        raise InputError(
            f"{folder.parent} cannot be written: {error.strerror}; $XDG_CACHE_HOME names another cache"
        ) from error
    return EncodedCorpus(
        tokenizer=Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8")),
        tokens=np.memmap(folder / "tokens.bin", np.dtype(facts["dtype"]), mode="r"),
        starts=np.memmap(folder / "starts.bin", np.int64, mode="r"),
        books=np.array(facts["books"]),
        unknown=facts["unknown"],
    )


def _encode_into(
    folder: Path, corpus: Corpus, vocab_size: int, strict: bool, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """Write starts.bin, tokens.bin and tokenizer.json; returns what else an EncodedCorpus is made from.

    Two passes: sentences to a file, from which the vocabulary is learnt; then the file to token ids.
    """
    text = folder / "sentences.txt"
    faults, counts = Faults(strict), []
    with open(text, "w", encoding="utf-8") as file:
        for title, lines in corpus.books(faults):
            count = 0
            for sentence in sentences_of(lines):
                file.write(sentence + "\n")
                count += 1
            if count < 2:
                faults.note(f"{title} has {count} sentences; it has no neighbours to learn from")
            counts.append(count)
    faults.report()
    if max(counts, default=0) < 2:
        raise InputError(f"{corpus.name} has no book of two sentences: there is nothing to learn from")
    if tokenizer is None:
        tokenizer = learn_vocabulary(text, vocab_size)
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)
    unknown_id, unknown, end = tokenizer.token_to_id(UNKNOWN), 0, 0
    with (
        open(text, encoding="utf-8") as lines,
        open(folder / "tokens.bin", "wb") as tokens,
        open(folder / "starts.bin", "wb") as starts,
    ):
        starts.write(np.int64(0).tobytes())
        while chunk := [line.rstrip("\n") for line in islice(lines, ENCODED_AT_ONCE)]:
            encoded = [np.array(sentence.ids, dtype) for sentence in tokenizer.encode_batch_fast(chunk)]
            ends = end + np.cumsum([len(ids) for ids in encoded], dtype=np.int64)
            end = int(ends[-1])
            starts.write(ends.tobytes())
            for ids in encoded:
                tokens.write(ids.tobytes())
                unknown += int((ids == unknown_id).sum())
    text.unlink()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    return {"dtype": dtype.name, "books": np.cumsum([0, *counts]).tolist(), "unknown": unknown}


def learn_vocabulary(text: Path, vocab_size: int) -> Tokenizer:
    """The most frequent lower-cased words and punctuation marks of a file, a sentence a line."""
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    special = [PADDING, UNKNOWN]
    trainer = WordLevelTrainer(
        vocab_size=vocab_size + len(special), special_tokens=special, show_progress=False
    )
    with open(text, encoding="utf-8") as lines:
        tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


@dataclass(frozen=True)
class SentenceBatch:
    """Sentences in reading order, on the device: ids and lengths of this process's part, places of all."""

    ids: Tensor  # (tokens,)
    lengths: Tensor  # (b,), on the host: packing needs it there
    places: Tensor  # (B,), of the sentences in the corpus
    book: Tensor  # (B,)


class Batches:
    """Runs of consecutive sentences: whole batches of one book, then what is left of several books.

    Where a run begins is drawn anew for every epoch, so that all neighbours meet; batches are shuffled,
    sentences inside are not. Order and draws depend on seed and epoch alone.
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        batch_size: int,
        longest: int,
        seed: int,
        part: slice,
        device: torch.device,
    ) -> None:
        self.corpus, self.batch_size, self.longest, self.seed = corpus, batch_size, longest, seed
        self.part, self.device = part, device
        lengths = np.diff(corpus.books)
        self.steps = int(lengths[lengths > 1].sum()) // batch_size
        if not self.steps:
            raise InputError(
                f"--batch-size is {batch_size}; the corpus has {len(corpus)} sentences, fewer than a batch"
            )

    def runs(self, epoch: int) -> list[np.ndarray]:
        """The places [B] of every batch's sentences, in the epoch's order."""
        draw = np.random.default_rng((self.seed, epoch))
        size, batches, rests = self.batch_size, [], []
        for book in draw.permutation(len(self.corpus.books) - 1):
            first, end = self.corpus.books[book : book + 2]
            if end - first < 2:
                continue
            begin = first + draw.integers(min(size, end - first))
            stop = begin + (end - begin) // size * size
            batches += [np.arange(start, start + size) for start in range(begin, stop, size)]
            rests += [np.arange(first, begin), np.arange(stop, end)]
        left = np.concatenate([np.empty(0, np.int64), *rests])
        batches += [left[start : start + size] for start in range(0, len(left) - size + 1, size)]
        return [batches[i] for i in draw.permutation(len(batches))]

    def of_epoch(self, epoch: int) -> Iterator[SentenceBatch]:
        for places in self.runs(epoch):
            ids, lengths = self.corpus.take(places[self.part], self.longest)
            book = np.searchsorted(self.corpus.books, places, side="right")
            whole = torch.from_numpy(places), torch.from_numpy(book)
            yield SentenceBatch(self._move(ids), lengths, *map(self._move, whole))

    def _move(self, x: Tensor) -> Tensor:
        """``x`` on the device; from pinned memory, so that nothing waits for the copy."""
        return x.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else x
