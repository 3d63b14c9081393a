"""Contrastive objectives with hard negatives, and what every trainer needs."""

from core.losses.contrastive import DebiasedLoss, HardNegativeLoss, NTXentLoss, hard_negative_loss
from core.losses.infograph import InfoGraphLoss

__all__ = ["DebiasedLoss", "HardNegativeLoss", "InfoGraphLoss", "NTXentLoss", "hard_negative_loss"]
