"""Contrastive objectives with hard negatives, and what every trainer needs."""

from core.infograph import InfoGraphLoss
from core.objectives import DebiasedLoss, HardNegativeLoss, NTXentLoss, hard_negative_loss

__all__ = ["DebiasedLoss", "HardNegativeLoss", "InfoGraphLoss", "NTXentLoss", "hard_negative_loss"]
