"""Encoders of the library timm, which ``arch`` timm:NAME names."""

from collections.abc import Iterable

import torch
from torch import nn

from core.distributed import launched_processes
from core.io.errors import InputError, did_you_mean, reason_of
from core.training.loop import eval_mode
from image.config import TIMM, check_timm
from image.convolutions import Conv2d


def make_timm_encoder(arch: str, size: int) -> nn.Module:
    """timm's model without its classifier, for images of ``size``: [B, 3, H, W] -> [B, D].

    ``encoder.dim`` is D. Raises InputError if timm is not installed, does not have the model, or cannot make
    it of that size.
    """
    check_timm(arch)
    import timm

    name = arch.removeprefix(TIMM)
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise InputError(f"`arch` is {arch}, which timm {timm.__version__} does not have{hint}")
    # Transformers are made for one size, most of them also for others; convolutions take any.
    for options in ({"img_size": size, "dynamic_img_size": True}, {"img_size": size}, {}):
        try:
            encoder = timm.create_model(name, num_classes=0, **options)
            break
        except TypeError:  # it has no such option
            continue
        except (AssertionError, RuntimeError, ValueError) as error:
            raise _refused(arch, size, error) from error
    for module in encoder.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d  # the same module with the project's way to its gradients
    encoder.dim = encoder.head_hidden_size
    return encoder


def check_timm_encoder(encoder: nn.Module, arch: str, sizes: Iterable[int]) -> None:
    """Raise InputError unless the encoder takes images of these sizes, in as many processes as there are."""
    device = next(encoder.parameters()).device
    for size in sizes:
        try:
            with eval_mode(encoder):
                encoder(torch.zeros(1, 3, size, size, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise _refused(arch, size, error) from error
    norms = {type(module) for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)}
    if special := norms - {nn.BatchNorm2d}:
        name = special.pop().__name__
        if launched_processes() > 1:
            raise InputError(f"`arch` is {arch}, whose {name} is not supported in several processes")


def _refused(arch: str, size: int, error: Exception) -> InputError:
    return InputError(
        f"`arch` is {arch}, which does not take images of {size} x {size} pixels ({reason_of(error)}); set "
        "`view_size` and `image_size` to one that it takes"
    )
