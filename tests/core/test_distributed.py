"""Two or four processes with parts of a batch equal one with the whole: losses, gradients, statistics."""

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


class Double(nn.Module):
    """SimCLR in float64, to tell equal from nearly so."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.simclr = SimCLR(make_encoder("resnet10", width=4), hidden=16, projection=8).double()

    def forward(self, images):
        return F.normalize(self.simclr.head(self.simclr.encoder(images)), dim=1)


def steps():
    """Loss, gradients and buffers after a step with each objective, then the projections in eval mode."""
    images = torch.randn(2, BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    results = {}
    for name, objective in OBJECTIVES.items():
        model = Double()
        network = parallel(model, torch.device("cpu"))
        objective.gather_distributed = world_size() > 1
        loss = objective(*network(images[:, local_slice(BATCH)].flatten(0, 1)).chunk(2))
        loss.backward()
        state = {name: parameter.grad for name, parameter in model.named_parameters()}
        state |= dict(model.named_buffers())
        with torch.no_grad():
            state["projections"] = model.eval()(images[0])
        results[name] = all_reduce_mean(loss).item(), {key: value.numpy() for key, value in state.items()}
    return results


@pytest.mark.parametrize("count", [2, 4])
def test_processes_equal_one(count):
    """1 x 8 = 2 x 4 = 4 x 2: loss, every gradient of encoder and head, batch norm's statistics."""
    whole = steps()
    for number, parts in enumerate(in_processes(count, steps)):
        for name in OBJECTIVES:
            assert parts[name][0] == pytest.approx(whole[name][0], rel=1e-10)
            assert parts[name][1].keys() == whole[name][1].keys()
            for key, expected in whole[name][1].items():
                torch.testing.assert_close(
                    torch.from_numpy(parts[name][1][key]),
                    torch.from_numpy(expected),
                    rtol=1e-8,
                    atol=1e-10,
                    msg=lambda text, where=(number, name, key): f"{where}: {text}",
                )


def test_objectives_differ_where_they_should():
    """So that the equality above says something of each."""
    losses = [loss for loss, _ in steps().values()]
    assert len({round(loss, 6) for loss in losses}) == 3
    grads = [state["simclr.head.3.weight"] for _, state in steps().values()]
    assert abs(grads[2] - grads[3]).max() > 1e-6
    for tiled, dense in ((4, 2), (5, 2), (6, 3), (7, 0)):
        assert abs(grads[tiled] - grads[dense]).max() < 1e-12


def uneven():
    with pytest.raises(InputError, match="`batch_size` is 7, the whole batch of 2 processes"):
        local_slice(7)
    return local_slice(6).start, local_slice(6).stop


def test_a_batch_is_divided_evenly_or_refused():
    assert in_processes(2, uneven) == [(0, 3), (3, 6)]


def test_a_world_of_no_size(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(InputError, match="WORLD_SIZE is x; it must be a number"):
        launched_processes()


def test_one_process_alone():
    model = nn.BatchNorm1d(2)
    x = torch.randn(3, 2)
    assert parallel(model, torch.device("cpu")) is model
    assert all_gather(x) is x
    assert local_slice(7) == slice(0, 7)
    assert (rank(), world_size()) == (0, 1)
