"""Both encoders in one call, for training: their own words, or a pretrained transformer.

Shapes: B sentences · T tokens of all of them · D representation of one encoder.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from core.losses.gradient_cache import parts_of
from sentence.encoder import TwoEncoders, pad

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class PaddedTransformer(nn.Module):
    """A pretrained transformer to fine-tune. It is both f and g; an embedding is the mean of its tokens."""

    def __init__(self, model: "SentenceTransformer") -> None:
        super().__init__()
        self.model = model

    def embed_pair(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """f and g, the same tensor twice: [T], [B] -> [B, D], [B, D]. The ids include special tokens."""
        embedding = self.model(pad(ids, lengths))["sentence_embedding"].float()
        return embedding, embedding


class Pair(nn.Module):
    """The pair (f, g) of an encoder in one call, as DistributedDataParallel needs."""

    def __init__(self, encoder: TwoEncoders | PaddedTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[T], [B] -> [B, D], [B, D]."""
        return self.encoder.embed_pair(ids, lengths)


def split_sentences(chunk: int, ids: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split [T] and [B] into chunks of at most ``chunk`` sentences, for the gradient cache."""
    parts = parts_of(lengths, chunk)
    tokens = [int(part.sum()) for part in parts]
    return list(zip(ids.split(tokens), parts, strict=True))
