"""Values and gradients of the contrastive losses: the equation in float64, the released code, and tiles."""

from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core import DebiasedLoss, HardNegativeLoss, NTXentLoss
from tests.core.losses.equation import (
    TILES,
    UnitLengthLoss,
    assert_same_gradient,
    batches,
    hardness,
    loop,
    views,
)

REFERENCE = Path(__file__).parents[2] / "reference" / "infonce.npz"


@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize(
    ("beta", "tau_plus", "temperature"),
    [(0, 0, 0.5), (0, 0.1, 0.5), (1, 0.1, 0.5), (2, 0, 0.2), (6, 0.3, 1.0), (0.5, 0.9, 0.5)],
)
def test_value_is_the_equation(beta, tau_plus, temperature, tile_size):
    view1, view2 = views(5, 7)
    loss = UnitLengthLoss(beta, tau_plus, temperature, tile_size=tile_size)(view1, view2)
    assert loss.item() == pytest.approx(loop(view1, view2, beta, tau_plus, temperature), rel=1e-12)


@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (1.5, 0), (1.5, 0.1)])
def test_gradcheck(beta, tau_plus, stop_gradient, tile_size):
    """Numerical and analytic gradient agree; with constant weights they cannot, so tiles equal the whole."""
    view1, view2 = views(4, 3, seed=1)
    loss = UnitLengthLoss(beta, tau_plus, 0.5, tile_size=tile_size, stop_gradient=stop_gradient)
    if not stop_gradient:
        assert torch.autograd.gradcheck(loss, (view1, view2))
    whole = UnitLengthLoss(beta, tau_plus, 0.5, stop_gradient=stop_gradient)
    assert_same_gradient(loss(view1, view2), whole(view1, view2), (view1, view2), rtol=1e-12, atol=1e-14)


def reference(case):
    """A case of the reference values, its views as tensors, and its settings."""
    values = {key.split("/")[1]: value for key, value in np.load(REFERENCE).items() if key.startswith(case)}
    view1, view2 = (torch.tensor(values[name], requires_grad=True) for name in ("z1", "z2"))
    return values, view1, view2, [float(values[name]) for name in ("beta", "tau_plus", "temperature")]


@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize("case", [f"{i:02d}" for i in range(10)])
def test_released_code(case, tile_size):
    """Value and gradient of the released image code, relative to 1e-10.

    In case 06 the loss is 2e-7, and -log(1 - 2e-7) as that code forms it has itself lost the digits
    beyond 1e-9; the next test compares it to the equation in 50 digits.
    """
    values, view1, view2, hardness = reference(case)
    loss = UnitLengthLoss(*hardness, tile_size=tile_size)(view1, view2)
    loss.backward()
    tolerance = 2e-9 if case == "06" else 1e-10
    assert loss.item() == pytest.approx(float(values["loss"]), rel=tolerance)
    for view, name in ((view1, "grad_z1"), (view2, "grad_z2")):
        error = np.abs(view.grad.numpy() - values[name]).max() / np.abs(values[name]).max()
        assert error < tolerance


def test_no_digits_are_lost_where_the_released_code_loses_them():
    values, view1, view2, hardness = reference("06")
    loss = UnitLengthLoss(*hardness)(view1, view2)
    loss.backward()
    with mpmath.workdps(50):

        def exact(first):
            return loop(first, view2, *hardness, number=mpmath.mpf, exp=mpmath.exp, log=mpmath.log)

        assert float(abs(exact(view1) / mpmath.mpf(loss.item()) - 1)) < 1e-11
        row, column = np.unravel_index(np.abs(values["grad_z1"]).argmax(), values["grad_z1"].shape)
        step = torch.zeros_like(view1)
        step[row, column] = 2.0**-20  # exact in binary, small in 50 digits
        slope = (exact(view1 + step) - exact(view1 - step)) / mpmath.mpf(2.0**-19)
        assert float(abs(slope / mpmath.mpf(view1.grad[row, column].item()) - 1)) < 1e-9


