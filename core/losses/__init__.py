"""Contrastive losses with hard negatives.

This folder needs PyTorch alone: copy it into a project under any name and import the losses from there.

    from my_losses import HardNegativeLoss

    loss = HardNegativeLoss(beta=1.0, tau_plus=0.1, temperature=0.5)(view1, view2)

To copy less: the formula on logits, ``hard_negative_loss``, is ``functional.py`` and ``checks.py``.
``InfoGraphLoss`` needs ``infograph.py``, ``hard_softplus.py`` and ``backward.py`` beside these, ``clip_loss``
needs ``clip.py`` and ``collectives.py``, ``GradientCached`` needs ``gradient_cache.py`` and ``backward.py``.
The other files belong to ``HardNegativeLoss``; its Triton kernels are used on a GPU if Triton is installed.

``sentence_transformers.py`` has losses for the library of that name; only that file needs it.
"""

from .clip import clip_loss
from .contrastive import DebiasedLoss, HardNegativeLoss, NTXentLoss
from .functional import hard_negative_loss
from .gradient_cache import GradientCached, cached
from .infograph import InfoGraphLoss

__version__ = "0.2.0"

__all__ = [
    "DebiasedLoss",
    "GradientCached",
    "HardNegativeLoss",
    "InfoGraphLoss",
    "NTXentLoss",
    "cached",
    "clip_loss",
    "hard_negative_loss",
]
