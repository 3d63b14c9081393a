"""The contrastive losses against loops over their equations in float64, reference values, and each other."""

import functools
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core import DebiasedLoss, HardNegativeLoss, NTXentLoss, hard_negative_loss

REFERENCE = Path(__file__).parents[2] / "reference" / "infonce.npz"
TILES = (None, 1, 3, 8, 1000)
UnitLengthLoss = functools.partial(HardNegativeLoss, normalize=False)  # of views that have unit length


def views(batch: int, dim: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = normalize(torch.randn(2, batch, dim, dtype=torch.float64, generator=generator), dim=-1)
    return both[0].to(dtype).requires_grad_(), both[1].to(dtype).requires_grad_()


def loop(view1, view2, *settings, **arithmetic):
    """The mean of the docstring's equation over all anchors."""
    losses = anchor_losses(view1, view2, *settings, **arithmetic)
    return sum(losses) / len(losses)


def anchor_losses(
    view1, view2, beta, tau_plus, temperature, labels=None, number=float, exp=math.exp, log=math.log
):
    """The docstring's equation as a naive loop over anchors and negatives, in any arithmetic."""
    anchors = [[number(value) for value in row] for row in [*view1.tolist(), *view2.tolist()]]
    losses, count = [], len(anchors)
    classes = list(range(len(view1))) if labels is None else labels.tolist()
    for i, anchor in enumerate(anchors):

        def logit(other, anchor=anchor):
            return sum(a * b for a, b in zip(anchor, other, strict=True)) / number(temperature)

        partner = (i + count // 2) % count
        p = logit(anchors[partner])
        s = [logit(anchors[j]) for j in range(count) if (classes * 2)[j] != (classes * 2)[i]]
        n = len(s)
        if n == 0:
            losses.append(number(0))
            continue
        mean_weight = sum(exp(beta * s_j) for s_j in s) / n
        reweighted = sum(exp(beta * s_j) / mean_weight * exp(s_j) for s_j in s)
        ng = (reweighted - n * number(tau_plus) * exp(p)) / (1 - number(tau_plus))
        ng = max(ng, n * exp(-1 / number(temperature)))
        losses.append(-log(exp(p) / (exp(p) + ng)))
    return losses


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


def assert_same_gradient(loss, other, inputs, **tolerance):
    gradients = [torch.autograd.grad(each, inputs, retain_graph=True) for each in (loss, other)]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)


def test_stop_gradient_makes_the_weights_constants():
    """The gradient is that of a plain sum whose weights were computed before."""
    positive = torch.tensor([0.3, -0.2], dtype=torch.float64)
    negatives = torch.tensor([[0.1, 0.7, -0.4], [0.5, 0.2, 0.9]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones_like(negatives, dtype=torch.bool)
    weights = torch.softmax(2.0 * negatives.detach(), dim=1) * 3
    by_hand = torch.log(1 + (weights * negatives.exp()).sum(1) / positive.exp())
    loss = hard_negative_loss(
        positive, negatives, mask, beta=2.0, tau_plus=0.0, floor=-2.0, stop_gradient=True
    )
    torch.testing.assert_close(loss, by_hand, rtol=1e-12, atol=0)
    (expected,) = torch.autograd.grad(by_hand.sum(), negatives)
    (actual,) = torch.autograd.grad(loss.sum(), negatives)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    free = hard_negative_loss(positive, negatives, mask, beta=2.0, tau_plus=0.0, floor=-2.0)
    assert not torch.allclose(torch.autograd.grad(free.sum(), negatives)[0], expected)


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


batches = st.tuples(st.integers(2, 9), st.integers(2, 6), st.integers(0, 2**31))
hardness = st.tuples(st.floats(0, 8), st.floats(0, 0.9), st.floats(0.05, 2))


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


@settings(deadline=None, max_examples=40)
@given(batches, hardness, st.floats(0.01, 0.5))
def test_loss_decreases_as_the_positive_gets_nearer(shape, numbers, nearer):
    generator = torch.Generator().manual_seed(shape[2])
    positive = torch.rand(shape[0], dtype=torch.float64, generator=generator) * 2 - 1
    negatives = torch.rand(shape[:2], dtype=torch.float64, generator=generator) * 2 - 1
    mask = torch.ones_like(negatives, dtype=torch.bool)
    beta, tau_plus, temperature = numbers

    def loss(p):
        return hard_negative_loss(
            p / temperature,
            negatives / temperature,
            mask,
            beta=beta,
            tau_plus=tau_plus,
            floor=-1 / temperature,
        )

    assert (loss(positive + nearer) < loss(positive)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 3), hardness, st.integers(0, 2**31))
def test_logits_with_masks_and_several_positives(rows, columns, positives, numbers, seed):
    """Each term depends on its row's negatives alone, not on masked logits."""
    beta, tau_plus, _ = numbers
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randn(rows, positives, dtype=torch.float64, generator=generator)
    negatives = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    mask = torch.rand(rows, columns, generator=generator) < 0.6
    negatives.requires_grad_()
    loss = hard_negative_loss(positive, negatives, mask, beta=beta, tau_plus=tau_plus, floor=-5.0)
    (gradient,) = torch.autograd.grad(loss.sum(), negatives)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()
    for row in range(rows):
        s = negatives[row][mask[row]].detach().numpy()
        for k in range(positives):
            p = positive[row, k].item()
            ng = 0.0
            if len(s):
                weights = np.exp(beta * s) / np.exp(beta * s).mean()
                ng = ((weights * np.exp(s)).sum() - len(s) * tau_plus * math.exp(p)) / (1 - tau_plus)
                ng = max(ng, len(s) * math.exp(-5.0)) if tau_plus > 0 else ng
            expected = -math.log(math.exp(p) / (math.exp(p) + ng))
            assert loss[row, k].item() == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_each_row_has_its_own_floor():
    """A debiased sum below 0 becomes the floor of its row."""
    positive = torch.tensor([5.0, 5.0])
    negatives = torch.zeros(2, 4)
    floors = torch.tensor([-1.0, -3.0])
    loss = hard_negative_loss(
        positive, negatives, torch.ones(2, 4, dtype=torch.bool), beta=0.0, tau_plus=0.5, floor=floors
    )
    expected = torch.log1p(4 * floors.exp() / positive.exp())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1}, "`beta` is -1; it must be at least 0"),
        ({"beta": math.nan}, "`beta` is nan"),
        ({"tau_plus": 1.0}, "`tau_plus` is 1.0; it must be at least 0 and below 1"),
        ({"tau_plus": -0.1}, "`tau_plus` is -0.1"),
        ({"temperature": 0}, "`temperature` is 0; it must be above 0"),
        ({"temperature": math.inf}, "`temperature` is inf"),
        ({"temperature": torch.tensor(-1.0)}, "`temperature` is -1.0"),
        ({"temperature": torch.ones(2)}, r"`temperature` is a tensor \[2\]; it must be a number"),
        ({"tile_size": 0}, "`tile_size` is 0; it must be at least 1"),
        ({"reduction": "max"}, "`reduction` is 'max'; it must be one of mean, sum, none"),
        ({"exchange": "rnig"}, "`exchange` is 'rnig'; it must be one of auto, gather, ring"),
        ({"tau_plus": torch.tensor(0.1, requires_grad=True)}, "only `temperature` and `beta` can be learned"),
        (
            {"beta": torch.tensor(1.0, requires_grad=True), "stop_gradient": True},
            "`stop_gradient` makes the weights constants",
        ),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeLoss(**arguments)


