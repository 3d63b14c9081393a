"""What every probe checks before it fits anything."""

import numpy as np
from torch import Tensor

from core.io.errors import InputError


def check_counts(labels: np.ndarray, min_count: int, method: str) -> None:
    """Raise InputError unless there are at least two classes with at least ``min_count`` samples each."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"the labels have {len(classes)} class; at least 2 are needed to classify")
    if counts.min() < min_count:
        raise InputError(
            f"class {classes[counts.argmin()]} has {counts.min()} samples; "
            f"{method} needs at least {min_count} of every class"
        )


def check_finite(features: np.ndarray | Tensor, what: str = "the features to classify") -> None:
    """Raise InputError if any feature is infinite or nan; ``what`` names them."""
    is_finite = features.isfinite() if isinstance(features, Tensor) else np.isfinite(features)
    if not is_finite.all():
        raise InputError(f"{what} are not all finite")