@pytest.mark.parametrize("tile_size", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("beta", [0, 1, 32])
def test_finite_where_exponentials_overflow(beta, temperature, dtype, tile_size):
    """e^{(1 + 32) / 0.01} has 1,434 digits; loss and gradients are still finite."""
    view1, view2 = views(8, 16, dtype=dtype)
    for first, second in ((view1, view2), (view1, -view1), (view1, view1)):
        loss = HardNegativeLoss(beta, 0.1, temperature, tile_size=tile_size)(first, second)
        gradient = torch.autograd.grad(loss, view1)[0]
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert gradient.isfinite().all()
    expected = HardNegativeLoss(beta, 0.1, temperature)(view1.double(), view2.double())
    loss = HardNegativeLoss(beta, 0.1, temperature, tile_size=tile_size)(view1, view2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_autocast_does_not_lower_the_precision():
    view1, view2 = views(8, 16, dtype=torch.float32)
    loss = HardNegativeLoss(temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(view1, view2)
    torch.testing.assert_close(inside, loss(view1, view2))


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 0.5), (1.0, 0.01), (32.0, 0.5)])
def test_autocast_around_backward_does_not_lower_the_precision_of_tiles(beta, temperature):
    view1, view2 = views(8, 16, dtype=torch.float32)
    loss = HardNegativeLoss(beta, 0.1, temperature, tile_size=3)
    expected = torch.autograd.grad(loss(view1, view2), (view1, view2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = torch.autograd.grad(loss(view1, view2), (view1, view2))
    for actual, outside in zip(inside, expected, strict=True):
        torch.testing.assert_close(actual, outside)


def test_double_backward_is_refused_in_tiles():
    view1, view2 = views(4, 3)
    message = r"a loss in tiles does not support double backward \(create_graph=True\); `tile_size=None` does"
    with pytest.raises(RuntimeError, match=message):
        torch.autograd.grad(HardNegativeLoss(tile_size=2)(view1, view2), view1, create_graph=True)
    assert torch.autograd.gradgradcheck(HardNegativeLoss(), (view1, view2))


@settings(deadline=None, max_examples=40)
@given(batches, hardness)
def test_value_depends_neither_on_the_order_of_views_nor_of_samples(shape, numbers):
    batch, dim, seed = shape
    view1, view2 = views(batch, dim, seed)
    loss = HardNegativeLoss(*numbers)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    expected = loss(view1, view2)
    torch.testing.assert_close(loss(view2, view1), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss(view1[order], view2[order]), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(batches, hardness)
def test_limits_of_beta_and_tau_plus_are_the_other_losses(shape, numbers):
    beta, tau_plus, temperature = numbers
    # Just above its lower bound Ng magnifies a change of A by up to e^{2 / temperature}: not tested at 0.05.
    temperature = max(temperature, 0.2)
    view1, view2 = views(*shape)
    hard = HardNegativeLoss(1e-12, tau_plus, temperature)(view1, view2)
    debiased = DebiasedLoss(tau_plus, temperature)(view1, view2)
    assert hard.item() == pytest.approx(debiased.item(), rel=1e-5, abs=1e-7)
    plain = NTXentLoss(temperature)(view1, view2)
    assert DebiasedLoss(1e-12, temperature)(view1, view2).item() == pytest.approx(plain.item(), rel=1e-4)
    without_prior = HardNegativeLoss(beta, 0.0, temperature)(view1, view2)
    assert without_prior.item() >= plain.item() - 1e-9  # harder negatives are never easier


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation has made."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        self.numbers = max(self.numbers, *(x.numel() for x in tree_leaves(made) if torch.is_tensor(x)), 0)
        return made


@pytest.mark.parametrize("batch", [32, 128])
def test_no_tensor_in_tiles_is_larger_than_embeddings_and_tiles(batch):
    """Forward and backward; without tiles one is [2 batch, 2 batch]."""
    view1, view2 = views(batch, 8)
    largest = {}
    for tile_size in (16, None):
        with LargestTensor() as made:
            HardNegativeLoss(2.0, 0.1, 0.5, tile_size=tile_size)(view1, view2).backward()
        largest[tile_size] = made.numbers
    assert largest[16] == 2 * batch * 8
    assert largest[None] == (2 * batch) ** 2


@pytest.mark.parametrize("tile_size", TILES)
@settings(deadline=None, max_examples=20)
@given(batches, hardness, st.booleans())
def test_tiles_equal_the_whole_matrix(tile_size, shape, numbers, stop_gradient):
    view1, view2 = views(*shape)
    whole = UnitLengthLoss(*numbers, stop_gradient=stop_gradient)(view1, view2)
    tiled = UnitLengthLoss(*numbers, tile_size=tile_size, stop_gradient=stop_gradient)(view1, view2)
    torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-13)
    assert_same_gradient(tiled, whole, (view1, view2), rtol=1e-8, atol=1e-12)
