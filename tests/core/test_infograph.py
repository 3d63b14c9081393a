"""The graph objective against naive loops, the released code's values, and the three differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import InfoGraphLoss

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "jsd_official.npz"


def embeddings(nodes: int, graphs: int, dim: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(nodes, dim, dtype=torch.float64, generator=generator, requires_grad=True)
    global_ = torch.randn(graphs, dim, dtype=torch.float64, generator=generator, requires_grad=True)
    batch = torch.randint(0, graphs, (nodes,), generator=generator).sort().values
    return local, global_, batch


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def corrected_loop(local, global_, batch, beta, tau_plus) -> float:
    """The docstring's equation, node by node."""
    scores = (local @ global_.T).tolist()
    rows = [
        ([q for j, q in enumerate(row) if j != own], row[own])
        for row, own in zip(scores, batch.tolist(), strict=True)
    ]
    m = max(abs(q) for negatives, _ in rows for q in negatives)
    total = 0.0
    for negatives, p in rows:
        weights = [math.exp(2 * beta * q / m) for q in negatives]
        mean_weight = sum(weights) / len(weights)
        terms = [w / mean_weight * softplus(q) for w, q in zip(weights, negatives, strict=True)]
        debiased = (sum(terms) / len(terms) - tau_plus * softplus(p)) / (1 - tau_plus)
        total += softplus(-p) + max(0.0, debiased) - 2 * math.log(2)
    return total / len(rows)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(2, 6), st.floats(0, 12), st.floats(0, 0.9), st.integers(0, 2**31))
@example(nodes=3, graphs=3, beta=5e-324, tau_plus=0.0, seed=1)  # times a score, or divided by one: nothing
def test_corrected_is_the_equation(nodes, graphs, beta, tau_plus, seed):
    local, global_, batch = embeddings(nodes, graphs, 4, seed)
    loss = InfoGraphLoss(beta, tau_plus)(local, global_, batch)
    assert loss.item() == pytest.approx(corrected_loop(local, global_, batch, beta, tau_plus), rel=1e-9)


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (1, 0.1), (10, 0.5)])
def test_gradcheck(beta, tau_plus, variant):
    """For the corrected variant m is a constant, so the numerical derivative is taken at fixed m."""
    local, global_, batch = embeddings(9, 3, 4)
    loss = InfoGraphLoss(beta, tau_plus, variant)
    if variant == "corrected" and beta > 0:
        # A node that alone attains m, and has no gradient, keeps m where it is.
        anchor_local = torch.full((1, 4), 3.0, dtype=torch.float64)
        anchor_global = torch.full((1, 4), 3.0, dtype=torch.float64)

        def fixed(local, global_):
            return loss(
                torch.cat([local, anchor_local]),
                torch.cat([global_, anchor_global]),
                torch.cat([batch, torch.tensor([0])]),
            )

        assert torch.autograd.gradcheck(fixed, (local, global_))
    else:
        assert torch.autograd.gradcheck(lambda a, b: loss(a, b, batch), (local, global_))


@pytest.mark.skipif(not REFERENCE.exists(), reason="reference values of the released code are not here")
@pytest.mark.parametrize("case", [f"{i:02d}" for i in range(6)])
def test_released_code(case):
    """Value and gradient of the released graph code, relative to 1e-10."""
    held = {key.split("/")[1]: value for key, value in np.load(REFERENCE).items() if key.startswith(case)}
    local = torch.tensor(held["local"], requires_grad=True)
    global_ = torch.tensor(held["glob"], requires_grad=True)
    tau_plus = 0.5 if held["measure"] == "JSD_hard" else 0.0
    loss = InfoGraphLoss(float(held["beta"]), tau_plus, "released")(
        local, global_, torch.tensor(held["batch"])
    )
    loss.backward()
    assert loss.item() == pytest.approx(float(held["loss"]), rel=1e-10)
    for value, name in ((local, "grad_local"), (global_, "grad_global")):
        error = np.abs(value.grad.numpy() - held[name]).max() / np.abs(held[name]).max()
        assert error < 1e-10


