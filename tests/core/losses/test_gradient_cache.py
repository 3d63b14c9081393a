"""Gradient caching has the value, gradients, statistics and masks of the whole batch, in less memory."""

import functools
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core import HardNegativeLoss
from core.distributed import all_reduce_mean, local_slice, parallel, world_size
from core.losses.gradient_cache import GradientCached, cached
from tests.processes import in_processes

BATCH = 8


class Pair(nn.Module):
    """Projections of two views by a small convolutional network in float64, to tell equal from nearly so."""

    def __init__(self, norm="group", dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        make_norm = {"batch": nn.BatchNorm2d, "group": functools.partial(nn.GroupNorm, 4)}[norm]
        layers = []
        for inputs, outputs in ((3, 8), (8, 16), (16, 16)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            layers += [convolution, make_norm(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout)).double()
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)).double()

    def forward(self, view1, view2):
        projections = self.head(self.encoder(torch.cat([view1, view2])))
        return F.normalize(projections.double(), dim=1).chunk(2)


def views():
    return torch.randn(2, BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def by_chunks(encoder, chunks):
    """The reference: every chunk's graph is kept until backward."""
    return [torch.cat(parts) for parts in zip(*(encoder(*chunk) for chunk in chunks), strict=True)]


def step(encoder, encode, **objective):
    """Loss, gradients and buffers after a step of ``encoder``, whose outputs ``encode()`` returns."""
    loss = HardNegativeLoss(2.0, 0.1, 0.5, normalize=False, **objective)(*encode())
    loss.backward()
    actual = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return {"loss": loss.detach()} | actual | dict(encoder.named_buffers())


def assert_same(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


EXACTLY = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 100])
def test_chunks_have_the_value_and_gradient_of_the_whole_batch(chunk):
    whole, chunked = Pair(), Pair()
    expected = step(whole, lambda: whole(*views()))
    assert_same(step(chunked, lambda: GradientCached(chunked, chunk)(*views())), expected, **EXACTLY)
    assert all(value.abs().max() > 1e-6 for value in expected.values())


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_encoder_may_return_a_tensor(chunk):
    x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    outputs = GradientCached(encoder, chunk)(x)
    torch.testing.assert_close(outputs, encoder(x))
    parameters = list(encoder.parameters())
    gradients = [torch.autograd.grad(y.square().sum(), parameters) for y in (outputs, encoder(x))]
    torch.testing.assert_close(*gradients, **EXACTLY)


@pytest.mark.parametrize("chunk", [0, -1, 2.5])
def test_chunks_without_a_sample_are_refused(chunk):
    with pytest.raises(ValueError, match=f"`chunk` is {chunk}; it must be an integer of at least 1"):
        GradientCached(nn.Linear(1, 1), chunk)


def test_encoder_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="the encoder is a function; it must be a module"):
        GradientCached(lambda x: x, 2)


@pytest.mark.parametrize("batch", [{"input_ids": torch.zeros(4, 1)}, [0.0, 1.0]])
def test_batch_that_is_no_tensor_is_refused(batch):
    with pytest.raises(TypeError, match=f"the batch has a {type(batch).__name__}; it must be tensors"):
        GradientCached(nn.Linear(1, 1), 2)(batch)


@pytest.mark.parametrize("chunk", [2, 3])
def test_batch_norm_has_the_statistics_of_a_chunk_and_counts_it_once(chunk):
    """As if the encoder were called chunk by chunk, running statistics included; unlike the whole batch."""
    plain, chunked, whole = Pair("batch"), Pair("batch"), Pair("batch")
    chunks = GradientCached(plain, chunk).split(chunk, *views())
    expected = step(plain, lambda: by_chunks(plain, chunks))
    assert_same(step(chunked, lambda: GradientCached(chunked, chunk)(*views())), expected, **EXACTLY)
    assert chunked.encoder[1].num_batches_tracked == len(chunks)
    assert (step(whole, lambda: whole(*views()))["loss"] - expected["loss"]).abs() > 1e-4


def test_dropout_draws_the_same_masks_in_both_passes():
    plain, chunked = Pair(dropout=0.5), Pair(dropout=0.5)
    torch.manual_seed(1)
    chunks = GradientCached(plain, 3).split(3, *views())
    expected = step(plain, lambda: by_chunks(plain, chunks))
    torch.manual_seed(1)
    outputs = GradientCached(chunked, 3)(*views())
    torch.rand(7)  # a loss that draws
    after = torch.get_rng_state()
    assert_same(step(chunked, lambda: outputs), expected, **EXACTLY)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("backward_inside", [True, False])
def test_under_autocast(backward_inside):
    """Both passes run in bfloat16, whether backward is called under autocast or not."""

    def one_step(encoder, encode):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = encode()
            if backward_inside:
                return step(encoder, lambda: outputs)
        return step(encoder, lambda: outputs)

    plain, chunked = Pair().float(), Pair().float()
    images = views().float()
    chunks = GradientCached(plain, 3).split(3, *images)
    expected = one_step(plain, lambda: by_chunks(plain, chunks))
    actual = one_step(chunked, lambda: GradientCached(chunked, 3)(*images))
    full = Pair()
    exact = step(full, lambda: full(*views()))
    assert actual["loss"] == expected["loss"] != exact["loss"].float()
    # The reference adds up a weight's gradient over the chunks in bfloat16, we in float32.
    assert_same(actual, expected, rtol=0.1, atol=0.05)
    for name, value in actual.items():
        ours, theirs = (
            (grad.double() - exact[name]).norm() / exact[name].norm() for grad in (value, expected[name])
        )
        assert ours <= 1.5 * theirs + 1e-3, name


