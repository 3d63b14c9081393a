"""Contrastive objectives with hard negatives, and what the training commands share."""

from typing import TYPE_CHECKING

from core.lazy import lazy_attributes

if TYPE_CHECKING:
    from core.losses import DebiasedLoss, HardNegativeLoss, InfoGraphLoss, NTXentLoss, hard_negative_loss

__all__ = ["DebiasedLoss", "HardNegativeLoss", "InfoGraphLoss", "NTXentLoss", "hard_negative_loss"]


__getattr__ = lazy_attributes(__name__, dict.fromkeys(__all__, "core.losses"))
