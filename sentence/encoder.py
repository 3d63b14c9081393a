"""Sentence encoders, and the pair of them that quick-thoughts trains.

Saved models contain a copy of this file, so it imports nothing of the project.

Encoders take sentences concatenated: the ids [T] of their tokens, on the device, and their lengths [B], on
the CPU, where packing needs them.

Shapes: B sentences · T tokens of all of them · E word embedding · D representation of one encoder.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_sequence

INITIAL_RANGE = 0.1  # weights are initialised uniformly in [-0.1, 0.1] (lajanugen/S2V)


class GRUEncoder(nn.Module):
    """Word embeddings and a GRU, whose final state (of both directions) represents a sentence."""

    def __init__(self, vocab_size: int, embedding_dim: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.dim = hidden * (2 if bidirectional else 1)
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.gru = nn.GRU(embedding_dim, hidden, bidirectional=bidirectional)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL_RANGE, INITIAL_RANGE)

    @staticmethod
    def layout(ids: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
        """What ``forward`` takes of a batch [T], [B]; encoders of one kind can share it."""
        return pack(ids, lengths)

    def forward(self, layout: tuple[PackedSequence, Tensor]) -> Tensor:
        """-> [B, D]. On a GPU in float32, whatever autocast is set to."""
        packed, back = layout
        # Under autocast cuDNN's GRU runs in float16, not bfloat16, where most of its gradients are subnormal.
        with torch.autocast("cuda", enabled=False) if packed.data.is_cuda else nullcontext():
            _, states = self.gru(packed._replace(data=self.embedding(packed.data)))
        return states.transpose(0, 1).flatten(1)[back]


class BagOfWords(nn.Module):
    """The mean of a sentence's word embeddings."""

    def __init__(self, vocab_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.dim = embedding_dim
        self.embedding = nn.EmbeddingBag(vocab_size, embedding_dim, mode="mean")
        nn.init.uniform_(self.embedding.weight, -INITIAL_RANGE, INITIAL_RANGE)

    @staticmethod
    def layout(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` takes of a batch [T], [B]; encoders of one kind can share it."""
        return ids, to_device(lengths.cumsum(0) - lengths, ids.device)

    def forward(self, layout: tuple[Tensor, Tensor]) -> Tensor:
        """-> [B, E]."""
        return self.embedding(*layout)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Move ``x`` from the host's memory to ``device``; to a GPU from pinned memory, without a wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def pack(ids: Tensor, lengths: Tensor) -> tuple[PackedSequence, Tensor]:
    """Pack concatenated sentences, longest first, without padding them in between: [T], [B].

    Step t of the packed sequence consists of the t-th token of every sentence that has one. The second result
    [B] restores the order of the sentences.
    """
    order = lengths.argsort(descending=True, stable=True)
    starts = (lengths.cumsum(0) - lengths)[order]
    steps = torch.arange(int(lengths.max()))
    has_token = steps.unsqueeze(1) < lengths[order]  # (steps, B)
    positions = (starts + steps.unsqueeze(1))[has_token]
    packed = PackedSequence(ids[to_device(positions, ids.device)], has_token.sum(dim=1))
    return packed, to_device(order.argsort(), ids.device)


def pad(ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Concatenated sentences [T], [B] as sentence-transformers takes them: ids and a mask, [B, longest]."""
    padded = pad_sequence(ids.split(lengths.tolist()), batch_first=True)
    mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
    return {"input_ids": padded, "attention_mask": to_device(mask.long(), ids.device)}


class TwoEncoders(nn.Module):
    """Two encoders f and g with their tokenizer; an embedding is the concatenation of both outputs.

    ``QuickThought`` makes a module of sentence-transformers of it. Sentences are truncated at
    ``longest`` tokens.
    """

    parts = 2  # of an embedding

    def __init__(
        self,
        tokenizer: Tokenizer,
        kind: str,
        embedding_dim: int,
        hidden: int,
        bidirectional: bool,
        longest: int,
    ) -> None:
        super().__init__()
        self.tokenizer, self.longest = tokenizer, longest
        self.kind, self.embedding_dim = kind, embedding_dim
        self.hidden, self.bidirectional = hidden, bidirectional
        self.f, self.g = self._new_encoder(), self._new_encoder()

    def _new_encoder(self) -> GRUEncoder | BagOfWords:
        words = self.tokenizer.get_vocab_size()
        if self.kind == "gru":
            return GRUEncoder(words, self.embedding_dim, self.hidden, self.bidirectional)
        return BagOfWords(words, self.embedding_dim)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.embed_pair(ids, lengths)

    def embed_pair(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """f and g, float32: [T], [B] -> [B, D], [B, D]."""
        layout = self.f.layout(ids, lengths)
        return self.f(layout).float(), self.g(layout).float()

    def tokens_of(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids [T] and lengths [B] of sentences, truncated at ``longest``."""
        ids = [encoded.ids[: self.longest] for encoded in self.tokenizer.encode_batch_fast(list(sentences))]
        # A sentence without tokens becomes one unknown word, so that it has an embedding.
        ids = [sentence or [self.tokenizer.token_to_id("[UNK]")] for sentence in ids]
        flat = torch.tensor([token for sentence in ids for token in sentence])
        return flat, torch.tensor([len(sentence) for sentence in ids])

    def get_embedding_dimension(self) -> int:
        return self.f.dim + self.g.dim


def __getattr__(name: str) -> Any:
    """``QuickThought``, which older models name as a class of this module; its import takes seconds."""
    if name == "QuickThought":
        from .modeling_quick_thought import QuickThought

        return QuickThought
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
