"""Shapes and initial weights of the encoder and its heads, and the prior."""

import pytest
import torch

from graph.batch import make_batches
from graph.data import load_dataset
from graph.encoder import GIN, BatchNorm, InfoGraph, Linear, PriorDiscriminator, make_models


@pytest.fixture
def batch(tiny_root):
    return make_batches(load_dataset("TINY", tiny_root), 24, [0, 1], torch.device("cpu"))[0]


def test_model_has_the_right_shapes_and_initial_weights(batch):
    model = make_models(3, 8, 2, seeds=[0, 1])
    local, global_, graphs = model(batch)
    assert local.shape == (2, batch.sums.shape[1], 16)
    assert global_.shape == graphs.shape == (2, 24, 16)
    for module in model.modules():
        if isinstance(module, Linear):
            _, outputs, inputs = module.weight.shape
            bound = (6 / (inputs + outputs)) ** 0.5
            assert (module.weight.abs().amax((1, 2)) <= bound).all()
            assert (module.weight.abs().amax((1, 2)) > 0.5 * bound).all()
            assert (module.bias == 0).all()


def test_weights_of_a_run_depend_on_its_seed_alone():
    together, alone = make_models(3, 8, 2, [4, 7]).state_dict(), make_models(3, 8, 2, [7]).state_dict()
    for name, value in alone.items():
        assert torch.equal(together[name][1:], value)
    assert not torch.equal(*together["encoder.mlps.0.0.weight"])


def test_prior_is_two_log_two_for_a_constant_discriminator():
    prior = InfoGraph(GIN(3, hidden=8, layers=2)).prior
    torch.nn.init.zeros_(prior.logit[-1].weight)
    loss = prior(torch.randn(1, 5, 16), torch.rand(1, 5, 16))
    assert loss.item() == pytest.approx(2 * torch.tensor(2.0).log().item())


def test_prior_equals_its_formula():
    prior = PriorDiscriminator(4)
    graphs, uniform = torch.randn(1, 5, 4), torch.rand(1, 5, 4)
    by_hand = -torch.sigmoid(prior.logit(uniform)).log().mean()
    by_hand -= (1 - torch.sigmoid(prior.logit(graphs))).log().mean()
    torch.testing.assert_close(prior(graphs, uniform), by_hand.reshape(1))


def test_batch_norm_equals_that_of_repeated_rows_and_refuses_double_backward():
    """Value, statistics and gradients of two runs, by torch's own on every node."""
    generator = torch.Generator().manual_seed(0)
    copies = torch.tensor([[1, 4, 2], [3, 1, 1]])
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    grad = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    norm = BatchNorm(5).double()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data = torch.rand(2, 5, dtype=torch.float64, generator=generator)
    plain = [torch.nn.BatchNorm1d(5).double() for _ in range(2)]
    for run, one in enumerate(plain):
        one.load_state_dict({name: value[run] for name, value in norm.state_dict().items()}, strict=False)
    count = copies.sum(1).view(2, 1, 1).double()
    y = norm(x, (copies / count.squeeze(2)).unsqueeze(1), count)
    gradients = torch.autograd.grad(y, (x, norm.weight, norm.bias), grad, retain_graph=True)
    for run, one in enumerate(plain):
        rows = torch.arange(3).repeat_interleave(copies[run])
        wanted = one(x[run][rows])
        torch.testing.assert_close(y[run][rows], wanted)
        per_copy = (grad[run] / copies[run].unsqueeze(1))[rows]
        alone = torch.autograd.grad(wanted, (x, one.weight, one.bias), per_copy)
        torch.testing.assert_close(gradients[0][run], alone[0][run])
        for gradient, expected in zip(gradients[1:], alone[1:], strict=True):
            torch.testing.assert_close(gradient[run], expected)
        torch.testing.assert_close(norm.running_mean[run], one.running_mean)
        torch.testing.assert_close(norm.running_var[run], one.running_var)
    with pytest.raises(RuntimeError, match="batch norm in training does not support double backward"):
        torch.autograd.grad(y, x, grad, create_graph=True)
