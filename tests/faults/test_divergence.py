"""Non-finite or exploding losses, gradients and weights, collapsed embeddings: detected and recorded."""

import pytest
import torch
from PIL import Image

import core.training.loop
from core.training import divergence
from core.training.checkpoints import Checkpoints
from core.training.cli import with_flags
from core.training.divergence import Divergence
from core.training.records import read_record
from shared_eval.records import main as records_main
from tests.faults.tiny import FLAGS, TinyCommand, assert_same_run, write_tiny_data

GOOD = [[2.0, 1.0, 0.5]]


def check(statistics, epoch_is_complete=True):
    """Check the loss, gradient norm and embedding spread of each step."""
    return divergence.check_steps(torch.tensor(statistics), epoch_is_complete=epoch_is_complete)


@pytest.mark.parametrize(
    ("statistics", "description", "reason", "step"),
    [
        (GOOD * 4 + [[float("nan"), 1.0, 0.5]] + GOOD, "the loss became nan", "non-finite loss", 5),
        ([[float("inf"), 1.0, 0.5]], "the loss became inf", "non-finite loss", 1),
        ([*GOOD, [2.0, float("nan"), 0.5]], "the gradient's norm became nan", "non-finite gradient", 2),
        ([*GOOD, [2.0, 1e11, 0.5]], "the gradient's norm became 1e+11", "exploding gradient", 2),
        ([*GOOD, [2e8, 1.0, 0.5], [float("nan")] * 3], "the loss became 2e+08", "exploding loss", 2),
        ([*GOOD, [-float("inf"), 1.0, 0.5]], "the loss became -inf", "non-finite loss", 2),
        (GOOD * 5 + [[2.0, 0.0, 0.0]] * 10, "the embeddings became constant", "constant embeddings", 6),
        (
            [[2.0, 0.0, 1e-9]] * 3,
            "the embeddings became constant, their relative spread 1e-09",
            "constant embeddings",
            1,
        ),
    ],
)
def test_divergence_and_collapse_are_located(statistics, description, reason, step):
    found = check(statistics)
    assert (found.reason, found.step) == (reason, step)
    assert found.description.startswith(description)


@pytest.mark.parametrize(
    "statistics",
    [GOOD, GOOD + [[2.0, 1.0, 0.0]] * 9, [[2.0, 1.0, 0.0]] * 20 + GOOD],
    ids=["good", "nine-constant-batches", "recovered"],
)
def test_short_or_past_collapse_is_accepted(statistics):
    """A few batches of equal samples do not stop a run."""
    assert check(statistics) is None


def test_collapse_inside_an_epoch_needs_ten_steps():
    assert check([[2.0, 1.0, 0.0]] * 9, epoch_is_complete=False) is None
    assert check([[2.0, 1.0, 0.0]] * 10, epoch_is_complete=False) is not None


def test_step_statistics_are_loss_norm_and_relative_spread():
    embeddings = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0)) + 3  # of two runs
    losses, norms = torch.tensor([1.5, 2.5]), torch.tensor([2.0, 3.0])
    statistics = divergence.step_statistics(losses, norms, embeddings)
    assert torch.equal(statistics[:, :2], torch.stack([losses, norms], dim=1))
    for run in range(2):
        wide = embeddings[run].double()
        expected = (wide - wide.mean(0)).square().sum() / wide.square().sum()
        assert statistics[run, 2].item() == pytest.approx(expected.item(), rel=1e-5)
    for scale in (1e-3, 1.0, 1e6):
        constant = scale * embeddings[:, :1].expand(2, 64, 8)
        assert (divergence.step_statistics(losses, norms, constant)[:, 2] < 1e-12).all()
    assert (divergence.step_statistics(losses, norms, torch.zeros(2, 4, 2))[:, 2] == 0).all()


@pytest.mark.parametrize("constant", [0.0, 3.0, 1e25, float("inf"), float("nan")])
def test_constant_representations_are_detected_at_any_scale(constant):
    """Also where their squares overflow float32."""
    varied = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert divergence.check_collapse(1e25 * varied) is None
    found = divergence.check_collapse(torch.full((64, 8), constant))
    assert found.reason == "constant embeddings"
    assert "constant in eval mode" in found.description


@pytest.mark.parametrize(
    ("modality", "flags", "reason", "message"),
    [
        (
            "image",
            "--lr 1e3 --epochs 20",
            "constant embeddings",
            "the representations became constant in eval",
        ),
        ("graph", "--lr 1e4", "exploding loss", "the loss became "),
        ("graph", "--lr 1e12 --batch-size 24 --epochs 1", "exploding weights", "the weights' norm became "),
        ("sentence", "--lr 1e6", "exploding loss", "the loss became "),
    ],
)
def test_excessive_learning_rate_ends_in_a_failure_record(
    tiny_data, tmp_path, capsys, modality, flags, reason, message
):
    folder, flags = tmp_path / "run", flags.split()
    with pytest.raises(SystemExit) as exit_:
        TinyCommand(modality, tiny_data).run_inline(folder, "--checkpoint-seconds", "1000", *flags)
    assert exit_.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {message}")
    assert error.endswith(
        f"; try a smaller --lr than {float(flags[1]):g} or a smaller --beta than 1, and another --output-dir"
    )
    assert ("check that the samples of the data differ; try" in error) == (reason == "constant embeddings")
    failure = read_record(folder / "failure.json")
    assert "try a smaller `lr` than" in failure["message"]
    assert "--" not in failure["message"]
    assert (failure["reason"], error) == (reason, f"error: {with_flags(failure['message'])}")
    assert failure["step"] > 0
    assert not (folder / "result.json").exists()
    assert not list((folder / "checkpoint").iterdir())


