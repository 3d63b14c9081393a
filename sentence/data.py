"""A corpus as token ids, encoded once and memory-mapped, and its batches of consecutive sentences.

Shapes: S sentences of the corpus · T tokens of all of them · B batch · b this process's part of the batch
        t tokens of some sentences.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Sequence, Split, Whitespace
from tokenizers.trainers import WordLevelTrainer
from torch import Tensor

from core.distributed import is_main_process
from core.io.cache import MANIFEST, build_once
from core.io.digests import digest_of
from core.io.errors import InputError
from core.io.files import read_json, user_cache
from core.losses.gradient_cache import parts_of
from core.training.runtime import to_device
from sentence.corpora import Corpus, Faults
from sentence.text import pieces_of
from sentence.writing import UNSPACED, has_unspaced

FORMAT = 5  # of the cache; a new number invalidates every cache
UNKNOWN, PADDING = "[UNK]", "[PAD]"
CHUNK_SENTENCES = 10_000  # encoded at once


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of all sentences in reading order, memory-mapped."""

    tokenizer: Tokenizer
    tokens: np.ndarray  # (T,)
    starts: np.ndarray  # (S + 1,): sentence i is tokens[starts[i] : starts[i + 1]]
    books: np.ndarray  # (books + 1,): book b is sentences books[b] to books[b + 1]
    unknown: int  # tokens that are not in the vocabulary
    left_out: int  # pieces of text that are not sentences
    held_out: np.ndarray  # (books,): sentences at the end of each book that are not trained on
    faults: Faults  # what is wrong with the text
    digest: str  # of tokens and starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def trained(self) -> np.ndarray:
        """The first sentence of each book, and the end of those that are trained on: [books, 2]."""
        return np.stack([self.books[:-1], self.books[1:] - self.held_out], axis=1)

    def take(self, positions: np.ndarray, max_tokens: int) -> tuple[Tensor, Tensor]:
        """Sentences at ``positions`` [n], truncated and concatenated: ids [t], lengths [n]."""
        starts = self.starts[positions]
        lengths = np.minimum(self.starts[positions + 1] - starts, max_tokens)
        offset = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)  # in its sentence
        ids = self.tokens[np.repeat(starts, lengths) + offset]
        return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths.astype(np.int64))


def encode_corpus(
    corpus: Corpus,
    vocab_size: int,
    *,
    strict: bool = False,
    tokenizer: Tokenizer | None = None,
) -> EncodedCorpus:
    """Split a corpus into sentences and encode them, or read the result from the user's cache.

    Without a ``tokenizer``, a word-level one with ``vocab_size`` words is trained on the corpus. The use of
    memory does not depend on the length of the text. The faults of the corpus are printed on stderr, also
    those of one that is read from the cache. Raises InputError if it has no neighbours to learn from.
    """
    vocabulary = vocab_size if tokenizer is None else tokenizer.to_str()
    fingerprint = digest_of([json.dumps([FORMAT, corpus.fingerprint(), vocabulary, corpus.lines, strict])])
    folder = user_cache() / "sentences" / fingerprint
    try:
        values = build_once(
            folder, lambda scratch: _encode_into(scratch, corpus, vocab_size, strict, tokenizer)
        )
    except OSError as error:
        raise InputError(
            f"{folder.parent} cannot be written: {error.strerror}; set $XDG_CACHE_HOME to another folder"
        ) from error
    faults = Faults(**values["faults"])
    if is_main_process():
        faults.report()
    return EncodedCorpus(
        tokenizer=Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8")),
        tokens=np.memmap(folder / "tokens.bin", np.dtype(values["dtype"]), mode="r"),
        starts=np.memmap(folder / "starts.bin", np.int64, mode="r"),
        books=np.array(values["books"]),
        held_out=np.zeros(len(values["books"]) - 1, np.int64),
        unknown=values["unknown"],
        left_out=values["left_out"],
        faults=faults,
        digest=_digest_in(folder),
    )


def _digest_in(folder: Path) -> str:
    """The digest of an encoded corpus, from the checksums that its manifest has: files may be large."""
    files = read_json(folder / MANIFEST)["files"]
    return digest_of(files[name]["sha256"] for name in ("tokens.bin", "starts.bin"))


def _encode_into(
    folder: Path, corpus: Corpus, vocab_size: int, strict: bool, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """Write starts.bin, tokens.bin and tokenizer.json; returns the other values of an EncodedCorpus.

    Two passes: the first writes the sentences to a file, on which the tokenizer is trained; the second
    encodes that file.
    """
    text = folder / "sentences.txt"
    faults = Faults(strict)
    counts, left_out = _write_sentences(corpus, text, faults)
    if max(counts, default=0) < 2:
        faults.report()
        is_auto = corpus.lines == "auto"
        what = "book" if is_auto else "text" if corpus.texts else "file"
        hint = "; if each line is a sentence, use lines:PATH" if is_auto and left_out else ""
        raise InputError(f"{corpus.name} has no {what} with 2 sentences; at least one is needed{hint}")
    if tokenizer is None:
        tokenizer = train_tokenizer(text, vocab_size)
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)
    unknown = _write_tokens(text, folder, tokenizer, dtype)
    text.unlink()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    return {
        "dtype": dtype.name,
        "books": np.cumsum([0, *counts]).tolist(),
        "unknown": unknown,
        "left_out": left_out,
        "faults": asdict(faults),
    }


