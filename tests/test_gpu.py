"""Training of every modality on a GPU: no step waits for it, runs end, deterministic ones are equal.

Without one, what has a meaning there runs on the CPU.
"""

import pytest
import torch

from core.training.runtime import set_deterministic
from tests.faults.tiny import TinyCommand, write_tiny_data
from tests.runs import losses_of, result_of
from tests.steps import TASKS, tiny_task, train

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Flags of two kinds of steps of each modality.
KINDS = [
    ("image", ()),
    ("image", ("--optimizer", "lars", "--positives", "label")),
    ("graph", ()),
    ("graph", ("--seeds", "0,1", "--prior-weight", "0.1")),
    ("sentence", ()),
    ("sentence", ("--encoder", "gru")),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.mark.gpu
@pytest.mark.parametrize(("modality", "flags"), KINDS)
def test_no_step_waits(modality, flags, data, tmp_path):
    task = tiny_task(TinyCommand(modality, data), tmp_path, DEVICE, *flags)
    train(task)  # libraries are loaded, and cuDNN chooses its algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        statistics = train(task, epoch=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(statistics).isfinite().all()


@pytest.mark.parametrize(("modality", "flags"), KINDS)
def test_deterministic_steps_are_equal(modality, flags, data, tmp_path):
    set_deterministic(True)
    try:
        first, second = (
            train(tiny_task(TinyCommand(modality, data), tmp_path, DEVICE, *flags)) for _ in range(2)
        )
    finally:
        set_deterministic(False)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("modality", TASKS)
def test_run_ends_and_resumes_on_the_cpu(modality, data, tmp_path):
    """Its losses are those of a run on the CPU, up to the rounding of TF32; images have other views there."""
    command = TinyCommand(modality, data)
    for device in ("cuda", "cpu"):
        command.run_inline(tmp_path / device, "--device", device)
        assert result_of(tmp_path / device)["environment"]["device"].startswith(device)
    if modality != "image":
        assert losses_of(tmp_path / "cuda") == pytest.approx(losses_of(tmp_path / "cpu"), rel=0.05)
    (tmp_path / "cuda" / "result.json").unlink()
    command.run_inline(tmp_path / "cuda", "--device", "cpu", "--resume")
    assert result_of(tmp_path / "cuda")["environment"]["device"] == "cpu"
