"""A loss over several processes: negatives from all of them, their gradient, and how they are exchanged."""

import pytest
import torch

from core import HardNegativeLoss
from core.distributed import all_reduce_mean, local_slice, rank, world_size
from core.losses import exchange
from core.losses.collectives import all_gather
from tests.processes import in_processes

pytestmark = pytest.mark.distributed

BATCH = 6


def gather():
    x = torch.full((2, 1), float(rank()), requires_grad=True)
    gathered = all_gather(x)
    # Each process weights the parts differently: the gradient of a part is the sum over all processes.
    (gathered * (1 + rank()) * torch.arange(1.0, 2 * world_size() + 1).view(-1, 1)).sum().backward()
    return gathered.detach().flatten().tolist(), x.grad.flatten().tolist(), all_reduce_mean(x).tolist()


def test_all_gather_has_a_gradient():
    for number, (gathered, grad, mean) in enumerate(in_processes(3, gather)):
        assert gathered == [0, 0, 1, 1, 2, 2]
        assert grad == [(1 + 2 + 3) * (2 * number + 1), (1 + 2 + 3) * (2 * number + 2)]
        assert mean == [[1], [1]]


def derivatives():
    """Of the processes' losses (x_0 x_1)^2: the first with respect to x, and that of its square."""
    x = torch.tensor([[2.0], [1.0]], dtype=torch.float64)[rank() : rank() + 1].requires_grad_()
    (first,) = torch.autograd.grad(all_gather(x).prod().square(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return first.item(), second.item()


def test_all_gather_has_a_second_derivative():
    """The sum of both losses is 2 x_0^2 x_1^2, its derivatives 4 x_0 x_1^2 and 4 x_0^2 x_1."""
    x = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(2 * x.prod().square(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert in_processes(2, derivatives) == list(zip(first.tolist(), second.tolist(), strict=True))


def steps():
    """Each loss over this process's samples, and the means over all processes of its gradients."""
    views = torch.randn(2, BATCH, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 2, 1, 2])
    own = local_slice(BATCH)
    results = {}
    for name, options, inputs in (
        ("labels", {}, (labels[own],)),
        ("learned", {}, ()),
        ("learned, in tiles", {"tile_size": 2, "exchange": "gather"}, ()),
        ("learned, in a ring", {"tile_size": 2, "exchange": "ring"}, ()),
    ):
        learned = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.5, 0.4)]
        loss = HardNegativeLoss(learned[0], 0.1, learned[1], gather_distributed=world_size() > 1, **options)
        value = loss(*views[:, own], *inputs)
        gradients = torch.autograd.grad(value, learned)
        results[name] = [all_reduce_mean(number).item() for number in (value, *gradients)]
    return results


def test_labels_and_learnt_settings_equal_one_process():
    expected = steps()
    assert expected["labels"] != pytest.approx(expected["learned"])
    for results in in_processes(2, steps):
        assert results.keys() == expected.keys()
        for name, numbers in expected.items():
            assert results[name] == pytest.approx(numbers, rel=1e-10), name
            assert numbers == pytest.approx(expected["labels" if name == "labels" else "learned"], rel=1e-10)


def different_sizes():
    """Refused by every process, in tiles and without, also after it has seen either size in all processes."""
    for exchange_ in ("auto", "ring"):
        for tile_size in (None, 2):
            loss = HardNegativeLoss(tile_size=tile_size, gather_distributed=True, exchange=exchange_)
            for count in (2, 3):
                assert loss(torch.eye(4)[:count], torch.eye(4)[:count]).isfinite()
            views = torch.eye(4)[: 2 + rank()]
            with pytest.raises(ValueError, match="the processes have 2, 3 samples; all must have equally"):
                loss(views, views)


def test_processes_with_different_numbers_of_samples_are_refused():
    in_processes(2, different_sizes)


def choose(*free):
    """The exchanges of 4 embeddings of 2 numbers, with so many bytes free in each process."""
    chosen = []
    for bytes_ in free:
        exchange.free_memory = lambda device, bytes_=bytes_: bytes_[rank()]
        chosen.append(exchange.choose_exchange(torch.zeros(4, 2)))
    return chosen


def test_embeddings_are_gathered_only_where_they_fit_in_every_process():
    """64 bytes of two processes, twice: 128, a quarter of 512."""
    assert in_processes(2, choose, (513, 513), (513, 511)) == [["gather", "ring"]] * 2
    assert 2**20 < exchange.free_memory(torch.device("cpu")) < 2**50
