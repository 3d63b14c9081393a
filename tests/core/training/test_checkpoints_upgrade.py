"""Checkpoints that older code wrote resume."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graph.train import main as train_main
from tests.graph.conftest import write_tu_dataset
from tests.runs import counted_steps, epochs_and_losses, interrupted_before_step, result_of

EPOCHS, STEPS = 4, 3


@pytest.fixture
def flags(tmp_path) -> list[str]:
    """Flags of a graph run of EPOCHS times STEPS steps; the output folder comes last and is missing."""
    write_tu_dataset(tmp_path / "data")
    flags = ["--dataset", "TINY", "--epochs", str(EPOCHS), "--batch-size", "10", "--hidden", "8"]
    return [*flags, "--device", "cpu", "--data-root", str(tmp_path / "data"), "--output-dir"]


def rewrite(path: Path, schema: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a checkpoint again, its state changed, with another schema."""
    head, _, body = path.read_bytes().partition(b"\n")
    header = json.loads(head)
    assert header["schema"] == 4
    state = torch.load(io.BytesIO(body), weights_only=True)
    change(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    header = {"schema": schema, "generation": header["generation"]}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + buffer.getvalue()).hexdigest()
    path.write_bytes(json.dumps(header | {"sha256": digest}).encode() + b"\n" + buffer.getvalue())


def downgrade(state: dict[str, Any]) -> None:
    """Make a state one of schema 2."""
    progress = state.pop("progress")
    state["place"] = {
        "history": [{"epoch": 0} | progress["untrained"], *progress["history"]],
        "epoch": progress["epoch"],
        "measures": progress["step_statistics"],
        "epoch_seconds": progress["epoch_seconds"],
        "seconds": progress["seconds"],
    }


@pytest.mark.parametrize("steps_done", [2 * STEPS, 2 * STEPS + 1], ids=["between epochs", "inside an epoch"])
def test_checkpoint_of_schema_2_resumes_to_the_same_weights(flags, tmp_path, steps_done):
    expected, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train_main([*flags, str(expected)])
    with interrupted_before_step(steps_done + 1):
        train_main([*flags, str(resumed), "--checkpoint-seconds", "0"])
    checkpoints = list((resumed / "checkpoint").glob("*.pt"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        rewrite(path, 2, downgrade)
    torch.rand(7)  # a new process has other random states
    with counted_steps() as steps:
        train_main([*flags, str(resumed), "--resume"])
    assert steps.call_count == EPOCHS * STEPS - steps_done
    encoders = [(folder / "encoder.safetensors").read_bytes() for folder in (expected, resumed)]
    assert encoders[0] == encoders[1]
    assert epochs_and_losses(resumed) == epochs_and_losses(expected)
    for name in ("metrics", "untrained_metrics"):
        assert result_of(resumed)[name] == result_of(expected)[name]
