"""Write a run's encoder for other programs: ``python -m image.export RUN --to onnx --output x.onnx``."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from core.io.errors import InputError
from core.training.cli import command, parse
from core.training.settings import load_config
from image.config import ImageConfig
from shared_eval.outputs import check_output

SUFFIXES = {"torchvision": ".safetensors", "onnx": ".onnx"}
TORCHVISION_SETTINGS = {"arch": ("resnet18", "resnet34", "resnet50"), "width": (64,), "norm": ("batch",)}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a run's trained encoder to a file that needs nothing of this project."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    to: Literal["torchvision", "onnx"]
    """torchvision: the state dict of its ResNet. onnx: a graph for ONNX Runtime and others."""
    output: Path
    """The file: .safetensors for torchvision, .onnx for onnx."""
    overwrite: bool = False
    """Replace the file if it exists."""


def check_export(to: str, trained: ImageConfig) -> None:
    """Raise InputError unless this encoder can be written for ``to`` with what is installed."""
    if to == "onnx":
        if not (find_spec("onnx") and find_spec("onnxruntime")):
            raise InputError("`to` is onnx, which needs two packages: pip install onnx onnxruntime")
        return
    for name, known in TORCHVISION_SETTINGS.items():
        if (value := getattr(trained, name)) not in known:
            raise InputError(
                f"`to` is torchvision, whose ResNets have {name} {' or '.join(map(str, known))}, and the run "
                f"has {value}; use `to` onnx, or image.load_encoder"
            )


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ExportConfig, argv, "python -m image.export")
    check_output(config.output, config.overwrite, (SUFFIXES[config.to],))
    trained = load_config(config.run, ImageConfig)
    check_export(config.to, trained)
    # Imported here because torch takes seconds, and help and errors do not need it.
    from image.exporting import export
    from shared_eval.outputs import show

    show(export(config, trained))


if __name__ == "__main__":
    main()
