"""Options of the contrastive losses: normalisation, reduction, labels, learned settings, and their limits."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from core import DebiasedLoss, HardNegativeLoss, NTXentLoss
from core.distributed import local_slice
from core.io.errors import InputError
from core.losses.checks import check_hardness
from core.training import settings
from tests.core.losses.equation import TILES, UnitLengthLoss, anchor_losses, assert_same_gradient, views
from tests.processes import in_processes


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
        ({"tile_size": 0}, "`tile_size` is 0; it must be an integer above 0"),
        ({"reduction": "max"}, "`reduction` is 'max'; it must be one of mean, sum, none"),
        ({"positives": "label"}, "`tau_plus` is 0.1; with `positives='label'` classes are known"),
        ({"positives": "class"}, "`positives` is 'class'; it must be one of view, label"),
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
        (None, {"positives": "label", "tau_plus": 0.0}, "`labels` is missing"),
    ],
)
def test_labels_that_do_not_match_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeLoss(**options)(torch.ones(3, 4), torch.ones(3, 4), labels)


def supcon(view1, view2, labels, beta, temperature):
    """SupCon as loops (Khosla et al., 2020, eq. 2), with the negatives' exponentials reweighted."""
    anchors, classes = torch.cat([view1, view2]).tolist(), labels.tolist() * 2
    losses = []
    for i, anchor in enumerate(anchors):
        s = [sum(a * b for a, b in zip(anchor, other, strict=True)) / temperature for other in anchors]
        positives = [s[j] for j in range(len(s)) if j != i and classes[j] == classes[i]]
        negatives = [s[j] for j in range(len(s)) if classes[j] != classes[i]]
        weights = [math.exp(beta * x) for x in negatives]
        mean = sum(weights) / len(weights) if weights else 1.0
        total = sum(w / mean * math.exp(x) for w, x in zip(weights, negatives, strict=True))
        total += sum(map(math.exp, positives))
        losses.append(sum(-math.log(math.exp(p) / total) for p in positives) / len(positives))
    return losses


@pytest.mark.parametrize("beta", [0.0, 1.5])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1, 0], [3, 3, 3, 3, -1], [0, 1, 2, 3, 4], [7, 7, 7, 7, 7]])
def test_samples_of_the_same_class_are_positives(labels, beta):
    view1, view2 = views(5, 4)
    labels = torch.tensor(labels)
    loss = UnitLengthLoss(beta, 0.0, positives="label", reduction="none")
    losses = loss(view1, view2, labels)
    assert losses.tolist() == pytest.approx(supcon(view1, view2, labels, beta, 0.5), rel=1e-12)
    assert torch.autograd.gradcheck(lambda *views: loss(*views, labels), (view1, view2))
    if beta == 0:
        plain = NTXentLoss(0.5, positives="label", reduction="none", normalize=False)
        assert torch.equal(plain(view1, view2, labels), losses)
    if len(labels.unique()) == len(labels):  # the other view is the one positive
        torch.testing.assert_close(losses, UnitLengthLoss(beta, 0.0, reduction="none")(view1, view2))


SPLIT_LABELS = torch.tensor([0, 1, 1, 2, 0, 3])


def own_supervised_loss():
    part = local_slice(len(SPLIT_LABELS))
    view1, view2 = (view.detach()[part].requires_grad_() for view in views(len(SPLIT_LABELS), 4))
    loss = UnitLengthLoss(1.0, 0.0, positives="label", gather_distributed=True)(
        view1, view2, SPLIT_LABELS[part]
    )
    return loss.item(), torch.autograd.grad(loss, view1)[0].numpy()


@pytest.mark.distributed
def test_positives_by_label_of_two_processes_are_those_of_one():
    view1, view2 = views(len(SPLIT_LABELS), 4)
    whole = UnitLengthLoss(1.0, 0.0, positives="label")(view1, view2, SPLIT_LABELS)
    values, gradients = zip(*in_processes(2, own_supervised_loss), strict=True)
    assert sum(values) / 2 == pytest.approx(whole.item(), rel=1e-12)
    gradient = torch.cat([torch.from_numpy(part) for part in gradients]) / 2
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, view1)[0], rtol=1e-10, atol=1e-13)


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


@pytest.mark.parametrize("tau_plus", [0.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "none"},
        {"normalize": False, "reduction": "sum"},
        {"tile_size": 3},
        {"gather_distributed": True, "exchange": "ring"},
    ],
    ids=lambda options: " ".join(options),
)
def test_losses_without_hardness_are_that_of_beta_0_with_the_same_options(options, tau_plus):
    """``NTXentLoss`` at tau_plus 0, ``DebiasedLoss`` otherwise: options, value and gradient."""
    view1, view2 = (2 * view.detach() for view in views(5, 4))
    inputs = [view1.requires_grad_(), view2.requires_grad_()]
    loss = DebiasedLoss(tau_plus, 0.7, **options) if tau_plus else NTXentLoss(0.7, **options)
    assert options.items() <= vars(loss).items()
    expected = HardNegativeLoss(0.0, tau_plus, 0.7, **options)
    torch.testing.assert_close(loss(*inputs), expected(*inputs), rtol=1e-12, atol=0)
    assert_same_gradient(loss(*inputs).sum(), expected(*inputs).sum(), inputs, rtol=1e-10, atol=1e-13)


def test_only_settings_with_an_effect_are_accepted():
    for loss in (NTXentLoss, DebiasedLoss):
        with pytest.raises(TypeError, match="stop_gradient"):
            loss(stop_gradient=True)
    with pytest.raises(TypeError, match="positional"):
        HardNegativeLoss(1.0, 0.1, 0.5, 16)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 2.5, math.inf, math.nan])
@pytest.mark.parametrize("tau_plus", [-0.1, 0.0, 0.5, 1 - 1e-9, 1.0, math.nan])
def test_command_and_loss_refuse_the_same_settings(beta, tau_plus):
    """The command checks without torch, the losses without the rest of the project: in the same words."""

    def message(check):
        try:
            check(beta, tau_plus)
        except (InputError, ValueError) as error:
            return str(error)

    assert message(settings.check_hardness) == message(check_hardness)
