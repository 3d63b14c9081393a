"""Inputs at the edge: tiny scores, NaN, half-precision settings, one class, settings that change."""

import math

import pytest
import torch
from torch import nn

from core.losses import GradientCached, HardNegativeLoss, InfoGraphLoss, NTXentLoss, clip_loss
from core.losses.functional import hard_negative_loss


def gradient_near_zero(scores, batch, beta, tau_plus):
    """The gradient of the corrected bound's mean with respect to scores [V, G] that are nearly 0, in float64.

    There softplus(q) is log 2 + q / 2, and the loss of a node is linear in p and quadratic in q_j / m.
    """
    gradient = torch.zeros_like(scores, dtype=torch.float64)
    is_other = torch.arange(scores.shape[1]) != batch[:, None]
    m = scores[is_other].abs().max().double().clamp(min=1e-300)
    for row, own, result in zip(scores.double(), batch, gradient, strict=True):
        others = torch.arange(len(row)) != own
        q = row[others] / m
        w = torch.softmax(2 * beta * q, dim=0)
        result[others] = w * (0.5 + beta * (q - (w * q).sum())) / (1 - tau_plus)
        result[own] = -0.5 - tau_plus / 2 / (1 - tau_plus)
    return gradient / len(scores)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-10, 1e-6])
@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_gradient_of_small_scores_keeps_its_digits(scale, beta):
    """As of a head whose last layer begins at 0; s = 2 beta / m is then as large as m is small."""
    torch.manual_seed(0)
    batch = torch.arange(24) % 4
    scores = scale * torch.randn(24, 4)
    local, global_ = scores.clone().requires_grad_(), torch.eye(4)
    InfoGraphLoss(beta, 0.1)(local, global_, batch).backward()
    expected = gradient_near_zero(scores, batch, beta, 0.1)
    torch.testing.assert_close(local.grad.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 0.005, 0.01, 0.1])
def test_gradient_is_that_of_double_precision_above_and_below_where_the_way_changes(scale):
    torch.manual_seed(0)
    scores, batch = scale * torch.randn(40, 5), torch.arange(40) % 5
    gradients = []
    for dtype in (torch.float32, torch.float64):
        local = scores.to(dtype, copy=True).requires_grad_()
        InfoGraphLoss(2.0, 0.1)(local, torch.eye(5, dtype=dtype), batch).backward()
        gradients.append(local.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("variant", "tau_plus"), [("corrected", 0.1), ("released", 0.5)])
def test_scores_of_zero_have_a_finite_gradient_of_both_orders(variant, tau_plus, dtype):
    local = torch.zeros(6, 3, dtype=dtype, requires_grad=True)
    global_ = torch.randn(3, 3, dtype=dtype)
    loss = InfoGraphLoss(1.0, tau_plus, variant=variant)(local, global_, torch.arange(6) % 3)
    (gradient,) = torch.autograd.grad(loss, local, create_graph=True)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10
    torch.autograd.grad(gradient.sum(), local)


@pytest.mark.parametrize("tau_plus", [0.0, 0.1])
@pytest.mark.parametrize("tile_size", [None, 3])
def test_nan_is_seen_in_the_loss(tau_plus, tile_size):
    """The debiased sum is replaced by its floor where it is too small, and must not be where it is NaN."""
    view1, view2 = torch.randn(2, 5, 4)
    view2[3, 0] = torch.nan
    losses = HardNegativeLoss(1.0, tau_plus, tile_size=tile_size, reduction="none")(view1, view2)
    assert losses.isnan().all()
    positive, negatives = torch.ones(1), torch.tensor([[torch.nan, 0.0, 0.0]])
    mask = torch.ones_like(negatives, dtype=torch.bool)
    loss = hard_negative_loss(positive, negatives, mask, beta=1.0, tau_plus=tau_plus, floor=-2.0)
    assert loss.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["temperature", "beta"])
def test_learned_setting_of_another_type_is_rounded_once(name, dtype):
    """Tiles scale the embeddings by its root: not in half precision."""
    torch.manual_seed(0)
    view1, view2 = torch.randn(2, 16, 8)
    value = nn.Parameter(torch.tensor(0.07, dtype=dtype))
    dense, tiled = (HardNegativeLoss(**{name: value}, tile_size=size)(view1, view2) for size in (None, 5))
    torch.testing.assert_close(tiled, dense, rtol=1e-5, atol=1e-6)
    given = HardNegativeLoss(**{name: float(value.detach())})(view1, view2)
    torch.testing.assert_close(dense, given, rtol=1e-6, atol=1e-6)


def test_batch_of_one_class_has_a_second_derivative():
    """No row has a negative: all that is left is the log-sum-exp of the positives."""
    torch.manual_seed(0)
    view1, view2 = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = HardNegativeLoss(1.0, 0.0, positives="label")
    assert torch.autograd.gradgradcheck(lambda *views: loss(*views, torch.zeros(3).long()), (view1, view2))


