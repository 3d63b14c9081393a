"""The kernels against the whole matrix in float64: on a GPU where there is one, else in Triton's interpreter.

Triton decides for its interpreter when it is imported, so that runs in a process of its own.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from core import HardNegativeLoss
from core.losses import triton_tiles
from core.losses.contrastive import log_negative_mean, samples_of_views

pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from core.losses import triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
on_a_gpu = pytest.mark.gpu


@pytest.fixture(scope="module")
def run():
    """Calls a function where the kernels run; numpy arrays in and out."""
    if DEVICE == "cuda":
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == "1"  # has started, keeps it
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def kernels(rows, columns, row_samples, column_samples, temperature, beta, stop_gradient, weights, sums=None):
    """What ``dense`` gives; the gradients with ``sums`` where they are over more columns than these."""
    x = torch.from_numpy(rows).to(DEVICE)
    y = x if columns is None else torch.from_numpy(columns).to(DEVICE)
    assert triton_tiles.is_usable(x)
    assert not triton_tiles.is_usable(x.double())
    block = x, y, row_samples, column_samples, temperature, beta
    own_sums = triton_tiles.log_sums(*block)
    sums = own_sums if sums is None else [torch.from_numpy(each).to(DEVICE) for each in sums]
    anchors = anchors_of(sums, torch.from_numpy(weights).to(DEVICE), temperature, beta, stop_gradient)
    if columns is None:
        grads = [triton_tiles.gradient(x, x, row_samples, row_samples, anchors, anchors, temperature, beta)]
    else:
        # Infinite sums: softmaxes are 0, and those embeddings no anchors.
        candidates = torch.tensor([torch.inf, torch.inf, 0, 0], device=DEVICE).expand(len(y), 4)
        backwards = y, x, column_samples, row_samples, candidates, anchors, temperature, beta
        grads = [
            triton_tiles.gradient(*block[:4], anchors, candidates, temperature, beta),
            triton_tiles.gradient(*backwards),
        ]
    return [each.cpu().numpy() for each in (*own_sums, *grads)]


def anchors_of(sums, weights, temperature, beta, stop_gradient):
    """Sums and factors of anchors, [R, 4], for the gradient of weights @ (the sums' difference)."""
    factors = (1, 0) if stop_gradient else (1 + beta, -beta)
    return torch.stack([*sums, *(factor * weights / temperature for factor in factors)], dim=1)


def dense(rows, columns, row_samples, column_samples, temperature, beta, stop_gradient, weights):
    """Both sums, and autograd's gradients of weights @ (their difference); no columns are the rows."""
    x = torch.from_numpy(rows).double().requires_grad_()
    y = x if columns is None else torch.from_numpy(columns).double().requires_grad_()
    logits = x @ y.T / temperature
    mask = samples_of_views(x, row_samples.start)[:, None] != samples_of_views(y, column_samples.start)
    sums = [torch.where(mask, scale * logits, -torch.inf).logsumexp(dim=1) for scale in (1 + beta, beta)]
    objective = torch.from_numpy(weights).double() @ log_negative_mean(logits, mask, beta, stop_gradient)
    grads = torch.autograd.grad(objective, [x] if columns is None else [x, y])
    return [each.detach().numpy() for each in (*sums, *grads)]


def embeddings(samples, dim):
    """Unit vectors of two views, and weights that tell the rows apart: [2 samples, dim], [2 samples]."""
    generator = torch.Generator().manual_seed(samples)
    x = normalize(torch.randn(2 * samples, dim, generator=generator), dim=1)
    return x.numpy(), torch.randn(2 * samples, generator=generator).numpy()


def part(x, samples):
    """Those samples of both views."""
    return np.ascontiguousarray(x.reshape(2, len(x) // 2, -1)[:, samples.start : samples.stop]).reshape(
        2 * len(samples), *x.shape[1:]
    )


def assert_close(actual, expected, temperature, beta):
    """As near as float32 comes, relative to an array's largest number.

    An exponential's relative error is the error of what stands in it, which may be (1 + beta) / temperature.
    """
    tolerance = 1e-5 + 2 * np.finfo(np.float32).eps * (1 + beta) / temperature
    for given, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


# Blocks hold 128 rows, 64 columns, 32 and 128 dimensions: some fill theirs, in some a view ends inside.
@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("beta", "temperature"), [(0, 0.5), (1, 0.05), (8, 0.5), (8, 0.05)])
@pytest.mark.parametrize(("samples", "dim"), [(2, 3), (64, 16), (67, 100), (96, 160)])
def test_one_process(run, samples, dim, beta, temperature, stop_gradient):
    x, weights = embeddings(samples, dim)
    settings = range(samples), range(samples), temperature, beta, stop_gradient, weights
    assert_close(run(kernels, x, None, *settings), dense(x, None, *settings), temperature, beta)


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("beta", "temperature"), [(0, 0.5), (1, 0.05), (8, 0.5)])
@pytest.mark.parametrize("first", [0, 7, 40])
def test_rows_are_some_of_the_columns(run, first, beta, temperature, stop_gradient):
    x, weights = embeddings(70, 16)
    samples = range(first, first + 30)
    rows, weights = part(x, samples), part(weights, samples)
    settings = samples, range(70), temperature, beta, stop_gradient, weights
    assert_close(run(kernels, rows, x, *settings), dense(rows, x, *settings), temperature, beta)


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("size", [1, 35])
def test_columns_in_parts(run, size, beta):
    """Sums add up and gradients are parts of the whole, also where a part holds but the row's own sample."""
    x, weights = embeddings(3 * size, 16)
    parts = [range(first, first + size) for first in range(0, 3 * size, size)]
    rows, weights = part(x, parts[1]), part(weights, parts[1])
    settings = 0.5, beta, False, weights
    alone = [run(kernels, rows, part(x, samples), parts[1], samples, *settings) for samples in parts]
    if size == 1:
        for found, nothing in zip(alone[1], (-np.inf, -np.inf, 0, 0), strict=True):
            assert (found == nothing).all()
    sums = [np.logaddexp.reduce([found[k] for found in alone]) for k in range(2)]
    expected = dense(rows, x, parts[1], range(3 * size), *settings)
    together = [run(kernels, rows, part(x, samples), parts[1], samples, *settings, sums) for samples in parts]
    assert_close([*sums, sum(found[2] for found in together)], expected[:3], 0.5, beta)
    for samples, found in zip(parts, together, strict=True):
        np.testing.assert_allclose(found[3], part(expected[3], samples), rtol=0, atol=1e-5)


