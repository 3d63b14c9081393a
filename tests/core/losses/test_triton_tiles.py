"""The kernels against the whole matrix in float64: on a GPU where there is one, else in Triton's interpreter.

Triton decides for its interpreter when it is imported, so that runs in a process of its own.
"""

import os
import re
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from core import HardNegativeLoss
from core.losses import triton_tiles
from core.losses.functional import log_negative_mean
from core.losses.torch_tiles import Block, TileSettings

pytest.importorskip("triton")
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from core.losses import triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
on_a_gpu = pytest.mark.gpu


@pytest.fixture(autouse=True)
def fresh_attempts(monkeypatch):
    """No test remembers where the kernels worked or failed in another."""
    monkeypatch.setattr(triton_tiles, "_working", set())
    monkeypatch.setattr(triton_tiles, "_failures", Counter())


@pytest.fixture(scope="module")
def run():
    """Calls a function in the process where the kernels run; numpy arrays in and out."""
    if DEVICE == "cuda":
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == "1"  # has started, keeps it
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def kernels(rows, columns, row_samples, column_samples, temperature, beta, stop_gradient, weights, sums=None):
    """What ``dense`` returns; the gradients with ``sums`` where they are over more columns than these."""
    x = torch.from_numpy(rows).to(DEVICE)
    y = x if columns is None else torch.from_numpy(columns).to(DEVICE)
    assert triton_tiles.is_usable(x)
    assert not triton_tiles.is_usable(x.double())
    block, settings = Block(x, y, row_samples, column_samples), TileSettings(temperature, beta, 1)
    own_sums = triton_tiles.log_sums(block, settings)
    sums = own_sums if sums is None else [torch.from_numpy(each).to(DEVICE) for each in sums]
    anchors = anchors_of(sums, torch.from_numpy(weights).to(DEVICE), temperature, beta, stop_gradient)
    if columns is None:
        grads = [triton_tiles.gradient(block, anchors, anchors, settings)]
    else:
        # Where the sums are infinite the softmaxes are 0: these embeddings are candidates only.
        candidates = torch.tensor([torch.inf, torch.inf, 0, 0], device=DEVICE).expand(len(y), 4)
        transposed = Block(y, x, column_samples, row_samples)
        grads = [
            triton_tiles.gradient(block, anchors, candidates, settings),
            triton_tiles.gradient(transposed, candidates, anchors, settings),
        ]
    return [each.cpu().numpy() for each in (*own_sums, *grads)]


def anchors_of(sums, weights, temperature, beta, stop_gradient):
    """Sums and factors of anchors, [R, 4], for the gradient of weights @ (the sums' difference)."""
    factors = (1, 0) if stop_gradient else (1 + beta, -beta)
    return torch.stack([*sums, *(factor * weights / temperature for factor in factors)], dim=1)


def dense(rows, columns, row_samples, column_samples, temperature, beta, stop_gradient, weights):
    """Both sums, and autograd's gradients of weights @ (their difference); without columns, the rows are."""
    x = torch.from_numpy(rows).double().requires_grad_()
    y = x if columns is None else torch.from_numpy(columns).double().requires_grad_()
    logits = x @ y.T / temperature
    mask = torch.tensor([*row_samples] * 2)[:, None] != torch.tensor([*column_samples] * 2)
    sums = [torch.where(mask, scale * logits, -torch.inf).logsumexp(dim=1) for scale in (1 + beta, beta)]
    objective = torch.from_numpy(weights).double() @ log_negative_mean(logits, mask, beta, stop_gradient)
    grads = torch.autograd.grad(objective, [x] if columns is None else [x, y])
    return [each.detach().numpy() for each in (*sums, *grads)]


def embeddings(samples, dim):
    """Unit vectors of two views, and a different weight for each row: [2 samples, dim], [2 samples]."""
    generator = torch.Generator().manual_seed(samples)
    x = normalize(torch.randn(2 * samples, dim, generator=generator), dim=1)
    return x.numpy(), torch.randn(2 * samples, generator=generator).numpy()