def test_losses_are_made_on_the_meta_device():
    with torch.device("meta"):
        InfoGraphLoss()
        InfoGraphLoss(nn.Parameter(torch.tensor(1.0)), [0.1])
        HardNegativeLoss(temperature=nn.Parameter(torch.tensor(0.1)))


@pytest.mark.parametrize("learned", [True, False])
def test_tensors_are_not_read_by_the_host(learned):
    """So that a GPU is not waited for, and that the whole loss compiles."""
    torch.manual_seed(0)
    view1, view2 = torch.randn(2, 6, 4)
    temperature, beta = (nn.Parameter(torch.tensor(value), requires_grad=learned) for value in (0.1, 1.0))
    for loss in (
        lambda a, b: clip_loss(a, b, temperature=temperature, beta=beta),
        NTXentLoss(temperature),
        HardNegativeLoss(beta, torch.tensor(0.1), temperature),
    ):
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(view1, view2), loss(view1, view2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("beta", -3.0, "`beta` is -3.0"),
        ("tau_plus", 1.5, "`tau_plus` is 1.5"),
        ("temperature", 0.0, "`temperature` is 0.0"),
        ("reduction", "avg", "`reduction` is 'avg'"),
    ],
)
def test_setting_that_changes_later_is_checked(name, value, message):
    loss = HardNegativeLoss()
    setattr(loss, name, value)
    with pytest.raises(ValueError, match=message):
        loss(torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardNegativeLoss(None), "`beta` is None; it must be a number"),
        (lambda: HardNegativeLoss("1"), "`beta` is '1'; it must be a number"),
        (lambda: HardNegativeLoss(tile_size=2.5), "`tile_size` is 2.5; it must be an integer above 0"),
        (lambda: HardNegativeLoss(0, 0, positives="label", tile_size=8), "not supported in tiles"),
        (lambda: InfoGraphLoss([1.0, 2.0], [0.1] * 3), r"`beta` is \[2\] and `tau_plus` \[3\]"),
        (lambda: HardNegativeLoss()(torch.ones(2, 2).numpy(), torch.ones(2, 2)), "`view1` is a ndarray"),
        (lambda: NTXentLoss()(torch.ones(2, 2), torch.ones(2, 2), [0, 1]), "`labels` is a list"),
        (
            lambda: InfoGraphLoss()(torch.ones(2, 2), torch.ones(2, 2).double(), torch.arange(2)),
            "`local` is torch.float32 and `global_` torch.float64",
        ),
        (
            lambda: InfoGraphLoss()(torch.ones(2, 2), torch.ones(2, 2), torch.arange(2), torch.ones(2)),
            "`node` is of torch.float32",
        ),
    ],
)
def test_wrong_type_is_one_clear_message(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Towers(nn.Module):
    """Two towers, the first frozen, and the numbers of the samples."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(3, 2).requires_grad_(False), nn.Linear(3, 2)

    def forward(self, x, y):
        return self.image(x), self.text(y), y.argmax(dim=1)


def test_frozen_tower_and_integers_pass_through_a_cached_encoder():
    torch.manual_seed(0)
    towers, (x, y) = Towers(), torch.randn(2, 10, 3)
    gradients = []
    for encoder in (towers, GradientCached(towers, 4)):
        towers.zero_grad()
        image, text, numbers = encoder(x, y)
        assert torch.equal(numbers, y.argmax(dim=1))
        clip_loss(image, text).backward()
        gradients.append(towers.text.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("change", ["batch", "mode"])
def test_what_changes_before_backward_is_refused_by_a_cached_encoder(change):
    encoder, x = nn.Sequential(nn.Linear(3, 2), nn.Dropout()), torch.randn(10, 3)
    output = GradientCached(encoder, 4)(x)
    x.zero_() if change == "batch" else encoder.eval()
    with pytest.raises(RuntimeError, match="has changed since it was encoded"):
        output.sum().backward()


@pytest.mark.parametrize("chunk", [4, 16])
def test_cached_encoder_refuses_a_batch_that_requires_a_gradient_or_is_empty(chunk):
    encoder = GradientCached(nn.Linear(3, 2), chunk)
    with pytest.raises(ValueError, match="detach it"):
        encoder(torch.randn(10, 3, requires_grad=True))
    with pytest.raises(ValueError, match="0 samples"):
        encoder(torch.randn(0, 3))
    assert not math.isnan(encoder(torch.randn(10, 3)).sum().item())


def test_cached_encoder_of_another_output_is_refused():
    class ReturnsDict(nn.Linear):
        def forward(self, x):
            return {"embedding": super().forward(x)}

    with pytest.raises(TypeError, match="returns a dict"):
        GradientCached(ReturnsDict(3, 2), 4)(torch.randn(10, 3))
