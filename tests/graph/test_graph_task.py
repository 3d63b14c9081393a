"""The task gives the objective and the prior their settings: losses and gradients of a batch."""

import pytest
import torch

from core import InfoGraphLoss
from graph.config import GraphConfig
from graph.task import GraphTask
from tests.core.losses.equation import assert_same_gradient


def task_of(tiny_root, **settings):
    config = GraphConfig(dataset="TINY", data_root=tiny_root, batch_size=10, hidden=8, **settings)
    return GraphTask(config.checked().expand(), torch.device("cpu"))


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
