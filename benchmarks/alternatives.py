"""NT-Xent losses of other libraries, if installed: ``make bench`` installs them."""

from collections.abc import Callable
from importlib import import_module, metadata
from types import ModuleType

import torch
from torch import Tensor

PairLoss = Callable[[Tensor, Tensor], Tensor]


def import_if_installed(module: str) -> ModuleType | None:
    """The module, or None if it or what it imports is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None


LIBRARIES = {
    "pytorch-metric-learning": import_if_installed("pytorch_metric_learning.losses"),
    "lightly": import_if_installed("lightly.loss"),
}


def versions() -> dict[str, str]:
    """The version of each library, or ``not installed``."""
    return {
        package: metadata.version(package) if module else "not installed"
        for package, module in LIBRARIES.items()
    }


def nt_xent_losses(temperature: float) -> dict[str, PairLoss]:
    """Losses of two views by name. SupConLoss with one positive per anchor is also NT-Xent."""
    losses: dict[str, PairLoss] = {}
    metric_learning, lightly = LIBRARIES.values()
    if metric_learning:
        for name in ("NTXentLoss", "SupConLoss"):
            losses[f"pytorch-metric-learning {name}"] = from_views(
                getattr(metric_learning, name)(temperature)
            )
    if lightly:
        losses["lightly NTXentLoss"] = lightly.NTXentLoss(temperature)
    return losses


def from_views(by_label: PairLoss) -> PairLoss:
    """Turn a loss of embeddings and labels into a loss of two views, with one class per sample."""

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        samples = torch.arange(len(view1), device=view1.device).repeat(2)
        return by_label(torch.cat([view1, view2]), samples)

    return loss