def test_no_second_derivative_instead_of_a_wrong_one():
    local, global_, batch = embeddings(4, 3, 2)
    with pytest.raises(RuntimeError, match="InfoGraphLoss, corrected, has a first derivative only"):
        torch.autograd.grad(InfoGraphLoss()(local, global_, batch), local, create_graph=True)


def test_autocast_does_not_lower_the_precision_of_the_gradient():
    local, global_, batch = (x.detach() for x in embeddings(9, 3, 4))
    local, global_ = local.float().requires_grad_(), global_.float().requires_grad_()
    loss = InfoGraphLoss(10.0, 0.1)
    (expected,) = torch.autograd.grad(loss(local, global_, batch), local)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(local, global_, batch)
        (gradient,) = torch.autograd.grad(inside, local)
    torch.testing.assert_close(inside, loss(local, global_, batch))
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=1e-3)  # of products with bfloat16


def test_plain_infograph_in_both_variants():
    """At beta 0 and tau_plus 0 both are mean softplus(q) + mean softplus(-p) - 2 log 2."""
    local, global_, batch = embeddings(20, 5, 6)
    scores = local @ global_.T
    own = batch[:, None] == torch.arange(5)
    positive = torch.nn.functional.softplus(-scores[own]).mean()
    negative = torch.nn.functional.softplus(scores[~own]).mean()
    for variant in ("corrected", "released"):
        loss = InfoGraphLoss(0.0, 0.0, variant)(local, global_, batch)
        torch.testing.assert_close(loss, positive + negative - 2 * math.log(2), rtol=1e-9, atol=0)


