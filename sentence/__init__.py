"""Quick-thought sentence embeddings trained on running text."""

from typing import TYPE_CHECKING

import shared_eval  # noqa: F401 -- first: it checks that `core` is the project's
from core.lazy import lazy_attributes

if TYPE_CHECKING:
    from sentence.loading import load_encoder
    from sentence.training import train_on

__all__ = ["load_encoder", "train_on"]


__getattr__ = lazy_attributes(__name__, {"load_encoder": "sentence.loading", "train_on": "sentence.training"})
