"""Losses, gradients and embeddings that have gone astray: found, located, recorded."""

import pytest
import torch

import core.training.loop
from core.io.errors import DivergedError
from core.training import divergence
from core.training.checkpoints import Checkpoints
from core.training.records import read_record
from shared_eval.records import main as records_main
from tests.faults.tiny import Tiny, check_is_as

GOOD = [[2.0, 1.0, 0.5]]


def check(measures, is_whole=True):
    divergence.check(torch.tensor(measures), 7, "try less", is_whole)


@pytest.mark.parametrize(
    ("measures", "said", "reason", "step"),
    [
        (GOOD * 4 + [[float("nan"), 1.0, 0.5]] + GOOD, "the loss became nan", "non-finite loss", 5),
        ([[float("inf"), 1.0, 0.5]], "the loss became inf", "non-finite loss", 1),
        ([*GOOD, [2.0, float("nan"), 0.5]], "the gradient's norm became nan", "non-finite gradient", 2),
        ([*GOOD, [2.0, 1e11, 0.5]], "the gradient's norm became 1e+11", "exploding gradient", 2),
        (
            [*GOOD, [2e8, 1.0, 0.5], [float("nan")] * 3],
            "the loss became 2e+08",
            "exploding loss",
            2,
        ),
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
def test_what_has_gone_astray_is_found(measures, said, reason, step):
    with pytest.raises(DivergedError) as found:
        check(measures)
    assert (found.value.reason, found.value.epoch, found.value.step) == (reason, 7, step)
    assert str(found.value).startswith(said)
    assert str(found.value).endswith(f"in epoch 7, step {step}; try less")


@pytest.mark.parametrize("measures", [GOOD, GOOD + [[2.0, 1.0, 0.0]] * 9, [[2.0, 1.0, 0.0]] * 20 + GOOD])
def test_what_may_happen_is_let_pass(measures):
    """A few batches of equal samples are no collapse, nor one that has passed."""
    check(measures)


def test_part_of_an_epoch_is_no_collapse():
    check([[2.0, 1.0, 0.0]] * 9, is_whole=False)
    with pytest.raises(DivergedError):
        check([[2.0, 1.0, 0.0]] * 10, is_whole=False)


def test_measures():
    embedding = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 3
    loss, norm, spread = divergence.measure(torch.tensor(1.5), torch.tensor(2.0), embedding).tolist()
    wide = embedding.double()
    expected = (wide - wide.mean(0)).square().sum() / wide.square().sum()
    assert (loss, norm) == (1.5, 2.0)
    assert spread == pytest.approx(expected.item(), rel=1e-5)
    for scale in (1e-3, 1.0, 1e6):
        constant = scale * embedding[:1].expand(64, 8)
        assert (
            divergence.measure(loss=torch.tensor(0.0), norm=torch.tensor(0.0), embedding=constant)[2] < 1e-12
        )
    assert divergence.measure(torch.tensor(0.0), torch.tensor(0.0), torch.zeros(4, 2))[2] == 0


@pytest.mark.parametrize("constant", [0.0, 3.0, 1e25, float("inf"), float("nan")])
def test_constant_representations(constant):
    """Of any size, where squares of it no longer are numbers of float32."""
    varied = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    divergence.check_spread(1e25 * varied, 7, 3, "try less")
    with pytest.raises(
        DivergedError, match=r"constant in eval mode, .* in epoch 7, step 3; try less"
    ) as found:
        divergence.check_spread(torch.full((64, 8), constant), 7, 3, "try less")
    assert found.value.reason == "constant embeddings"


@pytest.mark.parametrize(
    ("modality", "flags", "reason", "said"),
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
def test_an_absurd_learning_rate(tiny_data, tmp_path, capsys, modality, flags, reason, said):
    folder, flags = tmp_path / "run", flags.split()
    with pytest.raises(SystemExit) as exit_:
        Tiny(modality, tiny_data).here(folder, "--checkpoint-seconds", "1000", *flags)
    assert exit_.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {said}")
    assert error.endswith(
        f"; try a smaller --lr than {float(flags[1]):g} or a smaller --beta than 1, and another --output-dir"
    )
    failure = read_record(folder / "failure.json")
    assert (failure["reason"], error) == (reason, f"error: {failure['message']}")
    assert failure["step"] > 0
    assert not (folder / "result.json").exists()
    assert not list((folder / "checkpoint").iterdir())


def explode(optimizer_step, number, model, optimizer, loss, *rest):
    return optimizer_step(model, optimizer, loss * (1e15 if number == 5 else 1.0), *rest)


def collapse(optimizer_step, number, model, *rest):
    norm = optimizer_step(model, *rest)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(number < 2)
    return norm


@pytest.mark.parametrize(
    ("tamper", "reason", "said"),
    [
        (explode, "exploding gradient", "the gradient's norm became "),
        (collapse, "constant embeddings", "the embeddings became constant"),
    ],
)
def test_a_run_that_diverges(tiny, whole_runs, tmp_path, monkeypatch, capsys, tamper, reason, said):
    folder, taken, optimizer_step = tmp_path / "run", [], core.training.loop.optimizer_step

    def tampered(*arguments):
        taken.append(1)
        return tamper(optimizer_step, len(taken), *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(core.training.loop, "optimizer_step", tampered)
        with pytest.raises(SystemExit) as exit_:
            tiny.here(folder, "--resume")
    assert exit_.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {said}")
    assert f"; the checkpoint before it is kept in {folder}; try a smaller --lr than" in error
    failure = read_record(folder / "failure.json")
    assert (failure["reason"], failure["modality"]) == (reason, tiny.modality)
    assert f"in epoch {failure['epoch']}, step {failure['step']};" in error
    assert error == f"error: {failure['message']}"
    assert not (folder / "result.json").exists()
    state = Checkpoints(folder / "checkpoint").load()
    assert all(value.isfinite().all() for value in state["model"].values())
    if tamper is explode:
        done = (state["place"]["epoch"] - 1, len(state["place"]["measures"]))
        assert done == (failure["epoch"] - 1, failure["step"] - 1)  # the step before

    records_main([str(tmp_path)])
    assert f"{folder} has no record: {failure['message']}" in capsys.readouterr().err
    if tamper is explode:
        tiny.here(folder, "--resume")
        check_is_as(whole_runs(tiny.modality), tiny, folder)  # no failure.json is left


def test_weights_that_overflow_are_not_saved():
    model = torch.nn.Linear(2, 2)
    divergence.check_weights(*divergence.weight_norms(model, 1), 1, 2, "try less")
    model.weight.data[0, 0] = float("inf")
    with pytest.raises(
        DivergedError, match="the weights' norm became inf in epoch 1, step 2; try less"
    ) as found:
        divergence.check_weights(*divergence.weight_norms(model, 1), 1, 2, "try less")
    assert found.value.reason == "non-finite weights"


def test_each_run_of_a_group_has_norms_of_its_own():
    model = torch.nn.Linear(3, 2)
    model.weight, model.bias = (
        torch.nn.Parameter(torch.randn(4, *p.shape)) for p in (model.weight, model.bias)
    )
    loss = (model.weight.sum((1, 2)) ** 2 + model.bias.sum(1)) * torch.arange(4.0)
    loss.sum().backward()
    for run in range(4):
        for norms, values in (
            (divergence.weight_norms(model, 4), (model.weight, model.bias)),
            (divergence.gradient_norm(model, loss).tolist(), (model.weight.grad, model.bias.grad)),
        ):
            of_run = torch.cat([value[run].detach().flatten() for value in values])
            assert norms[run] == pytest.approx(of_run.norm().item(), rel=1e-5)