def part(x, samples):
    """Those samples of both views."""
    return np.ascontiguousarray(x.reshape(2, len(x) // 2, -1)[:, samples.start : samples.stop]).reshape(
        2 * len(samples), *x.shape[1:]
    )


def assert_close(actual, expected, temperature, beta):
    """Equal up to float32's rounding, relative to an array's largest number.

    An exponential's relative error is the error of its argument, which may be (1 + beta) / temperature.
    """
    tolerance = 1e-5 + 2 * np.finfo(np.float32).eps * (1 + beta) / temperature
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# A block is 64 rows, 64 or 32 columns, 32 or 128 dimensions: some cases fill it, in some a view ends inside.
@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("beta", "temperature"), [(0, 0.5), (1, 0.05), (8, 0.5), (8, 0.05)])
# Above 128 dimensions as many columns as dimensions are computed at a time.
@pytest.mark.parametrize(("samples", "dim"), [(2, 3), (64, 16), (67, 100), (96, 160)])
def test_one_process(run, samples, dim, beta, temperature, stop_gradient):
    x, weights = embeddings(samples, dim)
    settings = range(samples), range(samples), temperature, beta, stop_gradient, weights
    assert_close(run(kernels, x, None, *settings), dense(x, None, *settings), temperature, beta)


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("beta", "temperature"), [(0, 0.5), (1, 0.05), (8, 0.5)])
@pytest.mark.parametrize(("first", "dim"), [(0, 16), (7, 16), (40, 16), (7, 130)])
def test_rows_are_some_of_the_columns(run, first, dim, beta, temperature, stop_gradient):
    x, weights = embeddings(70, dim)
    samples = range(first, first + 30)
    rows, weights = part(x, samples), part(weights, samples)
    settings = samples, range(70), temperature, beta, stop_gradient, weights
    assert_close(run(kernels, rows, x, *settings), dense(rows, x, *settings), temperature, beta)


@pytest.mark.parametrize("beta", [0, 1])
@pytest.mark.parametrize("size", [1, 35])
def test_columns_in_parts(run, size, beta):
    """Sums add up and gradients are parts of the whole, also where a part has no negatives."""
    x, weights = embeddings(3 * size, 16)
    parts = [range(first, first + size) for first in range(0, 3 * size, size)]
    rows, weights = part(x, parts[1]), part(weights, parts[1])
    settings = 0.5, beta, False, weights
    alone = [run(kernels, rows, part(x, samples), parts[1], samples, *settings) for samples in parts]
    if size == 1:
        for actual, nothing in zip(alone[1], (-np.inf, -np.inf, 0, 0), strict=True):
            assert (actual == nothing).all()
    sums = [np.logaddexp.reduce([actual[k] for actual in alone]) for k in range(2)]
    expected = dense(rows, x, parts[1], range(3 * size), *settings)
    together = [run(kernels, rows, part(x, samples), parts[1], samples, *settings, sums) for samples in parts]
    assert_close([*sums, sum(actual[2] for actual in together)], expected[:3], 0.5, beta)
    for samples, actual in zip(parts, together, strict=True):
        np.testing.assert_allclose(actual[3], part(expected[3], samples), rtol=0, atol=1e-5)