@pytest.mark.parametrize("beta", [0, 32])
def test_where_exponentials_overflow(run, beta):
    """Copies and opposites at temperature 0.01: logits of 100 and -100, times 33. A maximum taken before a
    row's own similarity is excluded, or begun at 0, would leave nothing but zeros of the negatives."""
    x, weights = embeddings(20, 16)
    x[1], x[2], x[23] = x[0], -x[0], x[0]
    opposites = np.array([[1, 0], [-1, 0]] * 2, dtype=np.float32)
    for each in (x, opposites, np.eye(40, dtype=np.float32), np.ones_like(x) / 4):
        samples = range(len(each) // 2)
        settings = samples, samples, 0.01, beta, False, weights[: len(each)]
        found = run(kernels, each, None, *settings)
        assert all(np.isfinite(array).all() for array in found)
        assert_close(found, dense(each, None, *settings), 0.01, beta)


def objective(views, tile_size, beta, tau_plus):
    """The loss of two views, its gradient, and how often the kernels were asked."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        log_sums = triton_tiles.log_sums
        patch.setattr(triton_tiles, "log_sums", lambda *block: asked.append(1) or log_sums(*block))
        x = torch.from_numpy(views).to(DEVICE).requires_grad_()
        loss = HardNegativeLoss(beta, tau_plus, 0.5, tile_size)(*x)
        (grad,) = torch.autograd.grad(loss, x)
    return loss.item(), grad.cpu().numpy(), len(asked)


@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (2, 0.1)])
def test_the_objective_in_tiles_takes_the_kernels_by_itself(run, beta, tau_plus):
    views = embeddings(20, 16)[0].reshape(2, 20, 16)
    loss, grad, asked = run(objective, views, 7, beta, tau_plus)
    expected, wanted, of_dense = run(objective, views, None, beta, tau_plus)
    assert (asked, of_dense) == (1, 0)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grad, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_not_numbers_are_not_hidden(run):
    x, weights = embeddings(5, 3)
    x[3] = np.nan
    sums = run(kernels, x, None, range(5), range(5), 0.5, 1, False, weights)[:2]
    assert np.isnan(sums).all(axis=0).sum() >= 8  # all but, at most, the two rows of the sample itself


def test_usable_where_the_kernels_compile(monkeypatch):
    """A GPU on which a trial fails is left to PyTorch's tiles, with a word about why."""
    assert not triton_tiles.is_usable(torch.zeros(4, 3, dtype=torch.float64))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not triton_tiles.is_usable(torch.zeros(4, 3))

    def no_compiler(*arguments):
        raise RuntimeError("Failed to find C compiler.\nAnd more")

    monkeypatch.setattr(triton_tiles, "log_sums", no_compiler)
    with pytest.warns(
        UserWarning, match=r"cannot run on cpu, PyTorch's tiles can: Failed to find C compiler\.$"
    ):
        assert not triton_tiles._works_on.__wrapped__(torch.device("cpu"))


def test_compiles_for_an_h100_without_one(monkeypatch, tmp_path):
    """What the interpreter forgives, the compiler may not; and every GPU since Ampere has 99 KiB to share."""
    made = []
    for name in ("log_sums_kernel", "gradient_kernel"):
        monkeypatch.setattr(triton_kernels, name, Compiled(getattr(triton_kernels, name), made))
    monkeypatch.setattr(driver, "_active", H100())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x, weights = map(torch.from_numpy, embeddings(67, 100))
    block = x, x.clone(), range(67), range(67), 0.5, 1.0
    sums = triton_tiles.log_sums(*block)
    anchors = anchors_of(sums, weights, 0.5, 1.0, False)
    triton_tiles.gradient(*block[:4], anchors, anchors, 0.5, 1.0)
    assert len(made) == 2
    assert max(kernel.metadata.shared for kernel in made) <= 99 * 2**10


class Compiled:
    """In a kernel's place: compiles it for what it would be launched with."""

    def __init__(self, kernel, made):
        self.kernel, self.made = kernel, made

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.made.append(
            self.kernel.warmup(*arguments, grid=grid, **constants)
        )


class H100:
    """As much of a GPU's driver as compiling asks for."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return "an H100"

    def get_current_stream(self, device):
        return 0


@on_a_gpu
def test_equals_pytorch_on_a_gpu():
    x, weights = (torch.from_numpy(array).cuda() for array in embeddings(4096, 128))
    block = x, x, range(4096), range(4096), 0.1, 1.0
    sums = triton_tiles.log_sums(*block)
    anchors = anchors_of(sums, weights, 0.1, 1.0, False)
    grad = triton_tiles.gradient(*block[:4], anchors, anchors, 0.1, 1.0)
    x.requires_grad_()
    samples = samples_of_views(x)
    expected = log_negative_mean(x @ x.T / 0.1, samples[:, None] != samples, 1.0, False)
    (wanted,) = torch.autograd.grad(expected @ weights, x)
    for found, known in ((sums[0] - sums[1], expected), (grad, wanted)):
        assert (found - known).abs().max() < 5e-5 * known.abs().max()


@on_a_gpu
@pytest.mark.parametrize("batch", [4096, 32_768, 262_144])
def test_memory_is_linear_on_a_gpu(batch):
    """One more tensor like the embeddings, and some numbers a row."""
    x = normalize(torch.randn(2 * batch, 128, device="cuda"), dim=1)
    block = x, x, range(batch), range(batch), 0.5, 1.0
    triton_tiles.is_usable(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sums = triton_tiles.log_sums(*block)
    anchors = anchors_of(sums, torch.ones_like(sums[0]), 0.5, 1.0, False)
    grad = triton_tiles.gradient(*block[:4], anchors, anchors, 0.5, 1.0)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= x.nbytes + 2 * batch * 12 * 4 + 2**20
    assert grad.isfinite().all()
