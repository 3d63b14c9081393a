"""LARS against its algorithm written out; the learning rate schedule at its corners."""

import copy
import math

import pytest
import torch
from torch import nn

from core.training.optimizers import OPTIMIZERS, lr_factor, make_optimizer


def test_lars_steps_equal_the_written_out_algorithm():
    torch.manual_seed(0)
    weight, bias = (nn.Parameter(torch.randn(size, dtype=torch.float64)) for size in ((3, 4), (4,)))
    optimizer = make_optimizer("lars", [weight, bias], lr=0.3, weight_decay=0.1)
    expected = [weight.detach().clone(), bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in expected]
    inputs = torch.randn(5, 3, dtype=torch.float64)
    for _ in range(4):
        loss = ((inputs @ weight + bias) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        grads = [weight.grad.clone(), bias.grad.clone()]
        optimizer.step()
        decayed = grads[0] + 0.1 * expected[0]
        norm_w = math.sqrt(sum(value.item() ** 2 for value in expected[0].flatten()))
        norm_g = math.sqrt(sum(value.item() ** 2 for value in decayed.flatten()))
        for i, update in enumerate((1e-3 * norm_w / norm_g * decayed, grads[1])):
            velocity[i] = 0.9 * velocity[i] + 0.3 * update
            expected[i] = expected[i] - velocity[i]
        torch.testing.assert_close(weight.detach(), expected[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(bias.detach(), expected[1], rtol=1e-12, atol=0)


def test_lars_updates_all_tensors_together_as_one_by_one():
    """In float32, within 1e-6 of a tensor's largest number, of the algorithm in float64.

    Among convolutions and vectors are a matrix of zeros, whose rate is 1, one with a gradient of zeros and
    one without a gradient, which stays as it is.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [(8, 3, 3, 3), (8,), (5, 8), (4, 4), (4, 4), (4, 4), (6,)]
    parameters = [nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]
    parameters[3].data.zero_()
    expected = [parameter.detach().double() for parameter in parameters]
    velocity = [torch.zeros_like(value) for value in expected]
    optimizer = make_optimizer("lars", parameters, lr=0.3, weight_decay=0.1)
    for _ in range(5):
        for i, parameter in enumerate(parameters):
            parameter.grad = None if i == 4 else torch.randn(sizes[i], generator=generator) * (i != 5)
        optimizer.step()
        for i, parameter in enumerate(parameters):
            if parameter.grad is None:
                continue
            update, value = parameter.grad.double(), expected[i]
            if value.ndim > 1:
                update = update + 0.1 * value
                size, slope = math.sqrt((value**2).sum()), math.sqrt((update**2).sum())
                update = update * (1e-3 * size / slope if size > 0 and slope > 0 else 1.0)
            velocity[i] = 0.9 * velocity[i] + 0.3 * update
            expected[i] = value - velocity[i]
            largest = expected[i].abs().max().item()
            torch.testing.assert_close(parameter.detach().double(), expected[i], rtol=0, atol=1e-6 * largest)
    assert torch.equal(parameters[4].detach().double(), expected[4])
    assert parameters[4] not in optimizer.state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_descends_and_resumes(name):
    """A copy loaded from state_dict takes the same next step."""
    torch.manual_seed(0)
    target = torch.randn(6, 2)
    inputs = torch.randn(6, 3)

    def make():
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        lr = {"lars": 1.0, "sgd": 1e-2}.get(name, 0.1)
        return model, make_optimizer(name, model.parameters(), lr=lr, weight_decay=1e-6)

    def step(model, optimizer):
        optimizer.zero_grad()
        loss = (model(inputs) - target).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    model, optimizer = make()
    losses = [step(model, optimizer) for _ in range(20)]
    assert losses[-1] < losses[0]
    other, other_optimizer = make()
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for pair in ((model, optimizer), (other, other_optimizer)):
        step(*pair)
    assert torch.equal(model.weight, other.weight)


def test_sgd_has_momentum_nine_tenths():
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = make_optimizer("sgd", [weight], lr=1.0, weight_decay=0.0)
    for _ in range(2):
        weight.grad = torch.ones(())
        optimizer.step()
    assert weight.item() == pytest.approx(-1 - 1.9)


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer is 'rprop'; it must be one of adam"):
        make_optimizer("rprop", [nn.Parameter(torch.zeros(1))], 0.1, 0)


def test_learning_rate_schedule_at_its_corners():
    assert lr_factor("constant", 10, 0, 7.3, 0.1) == 1
    assert lr_factor("cosine", 10, 0, 0, 0.1) == 1
    assert lr_factor("cosine", 10, 0, 5, 0.1) == pytest.approx(0.5)
    assert lr_factor("cosine", 10, 0, 10, 0.1) == pytest.approx(0)
    assert lr_factor("cosine", 10, 2, 2, 0.1) == 1
    assert lr_factor("cosine", 10, 2, 6, 0.1) == pytest.approx(0.5)
    assert lr_factor("cosine", 3, 3, 3, 0.1) == 1


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_warm_up_is_linear_from_the_first_step_to_the_whole_rate(steps):
    factors = [lr_factor("constant", 10, 4, step / steps, 1 / steps) for step in range(4 * steps + 2)]
    ramp = [(step + 1) / (4 * steps) for step in range(4 * steps)]
    assert factors == pytest.approx([*ramp, 1, 1])