def test_clipping_and_a_fused_optimizer_work():
    def trained(chunk):
        encoder = Pair()
        network = cached(encoder, chunk)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=0.1, fused=True)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            HardNegativeLoss(2.0, 0.1, 0.5, normalize=False)(*network(*views())).backward()
            norm = nn.utils.clip_grad_norm_(encoder.parameters(), 0.5)
            optimizer.step()
        return encoder.state_dict() | {"norm": norm}

    assert cached(module := nn.Identity(), None) is module
    assert_same(trained(3), trained(None), rtol=1e-8, atol=1e-8)


def test_parameters_may_share_a_gradient_or_have_none():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.unused, self.frozen = (
                nn.Parameter(torch.ones(2)) for _ in range(4)
            )
            self.frozen.requires_grad_(False)

        def forward(self, x):
            outputs = x + (self.first + self.second) + self.frozen
            return outputs, outputs

    x = torch.arange(10.0).view(5, 2)
    encoder = Sum()
    first, second = GradientCached(encoder, 2)(x)
    assert torch.equal(first, x + 3)
    (first.square().sum() + second.sum()).backward()
    expected = 2 * (x + 3).sum(0) + 5
    torch.testing.assert_close(encoder.first.grad, expected)
    torch.testing.assert_close(encoder.second.grad, expected)
    assert encoder.unused.grad is encoder.frozen.grad is None


def test_double_backward_is_refused():
    encoder = Pair()
    loss = GradientCached(encoder, 3)(*views())[0].sum()
    with pytest.raises(
        RuntimeError, match=r"does not support double backward .*; the encoder itself, `chunk=None`"
    ):
        torch.autograd.grad(loss, list(encoder.parameters()), create_graph=True)


def test_parameters_changed_before_backward_are_refused():
    encoder = Pair()
    outputs = GradientCached(encoder, 3)(*views())
    with torch.no_grad():
        encoder.head[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs[0].sum().backward()


def test_without_a_gradient_there_is_no_graph():
    encoder = Pair()
    with torch.no_grad():
        outputs = GradientCached(encoder, 3)(*views())
    assert not outputs[0].requires_grad
    torch.testing.assert_close(outputs, encoder(*views()), **EXACTLY)


def test_a_compiled_encoder_can_be_cached():
    plain, chunked = Pair(), Pair()
    chunked.compile(backend="aot_eager")
    expected = step(plain, lambda: plain(*views()))
    assert_same(step(chunked, lambda: GradientCached(chunked, 4)(*views())), expected, **EXACTLY)


def most_saved(run):
    """The most bytes that autograd has saved for backward at any time of ``run()``."""
    saved = most = 0

    class Saved:
        def __init__(self, x):
            self.x = x

    def release(size):
        nonlocal saved
        saved -= size

    def pack(x):
        nonlocal saved, most
        if x.is_leaf and x.requires_grad:  # parameters are in memory anyway
            return x
        size = x.numel() * x.element_size()
        saved += size
        most = max(most, saved)
        packed = Saved(x)
        weakref.finalize(packed, release, size)
        return packed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: getattr(packed, "x", packed)):
        run()
    return most


def test_saved_memory_is_that_of_a_chunk():
    def bytes_of(chunk):
        encoder = Pair()
        return most_saved(lambda: step(encoder, lambda: cached(encoder, chunk)(*views())))

    whole = bytes_of(None)
    assert bytes_of(4) < 0.52 * whole
    assert bytes_of(1) < 0.15 * whole


def steps_of_chunks():
    """Steps on this process's part of the batch: group norm in both precisions, then batch norm."""
    return [
        own_step("group", torch.float64, 3),
        own_step("group", torch.float32, 2),
        own_step("batch", torch.float64, 2),
    ]


def own_step(norm, dtype, chunk):
    encoder = Pair(norm).to(dtype)
    network = parallel(cached(encoder, chunk), torch.device("cpu"))
    part = views()[:, local_slice(BATCH)].to(dtype)
    actual = step(encoder, lambda: network(*part), gather_distributed=world_size() > 1)
    actual["loss"] = all_reduce_mean(actual["loss"])
    return {name: value.numpy() for name, value in actual.items()}


@pytest.mark.distributed
def test_two_processes_with_chunks_equal_one():
    """With the whole batch; with batch norm one with chunks made of a chunk of each process."""
    whole, single, plain = Pair(), Pair().float(), Pair("batch")
    chunks = [tuple(views()[:, [i, i + 1, i + 4, i + 5]]) for i in (0, 2)]
    order = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7]).argsort()
    expected = [
        step(whole, lambda: whole(*views())),
        step(single, lambda: single(*views().float())),
        step(plain, lambda: [outputs[order] for outputs in by_chunks(plain, chunks)]),
    ]
    for steps in in_processes(2, steps_of_chunks):
        for actual, same, tolerance in zip(steps, expected, (1e-12, 1e-6, 1e-9), strict=True):
            actual = {name: torch.from_numpy(value) for name, value in actual.items()}
            assert_same(actual, same, rtol=tolerance, atol=tolerance)
