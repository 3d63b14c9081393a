"""Contrastive objectives with hard negatives, and what the training commands share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.losses import DebiasedLoss, HardNegativeLoss, InfoGraphLoss, NTXentLoss, hard_negative_loss

__all__ = ["DebiasedLoss", "HardNegativeLoss", "InfoGraphLoss", "NTXentLoss", "hard_negative_loss"]


def __getattr__(name: str) -> Any:
    """Import the objectives when they are used: torch takes seconds, and ``--help`` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from core import losses

    return getattr(losses, name)
