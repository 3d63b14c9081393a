"""SimCLR on images."""

from typing import TYPE_CHECKING, Any

import shared_eval  # noqa: F401 -- it checks that `core` is the project's

if TYPE_CHECKING:
    from image.loading import load_encoder
    from image.training import train_on

__all__ = ["load_encoder", "train_on"]


def __getattr__(name: str) -> Any:
    # Imported at the first use because torch takes seconds, and the help of commands does not need it.
    if name == "load_encoder":
        from image.loading import load_encoder

        return load_encoder
    if name == "train_on":
        from image.training import train_on

        return train_on
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
