"""The loss of two towers: CLIP's at beta 0, the equation otherwise, and over many ranks the whole batch's."""

import math

import pytest
import torch
import torch.nn.functional as F

from core.distributed import local_slice, rank
from core.losses import clip_loss, hard_negative_loss
from tests.core.losses.equation import assert_same_gradient, views
from tests.processes import in_processes


def both_cross_entropies(image, text, logit_scale):
    """CLIP's loss as its paper's pseudocode has it."""
    logits = logit_scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    targets = torch.arange(len(image))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


@pytest.mark.parametrize("batch", [2, 7])
def test_beta_0_is_clip(batch):
    """Value and gradient, that of a learned scale too."""
    image, text = (3 * x.detach() for x in views(batch, 5))
    inputs = [image.requires_grad_(), text.requires_grad_()]
    inputs.append(torch.tensor(math.log(1 / 0.07), dtype=torch.float64, requires_grad=True))
    ours = clip_loss(image, text, beta=0.0, temperature=1 / inputs[2].exp())
    theirs = both_cross_entropies(image, text, inputs[2].exp())
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    for actual, expected in zip(*(torch.autograd.grad(x, inputs) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("beta", "tau_plus"), [(0.0, 0.1), (1.0, 0.0), (2.0, 0.2)])
@pytest.mark.parametrize("labels", [None, [0, 1, 1, 2, 0]])
def test_value_is_the_equation(beta, tau_plus, labels):
    """Each anchor's loss, image to text and text to image, as a loop."""
    image, text = (x.detach() for x in views(5, 4))
    classes = list(range(5)) if labels is None else labels
    expected = []
    for anchors, others in ((image, text), (text, image)):
        for i, anchor in enumerate(anchors):
            p = float(anchor @ others[i]) / 0.5
            s = [
                float(anchor @ other) / 0.5
                for other, c in zip(others, classes, strict=True)
                if c != classes[i]
            ]
            mean_weight = sum(math.exp(beta * x) for x in s) / len(s)
            reweighted = sum(math.exp((1 + beta) * x) for x in s) / mean_weight
            ng = (reweighted - len(s) * tau_plus * math.exp(p)) / (1 - tau_plus)
            ng = max(ng, len(s) * math.exp(-1 / 0.5))
            expected.append(-math.log(math.exp(p) / (math.exp(p) + ng)))
    labels = None if labels is None else torch.tensor(labels)
    losses = clip_loss(
        image, text, labels, beta=beta, tau_plus=tau_plus, temperature=0.5, normalize=False, reduction="none"
    )
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    mean = clip_loss(image, text, labels, beta=beta, tau_plus=tau_plus, temperature=0.5, normalize=False)
    assert mean.item() == pytest.approx(sum(expected) / 10, rel=1e-12)


def test_gradient_of_learned_settings():
    image, text = views(4, 3)
    learned = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.5, 0.3)]

    def loss(image, text, beta, temperature):
        return clip_loss(image, text, beta=beta, temperature=temperature, tau_plus=0.1)

    assert torch.autograd.gradcheck(loss, (image, text, *learned))


def test_half_precision_is_computed_in_float32():
    image, text = (x.detach().bfloat16() for x in views(6, 8))
    loss = clip_loss(image, text, temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = clip_loss(image, text, temperature=0.01)
    assert loss.dtype == torch.float32
    assert torch.equal(inside, loss)
    exact = clip_loss(image.double(), text.double(), temperature=0.01)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.ones(3, 4), {}, r"`image` is \[3, 4\] and `text` \[2, 4\]"),
        (torch.ones(2, 4).half(), {}, "`image` is torch.float16 and `text` torch.float32"),
        (torch.ones(2, 4), {"temperature": 0.0}, "`temperature` is 0.0"),
        (torch.ones(2, 4), {"beta": -1.0}, "`beta` is -1.0"),
        (torch.ones(2, 4), {"labels": torch.zeros(3).long()}, r"`labels` is \[3\]"),
        (torch.ones(2, 4), {"reduction": "max"}, "`reduction` is 'max'"),
    ],
)
def test_bad_input_is_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        clip_loss(image, torch.ones(2, 4), **options)
    with pytest.raises(ValueError, match="has 1 pairs; at least 2"):
        clip_loss(torch.ones(1, 4), torch.ones(1, 4))


BATCH = 6
LABELS = torch.tensor([0, 1, 2, 0, 3, 3])


def own_loss_and_gradient(labelled):
    """Those of this process's part of the batch."""
    image, text = (x.detach()[local_slice(BATCH)].requires_grad_() for x in views(BATCH, 4))
    labels = LABELS[local_slice(BATCH)] if labelled else None
    loss = clip_loss(image, text, labels, tau_plus=0.1, gather_distributed=True)
    return [loss.item(), *(x.numpy() for x in torch.autograd.grad(loss, (image, text)))]


@pytest.mark.distributed
@pytest.mark.parametrize("labelled", [True, False])
def test_two_processes_equal_one(labelled):
    image, text = views(BATCH, 4)
    loss = clip_loss(image, text, LABELS if labelled else None, tau_plus=0.1)
    gradients = torch.autograd.grad(loss, (image, text))
    results = in_processes(2, own_loss_and_gradient, labelled)
    assert sum(result[0] for result in results) / 2 == pytest.approx(loss.item(), rel=1e-12)
    for i, expected in enumerate(gradients, start=1):
        # A process's loss is a mean over half of the anchors: its gradients are twice the whole batch's.
        actual = torch.cat([torch.from_numpy(result[i]) for result in results]) / 2
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


def different_numbers_of_pairs():
    with pytest.raises(ValueError, match="the processes have 4, 3 samples; all must have equally many"):
        clip_loss(*views(4 - rank(), 4), gather_distributed=True)


@pytest.mark.distributed
def test_processes_with_different_numbers_of_pairs_are_refused():
    in_processes(2, different_numbers_of_pairs)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_it_is_the_objective_on_logits(stop_gradient):
    """Value and gradient, that of constant weights too."""
    options = {"beta": 1.0, "tau_plus": 0.1, "stop_gradient": stop_gradient}
    image, text = views(5, 4)
    logits, mask = image @ text.T / 0.2, ~torch.eye(5, dtype=torch.bool)
    rows = [
        hard_negative_loss(logits.diagonal(), matrix, mask, floor=-5.0, **options)
        for matrix in (logits, logits.T)
    ]
    expected = torch.cat(rows).mean()
    loss = clip_loss(image, text, temperature=0.2, normalize=False, **options)
    torch.testing.assert_close(loss, expected)
    assert_same_gradient(loss, expected, (image, text))
