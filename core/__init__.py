"""Contrastive objectives with hard negatives, and what the training commands share."""

from .losses import DebiasedLoss, HardNegativeLoss, InfoGraphLoss, NTXentLoss, hard_negative_loss

__all__ = ["DebiasedLoss", "HardNegativeLoss", "InfoGraphLoss", "NTXentLoss", "hard_negative_loss"]