def score_gradient(variant, beta, tau_plus, positive, negatives):
    """d loss / d scores of one node with those scores: positive first, then the negatives."""
    scores = torch.tensor([[positive, *negatives]], dtype=torch.float64, requires_grad=True)
    # With an identity for the graphs' projections, a node's local projection is its row of scores.
    loss = InfoGraphLoss(beta, tau_plus, variant)(
        scores, torch.eye(scores.shape[1], dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    )
    return torch.autograd.grad(loss, scores)[0][0]


def test_first_difference_the_exponent():
    """Corrected, the hardest negative is pushed away harder than without weights; released, it is pulled."""
    negatives = [-4.0, 2.0]  # the largest abs(q), which sets m, is not the hardest's
    corrected = score_gradient("corrected", 4.0, 0.0, 1.0, negatives)[2]
    plain = score_gradient("corrected", 0.0, 0.0, 1.0, negatives)[2]
    released = score_gradient("released", 4.0, 0.0, 1.0, negatives)[2]
    assert corrected > plain > 0 > released


def test_second_difference_the_class_prior():
    """Corrected, a positive is pulled upwards; released at tau_plus 0.5, it is pulled to score 0."""
    for positive in (0.5, 1.0, 3.0):
        assert score_gradient("corrected", 0.0, 0.5, positive, [3.0, 4.0])[0] < 0
        assert score_gradient("released", 0.0, 0.5, positive, [3.0, 4.0])[0] > 0
        assert score_gradient("released", 0.0, 0.5, -positive, [3.0, 4.0])[0] < 0
    assert score_gradient("released", 0.0, 0.5, 0.0, [3.0, 4.0])[0] == pytest.approx(0, abs=1e-12)


def test_third_difference_the_positive_among_the_negatives():
    """With one negative its weight is 1 whatever beta; released, the own graph at score 0 shares the mean."""
    for beta in (1.0, 5.0):
        one = InfoGraphLoss(beta, 0.0, "corrected")
        plain = InfoGraphLoss(0.0, 0.0, "corrected")
        local, global_, batch = embeddings(6, 2, 4)
        torch.testing.assert_close(one(local, global_, batch), plain(local, global_, batch))
        released = InfoGraphLoss(beta, 0.0, "released")(local, global_, batch)
        assert not torch.allclose(released, plain(local, global_, batch), rtol=1e-3)


@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_stop_gradient(variant):
    """The value stays, the gradient is that of fixed weights, and it differs from the free one."""
    local, global_, batch = embeddings(10, 4, 5)
    free, stopped = (InfoGraphLoss(3.0, 0.1, variant, stop_gradient=stop) for stop in (False, True))
    torch.testing.assert_close(free(local, global_, batch), stopped(local, global_, batch))
    gradients = [torch.autograd.grad(loss(local, global_, batch), local)[0] for loss in (free, stopped)]
    assert not torch.allclose(*gradients)


def test_stop_gradient_holds_the_weights():
    gradient = score_gradient_of(stop_gradient=True)
    q = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    weights = torch.softmax(2 * 3.0 * q / 2.0, dim=0)
    torch.testing.assert_close(gradient[1:], weights * torch.sigmoid(q))


def score_gradient_of(stop_gradient: bool) -> torch.Tensor:
    scores = torch.tensor([[1.0, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = InfoGraphLoss(3.0, 0.0, stop_gradient=stop_gradient)(
        scores, torch.eye(3, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    )
    return torch.autograd.grad(loss, scores)[0][0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(2, 5), st.floats(0, 10), st.floats(0, 0.9), st.integers(0, 2**31))
def test_equal_nodes_need_to_stand_but_once(nodes, graphs, beta, tau_plus, seed):
    """Rows that several nodes share, and several runs at a time: value and gradient of each run alone."""
    generator = torch.Generator().manual_seed(seed)
    local, global_, _ = embeddings(2 * nodes, 2 * graphs, 4, seed)
    local, global_ = (part.detach().reshape(2, -1, 4).requires_grad_() for part in (local, global_))
    node = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
    batch = torch.randint(0, graphs, (2, 3 * nodes), generator=generator)
    weight = torch.rand(2, 3 * nodes, dtype=torch.float64, generator=generator)
    for variant in ("corrected", "released"):
        together = InfoGraphLoss([beta, 1.0], [tau_plus, 0.0], variant)
        losses = together(local, global_, batch, node, weight / weight.sum(1, keepdim=True))
        gradients = torch.autograd.grad(losses.sum(), (local, global_))
        for run, numbers in enumerate(((beta, tau_plus), (1.0, 0.0))):
            one = InfoGraphLoss(*numbers, variant)
            share = weight[run] / weight[run].sum()
            loss = one(local[run][node[run]], global_[run], batch[run], weight=share)
            torch.testing.assert_close(losses[run], loss, rtol=1e-9, atol=1e-12)
            for part, wanted in zip(gradients, torch.autograd.grad(loss, (local, global_)), strict=True):
                torch.testing.assert_close(part[run], wanted[run], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_finite_in_half_precision(scale, dtype, variant):
    """Scores up to thousands, and all-zero scores, where m is 0."""
    local, global_, batch = embeddings(12, 4, 8)
    local = (local * scale).detach().to(dtype).requires_grad_()
    loss = InfoGraphLoss(32.0, 0.5, variant)(local, (global_ * scale).detach().to(dtype), batch)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, local)[0].isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 5), st.floats(0, 10), st.floats(0, 0.9), st.integers(0, 2**31))
def test_blind_to_the_order_of_nodes_and_graphs(nodes, graphs, beta, tau_plus, seed):
    local, global_, batch = embeddings(nodes, graphs, 4, seed)
    generator = torch.Generator().manual_seed(seed)
    node_order = torch.randperm(nodes, generator=generator)
    graph_order = torch.randperm(graphs, generator=generator)
    for variant in ("corrected", "released"):
        loss = InfoGraphLoss(beta, tau_plus, variant)
        shuffled = loss(local[node_order], global_[graph_order], graph_order.argsort()[batch[node_order]])
        torch.testing.assert_close(shuffled, loss(local, global_, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((4, 3), (1, 3), (4,)), "has 1 graph; at least 2"),
        (((4, 3), (2, 5), (4,)), "of one dim"),
        (((4, 3), (2, 3), (5,)), r"must be \[4\]"),
        (((0, 3), (2, 3), (0,)), "0 nodes"),
    ],
)
def test_shapes_that_do_not_fit(shapes, said):
    local, global_, batch = shapes
    with pytest.raises(ValueError, match=said):
        InfoGraphLoss()(torch.ones(local), torch.ones(global_), torch.zeros(batch, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"beta": -1}, "beta"), ({"tau_plus": 1}, "tau_plus"), ({"variant": "fixed"}, "corrected, released")],
)
def test_settings_out_of_range(arguments, said):
    with pytest.raises(ValueError, match=said):
        InfoGraphLoss(**arguments)