@pytest.mark.parametrize(
    ("view1", "view2", "message"),
    [
        (torch.ones(3, 4), torch.ones(2, 4), r"`view1` is \[3, 4\] and `view2` \[2, 4\]"),
        (torch.ones(3), torch.ones(3), r"must be the same \[batch, dim\]"),
        (torch.ones(1, 4), torch.ones(1, 4), "has 1 samples; at least 2"),
        (torch.ones(0, 4), torch.ones(0, 4), "has 0 samples"),
        (torch.ones(3, 4), torch.ones(3, 4).half(), "the same float type"),
    ],
)
def test_views_that_do_not_match_are_refused(view1, view2, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeLoss()(view1, view2)


@pytest.mark.parametrize(
    ("positive", "mask", "message"),
    [
        (torch.ones(3), torch.ones(2, 4, dtype=torch.bool), r"must be \[2\]"),
        (torch.ones(2), torch.ones(2, 4), "the mask bool"),
        (torch.ones(2), torch.ones(2, 3, dtype=torch.bool), r"both must be \[rows, columns\]"),
    ],
)
def test_logits_that_do_not_match_are_refused(positive, mask, message):
    with pytest.raises(ValueError, match=message):
        hard_negative_loss(positive, torch.ones(2, 4), mask, beta=0.0, tau_plus=0.0, floor=0.0)


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


@pytest.mark.parametrize("tile_size", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_views_are_normalized_inside(dtype, tile_size):
    """Value and gradient are those of views that the caller has scaled to unit length in full precision."""
    generator = torch.Generator().manual_seed(0)
    view1, view2 = (torch.randn(6, 5, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    scaled = [normalize(view.to(torch.promote_types(dtype, torch.float32)), dim=1) for view in (view1, view2)]
    expected = UnitLengthLoss(tile_size=tile_size)(*scaled)
    loss = HardNegativeLoss(tile_size=tile_size)(view1, view2)
    assert torch.equal(loss, expected)
    assert_same_gradient(loss, expected, (view1, view2), rtol=0, atol=0)
    larger = HardNegativeLoss(tile_size=tile_size)(8 * view1, view2 / 4)  # both exact in any float type
    torch.testing.assert_close(larger, loss)
    assert not torch.allclose(UnitLengthLoss(tile_size=tile_size)(view1, view2), loss)


@pytest.mark.parametrize("tile_size", [None, 3])
def test_views_of_zeros_are_finite(tile_size):
    view1, view2 = views(4, 3)
    view1 = (view1 * torch.tensor([0, 1, 1, 0])[:, None]).detach().requires_grad_()
    loss = HardNegativeLoss(tile_size=tile_size)(view1, view2)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (view1, view2)))


@pytest.mark.parametrize("tile_size", [None, 3])
def test_reductions(tile_size):
    """Without reduction the losses are those of view1's anchors, then of view2's."""
    view1, view2 = views(5, 4)
    mean, total, losses = (
        UnitLengthLoss(2.0, 0.1, 0.5, reduction=reduction, tile_size=tile_size)(view1, view2)
        for reduction in ("mean", "sum", "none")
    )
    assert losses.tolist() == pytest.approx(anchor_losses(view1, view2, 2.0, 0.1, 0.5), rel=1e-12)
    torch.testing.assert_close(mean, losses.mean())
    torch.testing.assert_close(total, losses.sum())


@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (1.5, 0), (1.5, 0.1)])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1, 0], [3, 3, 3, 3, -1], [0, 1, 2, 3, 4], [7, 7, 7, 7, 7]])
def test_samples_of_the_same_class_are_not_negatives(labels, beta, tau_plus):
    view1, view2 = views(5, 4)
    labels = torch.tensor(labels)
    loss = UnitLengthLoss(beta, tau_plus, reduction="none")
    losses = loss(view1, view2, labels)
    expected = anchor_losses(view1, view2, beta, tau_plus, 0.5, labels)
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda *views: loss(*views, labels), (view1, view2))
    if len(labels.unique()) == len(labels):
        torch.testing.assert_close(losses, loss(view1, view2))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.zeros(3), {}, r"`labels` is \[3\] of torch.float32; it must be \[3\] of integers"),
        (torch.zeros(6, dtype=torch.long), {}, r"`labels` is \[6\]"),
        (
            torch.zeros(3, dtype=torch.long),
            {"tile_size": 2},
            "not supported in tiles; set `tile_size` to None",
        ),
    ],
)
def test_labels_that_do_not_match_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeLoss(**options)(torch.ones(3, 4), torch.ones(3, 4), labels)


