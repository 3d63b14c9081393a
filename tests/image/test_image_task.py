"""What the settings of an image run do to its steps: objective, optimizer, schedule, compilation."""

import functools
import math

import pytest
import torch

from core.training.loop import optimizer_step
from image.config import ImageConfig
from image.encoder import TwoViews
from image.task import ImageTask
from tests.core.losses.equation import anchor_losses
from tests.image.commands import train
from tests.runs import counted_steps, metrics_of

SMALL = {"beta": 1.0, "tau_plus": 0.1, "arch": "resnet10", "width": 4, "batch_size": 6}
SMALL |= {"view_size": 8, "image_size": 8, "precision": "float32"}


def make_task(tiny_folder, **settings) -> ImageTask:
    config = ImageConfig(dataset=f"folder:{tiny_folder}", **SMALL | settings)
    task = ImageTask([config], torch.device("cpu"))
    task.start_epoch(1)
    task.model.train()
    return task


def gradient_of(task, loss):
    """By every parameter, as one vector."""
    return flat(torch.autograd.grad(loss, list(task.model.parameters())))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class Scalars:
    """A matrix whose list is of float64 tensors, which keep their gradient."""

    def __init__(self, matrix):
        self.rows = [row.unbind() for row in matrix.double()]

    def __len__(self):
        return len(self.rows)

    def tolist(self):
        return self.rows


class ConstantWeights(float):
    """A beta whose weights e^{beta s} are constants."""

    def __mul__(self, similarity):
        return float(self) * similarity.detach()


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_training_step_has_the_objective_of_the_settings(tiny_folder, stop_gradient):
    settings = {"beta": 2.0, "tau_plus": 0.2, "temperature": 0.1}
    task = make_task(tiny_folder, stop_gradient=stop_gradient, **settings)
    batch = next(iter(task.batches(1)))
    loss = task.training_step(batch)[0]

    beta = (ConstantWeights if stop_gradient else float)(settings["beta"])
    projections = [Scalars(projection) for projection in task.network(*batch)]
    number = functools.partial(torch.as_tensor, dtype=torch.float64)
    losses = anchor_losses(*projections, beta, 0.2, 0.1, number=number, exp=torch.exp, log=torch.log)
    expected = torch.stack(losses).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    wanted = gradient_of(task, expected)
    torch.testing.assert_close(
        gradient_of(task, loss), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item()
    )


def test_weight_decay_pulls_the_weights_to_zero(tiny_folder):
    """By lr times weight decay times the weights, beside the same step without it."""
    weights = []
    for decay in (0.0, 0.5):
        task = make_task(tiny_folder, optimizer="sgd", weight_decay=decay)
        before = flat(task.model.parameters())
        optimizer_step(task, task.training_step(next(iter(task.batches(1))))[0], lr=0.1)
        weights.append(flat(task.model.parameters()))
    torch.testing.assert_close(weights[0] - weights[1], 0.1 * 0.5 * before, rtol=1e-3, atol=1e-6)


def test_learning_rate_warms_up_and_falls_along_a_cosine(tiny_folder, tmp_path):
    """Two epochs up, one down, of three steps each; an epoch records the rate of its last step."""
    with counted_steps() as steps:
        train(tiny_folder, tmp_path / "run", "--schedule", "cosine", "--warmup", "2", "--lr", "0.01")
    up = [step / 6 for step in range(1, 7)]
    down = [math.cos(math.pi / 6 * step) ** 2 for step in range(3)]  # (1 + cos 2x) / 2
    wanted = [0.01 * factor for factor in up + down]
    assert [call.args[2] for call in steps.call_args_list] == pytest.approx(wanted)
    recorded = [line["learning_rate"] for line in metrics_of(tmp_path / "run")[1:]]
    assert recorded == pytest.approx(wanted[2::3])


@pytest.mark.parametrize("chunk", [None, 3])
def test_every_step_calls_the_encoder_that_was_compiled(tiny_folder, monkeypatch, chunk):
    """Of chunks the encoder is compiled, not the cache around it; two chunks are encoded twice."""
    calls = []

    def counted(call):
        def counting(*batch):
            calls.append(type(call.__self__))
            return call(*batch)

        return counting

    monkeypatch.setattr(torch, "compile", counted)
    eager, compiled = (make_task(tiny_folder, cache_chunk=chunk, compile=wanted) for wanted in (False, True))
    losses = [task.training_step(next(iter(task.batches(1))))[0] for task in (eager, compiled)]
    losses[1].backward()
    assert calls == [TwoViews] * (1 if chunk is None else 4)
    assert losses[0].item() == losses[1].item()
