"""Other libraries' NT-Xent losses, those that are installed: ``make bench`` installs them."""

from collections.abc import Callable
from importlib import import_module, metadata
from types import ModuleType

import torch
from torch import Tensor

PairLoss = Callable[[Tensor, Tensor], Tensor]


def _losses_of(package: str) -> ModuleType | None:
    try:
        return import_module(package)
    except ImportError:
        return None


LIBRARIES = {
    "pytorch-metric-learning": _losses_of("pytorch_metric_learning.losses"),
    "lightly": _losses_of("lightly.loss"),
}


def versions() -> dict[str, str]:
    """The version of each library, or ``not installed``."""
    return {
        package: metadata.version(package) if module else "not installed"
        for package, module in LIBRARIES.items()
    }


def nt_xent_losses(temperature: float) -> dict[str, PairLoss]:
    """Losses of two views, by name. SupConLoss with one positive an anchor is NT-Xent, too."""
    found: dict[str, PairLoss] = {}
    metric_learning, lightly = LIBRARIES.values()
    if metric_learning:
        for name in ("NTXentLoss", "SupConLoss"):
            found[f"pytorch-metric-learning {name}"] = of_views(getattr(metric_learning, name)(temperature))
    if lightly:
        found["lightly NTXentLoss"] = lightly.NTXentLoss(temperature)
    return found


def of_views(by_label: PairLoss) -> PairLoss:
    """A loss of embeddings and their labels as one of two views: a sample is a class."""

    def loss(view1: Tensor, view2: Tensor) -> Tensor:
        samples = torch.arange(len(view1), device=view1.device).repeat(2)
        return by_label(torch.cat([view1, view2]), samples)

    return loss