@pytest.mark.parametrize("tile_size", TILES)
@pytest.mark.parametrize("tau_plus", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("beta", [0.0, 1.5, 8.0])
def test_temperature_and_beta_can_be_learnt(beta, tau_plus, tile_size):
    """The value is that of numbers, the gradient that of differences."""
    view1, view2 = views(4, 3, seed=2)

    def loss(temperature, beta, view1, view2):
        return HardNegativeLoss(beta, tau_plus, temperature, tile_size=tile_size)(view1, view2)

    learned = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, beta)]
    torch.testing.assert_close(
        loss(*learned, view1, view2), loss(0.5, beta, view1, view2), rtol=1e-10, atol=1e-12
    )
    if beta > 0:
        assert torch.autograd.gradcheck(loss, (*learned, view1, view2))
    else:  # differences would need a beta below 0
        assert torch.autograd.gradcheck(
            lambda temperature, *views: loss(temperature, learned[1], *views), (learned[0], view1, view2)
        )
        (slope,) = torch.autograd.grad(loss(*learned, view1, view2), learned[1])
        difference = (loss(0.5, 1e-6, view1, view2) - loss(0.5, 0.0, view1, view2)) / 1e-6
        assert slope.item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("tile_size", [None, 3])
def test_a_parameter_is_registered_and_trained(tile_size):
    view1, view2 = views(6, 4, dtype=torch.float32)
    loss = NTXentLoss(torch.nn.Parameter(torch.tensor(0.5)), tile_size=tile_size)
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    assert "temperature=0.5," in repr(loss)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    before = loss(view1, view2)
    before.backward()
    optimizer.step()
    assert loss(view1, view2) < before


@pytest.mark.parametrize("tile_size", [None, 3])
def test_a_tensor_without_gradient_is_a_number(tile_size):
    view1, view2 = views(6, 4, dtype=torch.float32)
    options = {"tile_size": tile_size, "stop_gradient": True}
    loss = HardNegativeLoss(torch.tensor(1.0), torch.tensor(0.1), torch.tensor(0.5), **options)
    torch.testing.assert_close(loss(view1, view2), HardNegativeLoss(1.0, 0.1, 0.5, **options)(view1, view2))


def test_only_settings_with_an_effect_are_accepted():
    for loss in (NTXentLoss, DebiasedLoss):
        with pytest.raises(TypeError, match="stop_gradient"):
            loss(stop_gradient=True)
    with pytest.raises(TypeError, match="positional"):
        HardNegativeLoss(1.0, 0.1, 0.5, 16)
