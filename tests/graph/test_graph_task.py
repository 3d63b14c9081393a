"""The task gives objective, prior, optimizer and batches their settings."""

import pytest
import torch

from core import InfoGraphLoss
from graph.config import GraphConfig
from graph.task import GraphTask
from tests.core.losses.equation import assert_same_gradient


def configs_of(tiny_root, **settings):
    config = GraphConfig(dataset="TINY", data_root=tiny_root, batch_size=10, hidden=8, **settings)
    return config.checked().expand()


def task_of(tiny_root, **settings):
    return GraphTask(configs_of(tiny_root, **settings), torch.device("cpu"))


@pytest.mark.parametrize(("variant", "other"), [("corrected", "released"), ("released", "corrected")])
def test_training_step_is_each_runs_objective_of_the_variant(tiny_root, variant, other):
    settings = {"beta": 1.0, "tau_plus": 0.3, "seeds": "0,1", "betas": "0.5,2", "variant": variant}
    task = task_of(tiny_root, **settings)
    batch, _ = next(iter(task.batches(epoch=1)))
    local, global_, _ = task.model(batch)
    losses, _ = task.training_step((batch, None))

    def expected(variant):
        return [
            InfoGraphLoss(config.beta, config.tau_plus, variant=variant)(
                local[i], global_[i], batch.graph[i], batch.node[i], batch.weight[i]
            ).item()
            for i, config in enumerate(configs_of(tiny_root, **settings))
        ]

    assert losses.tolist() == pytest.approx(expected(variant), rel=1e-5)
    assert all(abs(loss - value) > 0.01 for loss, value in zip(losses, expected(other), strict=True))


def test_prior_draws_other_numbers_in_every_epoch_and_run(tiny_root):
    """Uniform ones; an epoch that is trained again has the same."""
    task = task_of(tiny_root, beta=1.0, tau_plus=0.1, prior_weight=0.3, seeds="0,1")
    first, again, second = (
        torch.cat([uniform for _, uniform in task.batches(epoch)], dim=1) for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not (first == second).any()
    assert not (first[0] == first[1]).any()
    for draws in (first, second):
        assert draws.min() >= 0
        assert draws.max() < 1
        assert draws.mean().item() == pytest.approx(0.5, abs=0.05)


def test_optimizer_is_adam_without_weight_decay(tiny_root):
    task = task_of(tiny_root, beta=1.0, tau_plus=0.1, lr=0.02)
    assert type(task.optimizer).__name__ == "Adam"
    assert [(group["lr"], group["weight_decay"]) for group in task.optimizer.param_groups] == [(0.02, 0.0)]


def test_prior_is_added_with_its_weight(tiny_root):
    """By its equation, from sigmoids, for each of two runs on the batch's own random numbers."""
    task = task_of(tiny_root, beta=1.0, tau_plus=0.1, prior_weight=0.3, seeds="0,1")
    batch, uniform = next(iter(task.batches(epoch=1)))
    _, _, graphs = task.model(batch)
    noise, represented = (task.model.prior.logit(x).sigmoid() for x in (uniform, graphs))
    prior = -(noise.log() + (1 - represented).log()).mean(dim=(1, 2))
    with_prior, _ = task.training_step((batch, uniform))
    without, _ = task.training_step((batch, None))
    torch.testing.assert_close(with_prior, without + 0.3 * prior)
    assert (prior > 0.1).all()


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_gradient_is_the_objectives_with_the_weights_constant_or_not(tiny_root, stop_gradient):
    task = task_of(tiny_root, beta=2.0, tau_plus=0.1, stop_gradient=stop_gradient)
    batch, _ = next(iter(task.batches(epoch=1)))
    local, global_, graphs = (x.detach().requires_grad_() for x in task.model(batch))
    task.model = lambda batch: (local, global_, graphs)
    [loss], _ = task.training_step((batch, None))

    def expected(stop_gradient):
        objective = InfoGraphLoss(2.0, 0.1, stop_gradient=stop_gradient)
        return objective(local[0], global_[0], batch.graph[0], batch.node[0], batch.weight[0])

    assert_same_gradient(loss, expected(stop_gradient), (local, global_))
    with pytest.raises(AssertionError):
        assert_same_gradient(loss, expected(not stop_gradient), (local, global_), rtol=0.01, atol=1e-4)
