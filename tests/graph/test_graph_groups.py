"""Runs trained together: each is the run that it would be alone, and one that fails stops no other."""

import json

import pytest
import torch
from safetensors.torch import load_file

from core import InfoGraphLoss
from core.io.errors import InputError
from core.training.checkpointer import Stopwatch
from core.training.run_folder import Run
from graph.config import GraphConfig
from tests.graph.conftest import remove_labels
from tests.graph.test_graph_train import train, train_group
from tests.runs import losses_of, result_of

GROUP = ["--seeds", "0-1", "--betas", "0,2"]


def test_runs_trained_together_equal_single_runs(tiny_root, tmp_path):
    """The same folders, and the same numbers up to rounding."""
    group_root, single_root = tmp_path / "group", tmp_path / "single"
    train_group(tiny_root, group_root, *GROUP)
    folders = sorted(path.parent for path in group_root.rglob("result.json"))
    assert [str(folder.relative_to(group_root)) for folder in folders] == [
        f"{objective}/seed-{seed}"
        for objective in ("debiased-tau0.1", "hard-beta2-tau0.1")
        for seed in (0, 1)
    ]
    for folder in folders:
        settings = json.loads((folder / "config.json").read_text())
        flags = [f"--{name}={settings[name]}" for name in ("objective", "beta", "seed")]
        single = single_root / folder.relative_to(group_root)
        expected = train(tiny_root, single, *flags)
        result = result_of(folder)
        assert result["trained_together"] == 4
        assert result["objective"] == expected["objective"]
        assert result["untrained_metrics"] == expected["untrained_metrics"]
        assert losses_of(folder) == pytest.approx(losses_of(single), rel=1e-3)
        weights, expected_weights = (load_file(run / "encoder.safetensors") for run in (folder, single))
        for name, value in weights.items():
            torch.testing.assert_close(value, expected_weights[name], rtol=0.02, atol=0.02)
        expected_settings = json.loads((single / "config.json").read_text())
        assert settings | {"output_dir": ""} == expected_settings | {"output_dir": ""}


def test_seed_in_the_output_dir_gives_each_run_its_folder(tiny_root, tmp_path):
    train_group(tiny_root, tmp_path / "runs" / "{seed}", "--seeds", "0,1")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0", "1"]
    for seed in (0, 1):
        assert result_of(tmp_path / "runs" / str(seed))["seed"] == seed


def test_seed_in_the_output_dir_is_not_enough_for_several_betas(tiny_root, tmp_path):
    config = GraphConfig(
        beta=1.0, tau_plus=0.1, seeds="0,1", betas="1,2", output_dir=tmp_path / "seed-{seed}"
    )
    with pytest.raises(InputError, match="one folder a seed, but `betas` has 2 numbers"):
        config.expand()
    assert not list(tmp_path.glob("seed-*"))


def test_group_interrupted_between_its_checkpoints_resumes(tiny_root, tmp_path, monkeypatch):
    """Interrupted while the checkpoints of a group are written: some runs are an epoch behind the others."""
    train_group(tiny_root, tmp_path / "uninterrupted", *GROUP)
    save_checkpoint, saved = Run.save_checkpoint, []

    def stop_after_ten(run, state):
        saved.append(run)
        if len(saved) == 11:
            raise KeyboardInterrupt
        save_checkpoint(run, state)

    monkeypatch.setattr(Run, "save_checkpoint", stop_after_ten)
    with pytest.raises(SystemExit):
        train_group(tiny_root, tmp_path / "resumed", *GROUP, "--checkpoint-seconds", "0")
    train_group(tiny_root, tmp_path / "resumed", *GROUP, "--resume")
    for path in (tmp_path / "uninterrupted").rglob("metrics.jsonl"):
        resumed = tmp_path / "resumed" / path.parent.relative_to(tmp_path / "uninterrupted")
        assert losses_of(resumed) == pytest.approx(losses_of(path.parent), rel=1e-3)
        assert (resumed / "result.json").exists()


def test_diverged_run_does_not_stop_its_group(tiny_root, tmp_path, monkeypatch, capsys):
    """Its folder says why, the other runs are finished, and the exit code is 1."""
    forward = InfoGraphLoss.forward

    def nan_at_beta_2(loss, *arguments):
        return forward(loss, *arguments) + torch.tensor(
            [float("nan") if beta == 2 else 0 for beta in loss.beta]
        )

    monkeypatch.setattr(InfoGraphLoss, "forward", nan_at_beta_2)
    with pytest.raises(SystemExit) as exit_:
        train_group(tiny_root, tmp_path / "runs", *GROUP)
    assert exit_.value.code == 1
    assert "the loss became nan in epoch 1, step 1" in capsys.readouterr().err
    for seed in (0, 1):
        debiased, hard = (
            tmp_path / "runs" / objective / f"seed-{seed}"
            for objective in ("debiased-tau0.1", "hard-beta2-tau0.1")
        )
        assert result_of(debiased)["metrics"]
        assert json.loads((hard / "failure.json").read_text())["reason"] == "non-finite loss"
        assert not (hard / "result.json").exists()


def test_seconds_of_a_group_are_shared_by_its_runs(tiny_root, tmp_path, monkeypatch):
    """By a clock on which each of the three steps of an epoch, the rest of it and evaluation take 8 s."""
    remove_labels(tiny_root)  # without an SVM evaluation is fast
    monkeypatch.setattr(Stopwatch, "lap", lambda stopwatch: 8.0)
    train_group(tiny_root, tmp_path / "runs", *GROUP, "--epochs", "2")
    paths = list(tmp_path.rglob("result.json"))
    assert len(paths) == 4
    for path in paths:
        result = result_of(path.parent)
        assert result["train_seconds"] == 2 * (3 + 1) * 8 / 4
        assert result["eval_seconds"] == 8 / 4
        assert result["samples_per_second"] == 24 * 2 / 16
