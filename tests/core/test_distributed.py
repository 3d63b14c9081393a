"""Two or four processes, each with a part of a batch, equal one process: losses, gradients, statistics."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core import DebiasedLoss, HardNegativeLoss, NTXentLoss
from core.distributed import (
    all_reduce_mean,
    launched_processes,
    local_slice,
    parallel,
    rank,
    world_size,
)
from core.io.errors import InputError
from core.losses.collectives import all_gather
from image.encoder import SimCLR, make_encoder
from tests.processes import in_processes

pytestmark = pytest.mark.distributed
BATCH = 8
OBJECTIVES = {
    "simclr": NTXentLoss(0.5),
    "debiased": DebiasedLoss(0.1, 0.5),
    "hard": HardNegativeLoss(2.0, 0.1, 0.5),
    "hard, weights constant": HardNegativeLoss(2.0, 0.1, 0.5, stop_gradient=True),
    "hard, in tiles": HardNegativeLoss(2.0, 0.1, 0.5, tile_size=3, exchange="gather"),
    "hard, in a ring": HardNegativeLoss(2.0, 0.1, 0.5, tile_size=3, exchange="ring"),
    "weights constant, in a ring": HardNegativeLoss(
        2.0, 0.1, 0.5, tile_size=3, stop_gradient=True, exchange="ring"
    ),
    "simclr, in a ring": HardNegativeLoss(0.0, 0.0, 0.5, tile_size=3, exchange="ring"),
}


class SimCLR64(nn.Module):
    """SimCLR in float64, so that rounding is far below the differences that an error would make."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.simclr = SimCLR(make_encoder("resnet10", width=4), hidden=16, projection=8).double()

    def forward(self, images):
        return F.normalize(self.simclr.head(self.simclr.encoder(images)), dim=1)


def step_of_each_objective():
    """By objective: the loss, and gradients, buffers and eval-mode projections after one backward pass."""
    images = torch.randn(2, BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    results = {}
    for name, objective in OBJECTIVES.items():
        model = SimCLR64()
        network = parallel(model, torch.device("cpu"))
        objective.gather_distributed = world_size() > 1
        loss = objective(*network(images[:, local_slice(BATCH)].flatten(0, 1)).chunk(2))
        loss.backward()
        tensors = {key: parameter.grad for key, parameter in model.named_parameters()}
        tensors |= dict(model.named_buffers())
        with torch.no_grad():
            tensors["projections"] = model.eval()(images[0])
        results[name] = all_reduce_mean(loss).item(), {key: value.numpy() for key, value in tensors.items()}
    return results


@pytest.mark.parametrize("count", [2, 4])
def test_processes_equal_one_process(count):
    """1 x 8 = 2 x 4 = 4 x 2: loss, every gradient of encoder and head, batch norm's statistics."""
    expected = step_of_each_objective()
    for process, results in enumerate(in_processes(count, step_of_each_objective)):
        for name, (expected_loss, expected_tensors) in expected.items():
            loss, tensors = results[name]
            assert loss == pytest.approx(expected_loss, rel=1e-10)
            assert tensors.keys() == expected_tensors.keys()
            for key, value in expected_tensors.items():
                torch.testing.assert_close(
                    torch.from_numpy(tensors[key]),
                    torch.from_numpy(value),
                    rtol=1e-8,
                    atol=1e-10,
                    msg=lambda text, where=(process, name, key): f"{where}: {text}",
                )


def test_objectives_differ_and_their_tiles_do_not():
    """Otherwise the test above could pass with one objective for all."""
    results = step_of_each_objective()
    assert len({round(loss, 6) for loss, _ in results.values()}) == 3
    grads = {name: tensors["simclr.head.3.weight"] for name, (_, tensors) in results.items()}
    assert abs(grads["hard"] - grads["hard, weights constant"]).max() > 1e-6
    for tiled, dense in (
        ("hard, in tiles", "hard"),
        ("hard, in a ring", "hard"),
        ("weights constant, in a ring", "hard, weights constant"),
        ("simclr, in a ring", "simclr"),
    ):
        assert abs(grads[tiled] - grads[dense]).max() < 1e-12


def slice_of_6_samples():
    with pytest.raises(InputError, match="`batch_size` is 7, the whole batch of 2 processes"):
        local_slice(7)
    return local_slice(6).start, local_slice(6).stop


def test_batch_is_divided_evenly_or_refused():
    assert in_processes(2, slice_of_6_samples) == [(0, 3), (3, 6)]


def test_world_size_that_is_not_a_number_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(InputError, match="WORLD_SIZE is x; it must be a number"):
        launched_processes()


def test_single_process_needs_no_wrapper_and_keeps_the_full_batch():
    model = nn.BatchNorm1d(2)
    x = torch.randn(3, 2)
    assert parallel(model, torch.device("cpu")) is model
    assert all_gather(x) is x
    assert local_slice(7) == slice(0, 7)
    assert (rank(), world_size()) == (0, 1)