@pytest.mark.parametrize("beta", [0, 32])
def test_where_exponentials_overflow(run, beta):
    """Copies and opposites at temperature 0.01: logits of 100 and -100, times 33.

    A maximum over a row's own sample too, or one that starts at 0, would make all negatives' weights 0.
    """
    x, weights = embeddings(20, 16)
    x[1], x[2], x[23] = x[0], -x[0], x[0]
    opposites = np.array([[1, 0], [-1, 0]] * 2, dtype=np.float32)
    for each in (x, opposites, np.eye(40, dtype=np.float32), np.ones_like(x) / 4):
        samples = range(len(each) // 2)
        settings = samples, samples, 0.01, beta, False, weights[: len(each)]
        actual = run(kernels, each, None, *settings)
        assert all(np.isfinite(array).all() for array in actual)
        assert_close(actual, dense(each, None, *settings), 0.01, beta)


def objective(views, tile_size, beta, tau_plus):
    """The loss of two views, its gradient, and how often the kernels were called."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        log_sums = triton_tiles.log_sums
        patch.setattr(triton_tiles, "log_sums", lambda *block: calls.append(1) or log_sums(*block))
        x = torch.from_numpy(views).to(DEVICE).requires_grad_()
        loss = HardNegativeLoss(beta, tau_plus, 0.5, tile_size=tile_size)(*x)
        (grad,) = torch.autograd.grad(loss, x)
    return loss.item(), grad.cpu().numpy(), len(calls)


@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (2, 0.1)])
def test_a_loss_in_tiles_uses_the_kernels(run, beta, tau_plus):
    views = embeddings(20, 16)[0].reshape(2, 20, 16)
    loss, grad, calls = run(objective, views, 7, beta, tau_plus)
    expected, expected_grad, calls_without_tiles = run(objective, views, None, beta, tau_plus)
    assert (calls, calls_without_tiles) == (1, 0)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grad, expected_grad, rtol=0, atol=1e-5 * np.abs(expected_grad).max())


def test_nan_is_not_hidden(run):
    x, weights = embeddings(5, 3)
    x[3] = np.nan
    sums = run(kernels, x, None, range(5), range(5), 0.5, 1, False, weights)[:2]
    assert np.isnan(sums).all(axis=0).sum() >= 8  # all but, at most, the two rows of the sample itself


def test_torch_tiles_are_used_where_the_kernels_fail(monkeypatch):
    """A warning says why."""
    assert not triton_tiles.is_usable(torch.zeros(4, 3, dtype=torch.float64))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not triton_tiles.is_usable(torch.zeros(4, 3))

    def no_compiler(*arguments):
        raise RuntimeError("Failed to find C compiler.\nAnd more")

    monkeypatch.setattr(triton_tiles, "log_sums", no_compiler)
    message = r"Triton kernels fail on cpu; using PyTorch's tiles: Failed to find C compiler\.$"
    with pytest.warns(UserWarning, match=message):
        assert not triton_tiles._works_on(torch.device("cpu"))


def test_failure_of_the_kernels_is_not_remembered_at_once(monkeypatch):
    """A full disk or memory may pass; a device without a compiler is not tried for ever."""
    cpu, attempts = torch.device("cpu"), []

    def log_sums(block, settings):
        attempts.append(len(block.rows))
        if should_fail:
            raise OSError("No space left on device")
        return block.rows[:, 0], block.rows[:, 0]

    monkeypatch.setattr(triton_tiles, "log_sums", log_sums)
    monkeypatch.setattr(triton_tiles, "gradient", lambda *arguments: None)
    should_fail = True
    with pytest.warns(UserWarning, match="No space left"):
        assert not triton_tiles._works_on(cpu)
    should_fail = False
    assert triton_tiles._works_on(cpu)
    assert triton_tiles._works_on(cpu)
    assert attempts == [16, 16]

    triton_tiles._working.clear()
    triton_tiles._failures.clear()
    should_fail = True
    with pytest.warns(UserWarning, match="No space left"):
        assert not any(triton_tiles._works_on(cpu) for _ in range(9))
    assert len(attempts) == 2 + triton_tiles.MAX_ATTEMPTS


@pytest.mark.skipif(triton.__version__ < "3.5", reason="older compilers use other registers")
@pytest.mark.parametrize("dim", [16, 100, 128, 160, 512])
def test_kernels_for_an_h100_spill_no_register(dim, monkeypatch, tmp_path):
    """The compiler is stricter than the interpreter. Every GPU since Ampere has 99 KiB of shared memory.

    A multiprocessor has 65,536 registers and, on an H100, 227 KiB: enough for two blocks of each kernel.
    """
    compiled = []
    for name in ("log_sums_kernel", "gradient_kernel", "weights_kernel"):
        monkeypatch.setattr(triton_kernels, name, Compiler(getattr(triton_kernels, name), compiled))
    monkeypatch.setattr(driver, "_active", H100())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x, weights = map(torch.from_numpy, embeddings(64, dim))
    block, settings = Block(x, x.clone(), range(64), range(64)), TileSettings(0.5, 1.0, 1)
    anchors = anchors_of(triton_tiles.log_sums(block, settings), weights, 0.5, 1.0, False)
    triton_tiles.gradient(block, anchors, anchors, settings)
    assert [kernel.metadata.name for kernel in compiled] == [
        "log_sums_kernel",
        "gradient_kernel" if dim <= triton_kernels.MAX_DIM else "weights_kernel",
    ]
    for kernel in compiled:
        assert "wgmma.mma_async" in kernel.asm["ptx"]
        registers, spilled = registers_and_spills(kernel, tmp_path)
        assert spilled == 0
        assert 2 * 32 * kernel.metadata.num_warps * registers <= 65_536
        assert kernel.metadata.shared <= 48 * 2**10


def registers_and_spills(kernel, folder):
    """Registers of a thread and bytes that it spills, as the assembler that Triton takes reports them."""
    from triton.backends.nvidia.compiler import get_ptxas  # older versions have none

    assembler = get_ptxas(H100().get_current_target().arch).path
    source = folder / "kernel.ptx"
    source.write_text(kernel.asm["ptx"])
    command = [assembler, "-v", "-arch=sm_90a", source, "-o", folder / "kernel.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    [registers] = re.findall(r"Used (\d+) registers", report)
    return int(registers), sum(map(int, re.findall(r"(\d+) bytes spill", report)))


class Compiler:
    """Replaces a kernel: compiles it for its arguments instead of launching it."""

    def __init__(self, kernel, compiled):
        self.kernel, self.compiled = kernel, compiled

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.compiled.append(
            self.kernel.warmup(*arguments, grid=grid, **constants)
        )


class H100:
    """The part of a GPU driver that the compiler needs."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return "an H100"

    def get_current_stream(self, device):
        return 0


@on_a_gpu
@pytest.mark.parametrize("dim", [128, 512])
def test_equals_pytorch_on_a_gpu(dim):
    x, weights = (torch.from_numpy(array).cuda() for array in embeddings(4096, dim))
    block, settings = Block(x, x, range(4096), range(4096)), TileSettings(0.1, 1.0, 1)
    sums = triton_tiles.log_sums(block, settings)
    anchors = anchors_of(sums, weights, 0.1, 1.0, False)
    grad = triton_tiles.gradient(block, anchors, anchors, settings)
    x.requires_grad_()
    samples = torch.arange(4096, device="cuda").repeat(2)
    expected = log_negative_mean(x @ x.T / 0.1, samples[:, None] != samples, 1.0, False)
    (expected_grad,) = torch.autograd.grad(expected @ weights, x)
    for actual, known in ((sums[0] - sums[1], expected), (grad, expected_grad)):
        assert (actual - known).abs().max() < 5e-5 * known.abs().max()


@on_a_gpu
@pytest.mark.parametrize(
    ("batch", "dim", "tensors"), [(4096, 128, 1), (32_768, 128, 1), (262_144, 128, 1), (32_768, 512, 2)]
)
def test_memory_is_linear_on_a_gpu(batch, dim, tensors):
    """One more tensor like the embeddings, two of over 128 dimensions, and a few numbers per row."""
    x = normalize(torch.randn(2 * batch, dim, device="cuda"), dim=1)
    block, settings = Block(x, x, range(batch), range(batch)), TileSettings(0.5, 1.0, 1)
    triton_tiles.is_usable(x)
    x[:16] @ x[:16].T  # cuBLAS has its workspace then
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sums = triton_tiles.log_sums(block, settings)
    anchors = anchors_of(sums, torch.ones_like(sums[0]), 0.5, 1.0, False)
    grad = triton_tiles.gradient(block, anchors, anchors, settings)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= tensors * x.nbytes + 2 * batch * 12 * 4 + 2**20
    assert grad.isfinite().all()
