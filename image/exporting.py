"""The work of ``image.export``: an encoder's file is compared with the encoder, then put in place.

Shapes: B batch · S size · D representation.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from core.io.errors import InputError, reason_of
from image.config import ImageConfig
from image.export import ExportConfig
from image.loading import load_encoder
from image.views import Normalise
from shared_eval.outputs import write_output

BATCHES = (1, 3)  # sizes of the batches that are compared
TOLERANCE = 1e-3  # of the largest output; a wrong graph is far above


def export(config: ExportConfig, trained: ImageConfig) -> str:
    """Write the encoder of ``config.run`` to ``config.output``; return how the file is used.

    Raises InputError if the run is not finished, if its encoder cannot be written, or if the file's outputs
    differ from the encoder's; then there is no file.
    """
    encoder = load_encoder(config.run)
    write = write_torchvision if config.to == "torchvision" else write_onnx
    return write(encoder, trained, config.output)


def write_torchvision(encoder: nn.Module, trained: ImageConfig, output: Path) -> str:
    """Write the state dict of torchvision's ResNet; return the Python code that loads it."""
    import torchvision  # as slow to import as torch

    model = torchvision.models.get_model(trained.arch)
    model.fc = nn.Identity()
    lines = [f"model = torchvision.models.{trained.arch}()", "model.fc = torch.nn.Identity()"]
    if trained.stem == "small":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        lines.append("model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)")
        lines.append("model.maxpool = torch.nn.Identity()")
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    model.load_state_dict(state)
    check_outputs(encoder, model.eval(), encoder.transform.size)
    size, normalise = encoder.transform.size, encoder.transform.normalise
    statistics = {name: str(rounded(getattr(normalise, name))) for name in ("mean", "std")}
    write_output(output, safetensors.torch.save(state, {"format": "pt", **statistics}))
    return "\n".join(
        [
            *lines,
            f"model.load_state_dict(safetensors.torch.load_file({str(output)!r}))",
            "model.eval()",
            "transform = torchvision.transforms.Compose([",
            f"    torchvision.transforms.Resize({size}),",
            f"    torchvision.transforms.CenterCrop({size}),",
            "    torchvision.transforms.ToTensor(),",
            f"    torchvision.transforms.Normalize({statistics['mean']}, {statistics['std']}),",
            "])",
        ]
    )


def rounded(statistic: Tensor) -> list[float]:
    """The numbers of a float32 tensor, with as many digits as they had before they were float32."""
    return [round(value, 6) for value in statistic.flatten().tolist()]


def write_onnx(encoder: nn.Module, trained: ImageConfig, output: Path) -> str:
    """Write an ONNX graph that also normalises images; return what it takes and gives."""
    import onnxruntime

    size = encoder.transform.size
    network = nn.Sequential(Normalise(), encoder).eval()
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter by tracing needs no other package, and is older
            torch.onnx.export(
                network,
                (torch.zeros(2, 3, size, size),),
                file,
                dynamo=False,
                input_names=["images"],
                output_names=["embeddings"],
                dynamic_axes={"images": {0: "batch"}, "embeddings": {0: "batch"}},
            )
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds: an operation that ONNX lacks, more than 2 GB
        raise InputError(f"{trained.arch} cannot be written as ONNX: {reason_of(error)}") from error

    def run(images: Tensor) -> Tensor:
        [embeddings] = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(embeddings)

    check_outputs(network, run, size)
    write_output(output, file.getvalue())
    return f"{output}: images [batch, 3, {size}, {size}], from 0 to 1, to embeddings [batch, {encoder.dim}]"


def check_outputs(encoder: nn.Module, other: Callable[[Tensor], Tensor], size: int) -> None:
    """Raise InputError unless both map random images [B, 3, S, S] to the same [B, D], for several B."""
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected, found = encoder(images), other(images)
        limit = TOLERANCE * expected.abs().max()
        if found.shape != expected.shape or not (found - expected).abs().max() <= limit:
            raise InputError(f"the exported encoder does not compute what the run's does, for {batch} images")
