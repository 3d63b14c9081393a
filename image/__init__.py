"""SimCLR on images."""

from typing import TYPE_CHECKING

import shared_eval  # noqa: F401 -- first: it checks that `core` is the project's
from core.lazy import lazy_attributes

if TYPE_CHECKING:
    from image.loading import load_encoder
    from image.training import train_on

__all__ = ["load_encoder", "train_on"]


__getattr__ = lazy_attributes(__name__, {"load_encoder": "image.loading", "train_on": "image.training"})
