"""InfoGraph with GIN on graphs."""

from typing import TYPE_CHECKING

import shared_eval  # noqa: F401 -- first: it checks that `core` is the project's
from core.lazy import lazy_attributes

if TYPE_CHECKING:
    from graph.loading import load_encoder
    from graph.training import train_on

__all__ = ["load_encoder", "train_on"]


__getattr__ = lazy_attributes(__name__, {"load_encoder": "graph.loading", "train_on": "graph.training"})