@pytest.mark.parametrize("modality", FLAGS)
def test_constant_data_are_named_as_the_cause(tmp_path, capsys, modality):
    """No learning rate is advised where the embeddings are constant before the first step."""
    tiny = TinyCommand(modality, write_tiny_data(tmp_path / "data"))
    for path in tiny.data.rglob("*.png"):
        Image.new("RGB", (16, 16)).save(path)
    for path in (tiny.data / "books").iterdir():
        path.write_text("This sentence is here again.\n" * 60)
    raw, graphs = tiny.data / "TUDataset" / "TINY" / "raw", range(24)
    pairs = [(2 * graph + 1, 2 * graph + 2) for graph in graphs]
    (raw / "TINY_A.txt").write_text("".join(f"{a}, {b}\n{b}, {a}\n" for a, b in pairs))
    (raw / "TINY_graph_indicator.txt").write_text("".join(f"{graph + 1}\n" * 2 for graph in graphs))
    for name in ("node_labels", "edge_labels"):
        (raw / f"TINY_{name}.txt").write_text("0\n" * 48)
    with pytest.raises(SystemExit) as exit_:
        tiny.run_inline(tmp_path / "run")
    error = capsys.readouterr().err.splitlines()[-1]
    if modality == "image":  # noticed when they are read
        assert exit_.value.code == 2
        assert "are equal after resizing; there is nothing to learn" in error
        return
    assert exit_.value.code == 1
    assert error == (
        "error: the embeddings became constant, their relative spread 0 in epoch 1, step 1; "
        "check that the samples of the data differ"
    )


def explode(optimizer_step, number, task, losses, lr):
    return optimizer_step(task, losses * (1e15 if number == 5 else 1.0), lr)


def collapse(optimizer_step, number, task, losses, lr):
    norms = optimizer_step(task, losses, lr)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.mul_(number < 2)
    return norms


@pytest.mark.parametrize(
    ("tamper", "reason", "message"),
    [
        (explode, "exploding gradient", "the gradient's norm became "),
        (collapse, "constant embeddings", "the embeddings became constant"),
    ],
)
def test_diverged_run_keeps_the_checkpoint_before(
    tiny, finished_runs, tmp_path, monkeypatch, capsys, tamper, reason, message
):
    folder, calls, optimizer_step = tmp_path / "run", [], core.training.loop.optimizer_step

    def tampered(*arguments):
        calls.append(1)
        return tamper(optimizer_step, len(calls), *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(core.training.loop, "optimizer_step", tampered)
        with pytest.raises(SystemExit) as exit_:
            tiny.run_inline(folder, "--resume")
    assert exit_.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {message}")
    assert f"; the checkpoint before it is kept in {folder}; " in error
    assert "; try a smaller --lr than" in error
    failure = read_record(folder / "failure.json")
    assert (failure["reason"], failure["modality"]) == (reason, tiny.modality)
    assert f"in epoch {failure['epoch']}, step {failure['step']};" in error
    assert error == f"error: {with_flags(failure['message'])}"
    assert not (folder / "result.json").exists()
    state = Checkpoints(folder / "checkpoint").load()
    assert all(value.isfinite().all() for value in state["model"].values())
    done = (state["progress"]["epoch"], len(state["progress"]["step_statistics"]))
    if tamper is explode:
        assert done == (failure["epoch"], failure["step"] - 1)  # the step before
    else:
        assert done == (1, 2)  # the weights are zero from then on, and the embeddings from the next step on

    records_main([str(tmp_path)])
    assert f"{folder} has no record: {with_flags(failure['message'])}" in capsys.readouterr().err
    if tamper is explode:
        tiny.run_inline(folder, "--resume")
        assert_same_run(finished_runs(tiny.modality), tiny, folder)  # and failure.json is removed


def test_infinite_weights_are_detected():
    model = torch.nn.Linear(2, 2)
    [norm] = divergence.weight_norms(model, 1)
    assert divergence.check_weights(norm) is None
    model.weight.data[0, 0] = float("inf")
    [norm] = divergence.weight_norms(model, 1)
    assert divergence.check_weights(norm) == Divergence("non-finite weights", "the weights' norm became inf")


def test_norms_of_a_group_are_per_run():
    model = torch.nn.Linear(3, 2)
    model.weight, model.bias = (
        torch.nn.Parameter(torch.randn(4, *p.shape)) for p in (model.weight, model.bias)
    )
    losses = (model.weight.sum((1, 2)) ** 2 + model.bias.sum(1)) * torch.arange(4.0)
    losses.sum().backward()
    for run in range(4):
        for norms, values in (
            (divergence.weight_norms(model, 4), (model.weight, model.bias)),
            (divergence.gradient_norms(model, 4).tolist(), (model.weight.grad, model.bias.grad)),
        ):
            expected = torch.cat([value[run].detach().flatten() for value in values])
            assert norms[run] == pytest.approx(expected.norm().item(), rel=1e-5)
