"""A step of the training loop, on a model whose gradient is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from core.training.loop import optimizer_step


@pytest.mark.parametrize(("clip_norm", "moved"), [(None, 10.0), (20.0, 10.0), (1.0, 1.0)])
def test_step_is_scaled_down_to_the_maximum_norm(clip_norm, moved):
    """The gradient is (6, 8); its norm before that is returned, and the learning rate is the step's own."""
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    task = SimpleNamespace(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), clip_norm=clip_norm
    )
    norms = optimizer_step(task, model(torch.tensor([6.0, 8.0])), lr=1.0)
    assert norms.tolist() == pytest.approx([10.0])
    step = (before - model.weight.detach()).flatten()
    assert step.tolist() == pytest.approx([0.6 * moved, 0.8 * moved], rel=1e-5)
