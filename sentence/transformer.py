"""A pretrained transformer in place of two encoders.

Shapes: B sentences · T tokens of all of them · D representation.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from sentence.encoder import pad

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class PaddedTransformer(nn.Module):
    """A pretrained transformer to fine-tune, with its own pooling. It is both f and g."""

    def __init__(self, model: "SentenceTransformer") -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """f and g, the same tensor twice: [T], [B] -> [B, D], [B, D]. The ids include special tokens."""
        embedding = self.model(pad(ids, lengths))["sentence_embedding"].float()
        return embedding, embedding
