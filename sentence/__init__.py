"""Quick-thought sentence embeddings trained on running text."""

from importlib import import_module
from typing import Any

import shared_eval  # noqa: F401 -- it checks that `core` is the project's

# What people import from here, and the module that it is in; those import torch, which takes seconds.
PUBLIC = {"load_encoder": "loading", "train_on": "training"}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
