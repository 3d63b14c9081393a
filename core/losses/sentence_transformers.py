"""Losses for ``SentenceTransformerTrainer``: in-batch and given negatives, reweighted and debiased.

They are the library's ``MultipleNegativesRankingLoss`` and its cached version, with the negatives of the
hard-negative objective. The library is needed for this module alone.

Shapes: b rows of this process · B rows of all processes · D dim.
"""

from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from .checks import check_hardness
from .collectives import all_gather, check_same_count, rank
from .functional import full_precision, hard_negative_loss

__all__ = ["CachedHardNegativesRankingLoss", "HardNegativesRankingLoss"]


class HardNegativesRankingLoss(MultipleNegativesRankingLoss):
    """``MultipleNegativesRankingLoss`` with reweighted, debiased negatives (Robinson et al., 2021, eq. 4).

    The data are rows of (anchor, positive) or (anchor, positive, negative, ...). An anchor's negatives are
    the positives of the other rows and the negatives of all rows. At ``beta=0, tau_plus=0`` value and
    gradient are those of ``MultipleNegativesRankingLoss``.

    The library's ``hardness_strength`` alpha adds ``alpha cos`` to the logits of negatives, as constants:
    these are the weights here at ``beta = alpha / scale`` with ``stop_gradient=True``, but not divided by
    their mean. So 9 at scale 20 (Lan et al., 2025) is ``beta=0.45``.

    Args:
        model: The model to train.
        beta: Hardness, at least 0.
        tau_plus: Prior probability, in [0, 1), that a negative is in truth a positive.
        scale: Multiplies the cosine: 1 / temperature.
        stop_gradient: Treat the weights of the negatives as constants.
        gather_across_devices: Take negatives from every process.

    Raises:
        ValueError: A setting is outside its range.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        beta: float = 0.5,
        tau_plus: float = 0.0,
        scale: float = 20.0,
        stop_gradient: bool = False,
        gather_across_devices: bool = False,
    ) -> None:
        check_hardness(beta, tau_plus, stop_gradient)
        super().__init__(model, scale=scale, gather_across_devices=gather_across_devices)
        self.beta, self.tau_plus, self.stop_gradient = beta, tau_plus, stop_gradient

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The mean loss of this process's anchors: of each column [b, D] -> scalar."""
        if len(embeddings) < 2:
            raise ValueError(f"the data have {len(embeddings)} text column; anchors and positives are needed")
        anchors, *documents = embeddings
        first, documents = self.gather(documents)
        return self.row_losses(anchors, documents, first).mean()

    def gather(self, documents: list[Tensor]) -> tuple[int, list[Tensor]]:
        """The documents of all processes, and the index of this process's first: each [b, D] -> [B, D]."""
        if not self.gather_across_devices:
            return 0, documents
        check_same_count(len(documents[0]), documents[0].device)
        return rank() * len(documents[0]), [all_gather(column) for column in documents]

    def row_losses(self, anchors: Tensor, documents: list[Tensor], first: int) -> Tensor:
        """The loss of each anchor, whose positive is row ``first + i`` of the first documents -> [b]."""
        with torch.autocast(anchors.device.type, enabled=False):
            candidates = F.normalize(full_precision(torch.cat(documents)), dim=1)
            logits = self.scale * F.normalize(full_precision(anchors), dim=1) @ candidates.T
            rows = torch.arange(len(anchors), device=anchors.device)
            mask = torch.ones_like(logits, dtype=torch.bool)
            mask[rows, first + rows] = False
            return hard_negative_loss(
                logits[rows, first + rows],
                logits,
                mask,
                beta=self.beta,
                tau_plus=self.tau_plus,
                floor=-self.scale,
                stop_gradient=self.stop_gradient,
            )

    def get_config_dict(self) -> dict[str, Any]:
        """The settings that a model card shows."""
        names = ("beta", "tau_plus", "scale", "stop_gradient", "gather_across_devices")
        return {name: getattr(self, name) for name in names}

    @property
    def citation(self) -> str:
        """The BibTeX entry that a model card shows."""
        return """
@inproceedings{robinson2021contrastive,
    title={Contrastive Learning with Hard Negative Samples},
    author={Joshua David Robinson and Ching-Yao Chuang and Suvrit Sra and Stefanie Jegelka},
    booktitle={International Conference on Learning Representations},
    year={2021},
}
"""


class CachedHardNegativesRankingLoss(CachedMultipleNegativesRankingLoss):
    """``HardNegativesRankingLoss`` for batches that are larger than memory, by gradient caching.

    Value and gradient are the same. Texts are embedded twice, ``mini_batch_size`` at a time, and the loss has
    as many rows of the similarity matrix in memory (GradCache: Gao, Zhang, Han and Callan, RepL4NLP 2021).

    Args:
        model: The model to train.
        beta: Hardness, at least 0.
        tau_plus: Prior probability, in [0, 1), that a negative is in truth a positive.
        scale: Multiplies the cosine: 1 / temperature.
        stop_gradient: Treat the weights of the negatives as constants.
        gather_across_devices: Take negatives from every process.
        mini_batch_size: Rows that are embedded at a time.
        show_progress_bar: Show a bar for every batch.

    Raises:
        ValueError: A setting is outside its range.
    """

    loss: HardNegativesRankingLoss

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        beta: float = 0.5,
        tau_plus: float = 0.0,
        scale: float = 20.0,
        stop_gradient: bool = False,
        gather_across_devices: bool = False,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> None:
        if mini_batch_size < 1:
            raise ValueError(f"`mini_batch_size` is {mini_batch_size}; it must be at least 1")
        try:
            super().__init__(model, mini_batch_size=mini_batch_size, show_progress_bar=show_progress_bar)
        except ValueError as error:  # of a StaticEmbedding
            raise ValueError(
                f"this model cannot be trained in mini-batches; use HardNegativesRankingLoss ({error})"
            ) from error
        self.loss = HardNegativesRankingLoss(
            model,
            beta=beta,
            tau_plus=tau_plus,
            scale=scale,
            stop_gradient=stop_gradient,
            gather_across_devices=gather_across_devices,
        )

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The mean loss over all anchors, from the embeddings of each column's mini-batches."""
        anchors = torch.cat(reps[0])
        first, documents = self.loss.gather([torch.cat(column) for column in reps[1:]])
        total = anchors.new_zeros(())
        for start in range(0, len(anchors), self.mini_batch_size):
            rows = anchors[start : start + self.mini_batch_size]
            part = self.loss.row_losses(rows, documents, first + start).sum() / len(anchors)
            if with_backward:
                part.backward()
                part = part.detach()
            total = total + part
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """The settings that a model card shows."""
        return self.loss.get_config_dict() | {"mini_batch_size": self.mini_batch_size}

    citation = HardNegativesRankingLoss.citation