def _write_sentences(corpus: Corpus, text: Path, faults: Faults) -> tuple[list[int], int]:
    """Write a corpus to a file, one sentence a line.

    Returns the number of sentences of each book, and the number of pieces of text that are not sentences.
    """
    counts, left_out = [], 0
    with open(text, "w", encoding="utf-8") as file:
        for title, lines in corpus.books(faults):
            count = others = 0
            for piece, is_sentence in pieces_of(lines, corpus.lines):
                if is_sentence:
                    file.write(piece + "\n")
                    count += 1
                else:
                    others += 1
            if count < 2:
                also = f" ({others:,} other pieces of text are not sentences)" if others else ""
                faults.note(f"{title} has {count} sentences{also}; at least 2 are needed for neighbours")
            counts.append(count)
            left_out += others
    return counts, left_out


def _write_tokens(text: Path, folder: Path, tokenizer: Tokenizer, dtype: np.dtype) -> int:
    """Encode a file of sentences to starts.bin and tokens.bin; returns the number of unknown tokens."""
    unknown_id, unknown, end = unknown_id_of(tokenizer), 0, 0
    with (
        open(text, encoding="utf-8") as lines,
        open(folder / "tokens.bin", "wb") as tokens,
        open(folder / "starts.bin", "wb") as starts,
    ):
        starts.write(np.int64(0).tobytes())
        while chunk := [line.rstrip("\n") for line in islice(lines, CHUNK_SENTENCES)]:
            encoded = [np.array(sentence.ids, dtype) for sentence in tokenizer.encode_batch_fast(chunk)]
            ends = end + np.cumsum([len(ids) for ids in encoded], dtype=np.int64)
            end = int(ends[-1])
            starts.write(ends.tobytes())
            for ids in encoded:
                tokens.write(ids.tobytes())
                if unknown_id is not None:
                    unknown += int((ids == unknown_id).sum())
    return unknown


def unknown_id_of(tokenizer: Tokenizer) -> int | None:
    """The id of words outside the vocabulary; None if there are none, as with GPT-2's bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] == "Unigram":
        return model["unk_id"]
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None


def train_tokenizer(text: Path, vocab_size: int) -> Tokenizer:
    """A word-level tokenizer with the most frequent lower-case words and punctuation marks of a file.

    In scripts without spaces between words, such as Chinese, Japanese and Thai, each letter with its marks is
    a word.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    with open(text, encoding="utf-8") as lines:
        is_unspaced = any(map(has_unspaced, lines))
    split = [Split(Regex(UNSPACED), "isolated")] if is_unspaced else []  # costs time where it has no effect
    tokenizer.pre_tokenizer = Sequence([*split, Whitespace()]) if split else Whitespace()
    special = [PADDING, UNKNOWN]
    trainer = WordLevelTrainer(
        vocab_size=vocab_size + len(special), special_tokens=special, show_progress=False
    )
    with open(text, encoding="utf-8") as lines:
        tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def split_sentences(chunk: int, ids: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split [T] and [B] into chunks of at most ``chunk`` sentences, for the gradient cache."""
    parts = parts_of(lengths, chunk)
    return list(zip(ids.split([int(part.sum()) for part in parts]), parts, strict=True))


@dataclass(frozen=True)
class SentenceBatch:
    """This process's part of a batch as tokens, and the positions of the whole batch, on the device."""

    ids: Tensor  # (t,), sentences concatenated
    lengths: Tensor  # (b,), on the CPU, where packing needs it
    positions: Tensor  # (B,), of the sentences in the corpus
    book: Tensor  # (B,)


class ConsecutiveBatches:
    """Batches of consecutive sentences of one book; the sentences left over form batches of several books.

    The first sentence of the first batch of each book is random in every epoch, so that all pairs of
    neighbours occur. Batches are shuffled, the sentences of a batch are not. Both depend on seed and epoch
    alone. Of more than ``max_steps`` batches the epoch has the first ones of its order.
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        batch_size: int,
        max_tokens: int,
        seed: int,
        part: slice,
        device: torch.device,
        max_steps: int | None = None,
    ) -> None:
        self.corpus, self.batch_size, self.max_tokens, self.seed = corpus, batch_size, max_tokens, seed
        self.part, self.device = part, device
        self.spans = corpus.trained()
        lengths = np.diff(self.spans, axis=1)
        sentences = int(lengths[lengths > 1].sum())  # that have neighbours
        if batch_size > sentences:
            held_out = corpus.held_out.sum()
            others = f" without the {held_out} held out" if held_out else ""
            raise InputError(
                f"`batch_size` is {batch_size}; it must be at most {sentences}, the sentences of the corpus"
                f"{others}"
            )
        self.batches = sentences // batch_size
        self.steps = min(self.batches, max_steps or self.batches)

    def positions(self, epoch: int) -> list[np.ndarray]:
        """The positions [B] of each batch's sentences in the corpus, in the order of the epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        size, batches, rests = self.batch_size, [], [np.empty(0, np.int64)]
        for book in rng.permutation(len(self.spans)):
            first, end = self.spans[book]
            if end - first < 2:
                continue
            start = first + rng.integers(min(size, end - first))
            stop = start + (end - start) // size * size
            batches += list(np.arange(start, stop).reshape(-1, size))
            rests += [np.arange(first, start), np.arange(stop, end)]
        rest = np.concatenate(rests)
        batches += list(rest[: len(rest) // size * size].reshape(-1, size))
        return [batches[i] for i in rng.permutation(len(batches))[: self.steps]]

    def epoch(self, epoch: int) -> Iterator[SentenceBatch]:
        for positions in self.positions(epoch):
            ids, lengths = self.corpus.take(positions[self.part], self.max_tokens)
            book = np.searchsorted(self.corpus.books, positions, side="right")
            yield SentenceBatch(
                to_device(ids, self.device),
                lengths,
                to_device(torch.from_numpy(positions), self.device),
                to_device(torch.from_numpy(book), self.device),
            )
