"""Image runs that are resumed, start from another run, or end early."""

import json

import pytest
import torch
from safetensors.torch import load_file

from core.training.checkpoints import Checkpoints
from image.evaluate import main as evaluate_main
from image.views import Views
from tests.image.commands import FAST, VIEWS_BEFORE, failure, train
from tests.runs import (
    counted_steps,
    epochs_and_losses,
    losses_of,
)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--optimizer", "lars", "--schedule", "cosine", "--warmup", "1"),
        ("--positives", "label"),
        ("--cache-chunk", "5"),
    ],
    ids=["adam", "lars", "true positives", "chunks"],
)
@pytest.mark.parametrize("step", [2, 4, 7])
def test_resumed_run_has_the_same_weights(tiny_folder, tmp_path, monkeypatch, flags, step):
    """Interrupted at a step of the first, second or third epoch: bit-identical at the end."""
    expected, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(tiny_folder, expected, *flags)
    made_views, forward = [], Views.forward

    def interrupt(views, images, generator):
        made_views.append(views)
        if len(made_views) == VIEWS_BEFORE + 2 * step:
            raise KeyboardInterrupt
        return forward(views, images, generator)

    monkeypatch.setattr(Views, "forward", interrupt)
    with pytest.raises(SystemExit):
        train(tiny_folder, resumed, "--checkpoint-seconds", "0", *flags)
    monkeypatch.setattr(Views, "forward", forward)
    assert not (resumed / "result.json").exists()
    torch.rand(7)  # a new process has other random states
    with counted_steps() as steps:
        train(tiny_folder, resumed, "--resume", *flags)
    assert steps.call_count == 9 - (step - 1)  # no step is repeated
    encoders = [(folder / "encoder.safetensors").read_bytes() for folder in (expected, resumed)]
    assert encoders[0] == encoders[1]
    assert epochs_and_losses(resumed) == epochs_and_losses(expected)


def test_run_starts_from_the_weights_of_another(tiny_folder, tmp_path, capsys):
    first = train(tiny_folder, tmp_path / "first")
    result = train(tiny_folder, tmp_path / "second", "--init", str(tmp_path / "first"), "--lr", "1e-12")
    assert result["untrained_metrics"] == first["metrics"]
    before, after = (load_file(tmp_path / name / "encoder.safetensors") for name in ("first", "second"))
    torch.testing.assert_close(after["encoder.conv1.weight"], before["encoder.conv1.weight"])
    assert not torch.equal(after["encoder.bn1.running_mean"], before["encoder.bn1.running_mean"])
    assert losses_of(tmp_path / "second")[0] < losses_of(tmp_path / "first")[0]


def test_run_that_another_cannot_start_from_is_one_line(tiny_folder, tmp_path, capsys):
    train(tiny_folder, tmp_path / "first")
    flags = [*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(tmp_path / "second"), "--init"]
    assert failure(capsys, *flags, str(tmp_path / "first"), "--width", "8", "--norm", "group") == (
        f"error: --init is {tmp_path / 'first'}, whose encoder has width 4, not 8 and norm batch, not group"
    )
    assert "nowhere does not exist" in failure(capsys, *flags, "nowhere")
    (tmp_path / "first" / "result.json").unlink()
    assert "first, which is not finished; resume it with --resume" in failure(
        capsys, *flags, str(tmp_path / "first")
    )
    assert not (tmp_path / "second").exists()


def test_encoder_of_another_architecture_is_refused(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_folder, folder)
    where = ["--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder)]
    message = failure(capsys, *FAST, *where, "--width", "8", "--norm", "group")
    assert 'holds a run of other settings (width 4 there, 8 now; norm "batch" there, "group" now)' in message
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"arch": "resnet18"}))
    with pytest.raises(SystemExit) as exit_:
        evaluate_main([str(folder), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "encoder.safetensors does not hold this encoder" in capsys.readouterr().err


def test_non_finite_loss_keeps_the_last_good_checkpoint(tiny_folder, tmp_path, capsys, monkeypatch):
    made_views, forward = [], Views.forward

    def nan_from_step_5(views, images, generator):
        made_views.append(views)
        return forward(views, images, generator) * (float("nan") if len(made_views) > VIEWS_BEFORE + 8 else 1)

    monkeypatch.setattr(Views, "forward", nan_from_step_5)
    with pytest.raises(SystemExit) as exit_:
        train(tiny_folder, tmp_path / "run", "--checkpoint-seconds", "0")
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert "the loss became nan in epoch 2, step 2" in message
    assert "try a smaller --lr than 0.001" in message
    state = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert (state["progress"]["epoch"], len(state["progress"]["step_statistics"])) == (2, 1)
    assert all(value.isfinite().all() for value in state["model"].values())
