"""The graph objective against loops, the released code's values, and their three differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import InfoGraphLoss
from core.losses import hard_softplus as hard

REFERENCE = Path(__file__).parents[2] / "reference" / "jsd_official.npz"


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
@example(nodes=3, graphs=3, beta=5e-324, tau_plus=0.0, seed=1)  # becomes 0 in a product with a score
def test_corrected_is_the_equation(nodes, graphs, beta, tau_plus, seed):
    local, global_, batch = embeddings(nodes, graphs, 4, seed)
    loss = InfoGraphLoss(beta, tau_plus)(local, global_, batch)
    assert loss.item() == pytest.approx(corrected_loop(local, global_, batch, beta, tau_plus), rel=1e-9)


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize(("beta", "tau_plus"), [(0, 0), (0, 0.1), (1, 0.1), (10, 0.5)])
def test_gradcheck(beta, tau_plus, variant):
    """For the corrected variant m is a constant, so the numerical derivative is taken at fixed m."""
    local, global_, batch = embeddings(9, 3, 4)
    loss = InfoGraphLoss(beta, tau_plus, variant=variant)
    if variant == "corrected" and beta > 0:
        # One more node, which gets no gradient, has the largest score: m does not change.
        anchor_local = torch.full((1, 4), 3.0, dtype=torch.float64)
        anchor_global = torch.full((1, 4), 3.0, dtype=torch.float64)

        def fixed(local, global_):
            return loss(
                torch.cat([local, anchor_local]),
                torch.cat([global_, anchor_global]),
                torch.cat([batch, torch.tensor([0])]),
            )

    else:

        def fixed(local, global_):
            return loss(local, global_, batch)

    assert torch.autograd.gradcheck(fixed, (local, global_))
    assert torch.autograd.gradgradcheck(fixed, (local, global_))


@pytest.mark.parametrize("case", [f"{i:02d}" for i in range(6)])
def test_released_code(case):
    """Value and gradient of the released graph code, relative to 1e-10."""
    values = {key.split("/")[1]: value for key, value in np.load(REFERENCE).items() if key.startswith(case)}
    local = torch.tensor(values["local"], requires_grad=True)
    global_ = torch.tensor(values["glob"], requires_grad=True)
    tau_plus = 0.5 if values["measure"] == "JSD_hard" else 0.0
    loss = InfoGraphLoss(float(values["beta"]), tau_plus, variant="released")(
        local, global_, torch.tensor(values["batch"])
    )
    loss.backward()
    assert loss.item() == pytest.approx(float(values["loss"]), rel=1e-10)
    for projections, name in ((local, "grad_local"), (global_, "grad_global")):
        error = np.abs(projections.grad.numpy() - values[name]).max() / np.abs(values[name]).max()
        assert error < 1e-10


@pytest.fixture
def readable(monkeypatch):
    """Replaces the fast gradient by the readable version while called."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(hard.HardSoftplus, "apply", hard.hard_softplus)
            return function()

    return call


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0, [0.0, 0.5, 4.0]])
@pytest.mark.parametrize("shares_rows", [False, True], ids=["own rows", "shared rows"])
@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(("rows", "graphs", "runs"), [(1, 2, ()), (9, 2, ()), (40, 7, (3,)), (6, 5, (2, 3))])
def test_fast_gradient_equals_the_readable_one(
    rows, graphs, runs, stop_gradient, shares_rows, beta, dtype, readable
):
    """Also by double backward, which computes its first gradient by the readable version."""
    generator = torch.Generator().manual_seed(rows)
    if isinstance(beta, list) and runs[-1:] != (3,):
        beta = beta[-1]
    nodes = 3 * rows if shares_rows else rows
    local = torch.randn(*runs, rows, 8, dtype=dtype, generator=generator, requires_grad=True)
    global_ = torch.randn(*runs, graphs, 8, dtype=dtype, generator=generator, requires_grad=True)
    batch = torch.randint(graphs, (*runs, nodes), generator=generator)
    node = weight = None
    if shares_rows:
        node = torch.randint(rows, (*runs, nodes), generator=generator)
        weight = torch.rand(*runs, nodes, dtype=dtype, generator=generator)
    objective = InfoGraphLoss(beta, 0.1, stop_gradient=stop_gradient, reduction="none")
    cotangent = torch.randn(*runs, nodes, dtype=dtype, generator=generator)

    def step(**options):
        losses = objective(local, global_, batch, node, weight)
        return losses, *torch.autograd.grad(losses, (local, global_), cotangent, **options)

    expected = readable(step)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-5}
    for actual in (step(), step(create_graph=True)):
        torch.testing.assert_close(actual, expected, **tolerance)


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize("block_elements", [1, 35, 2**18])
def test_large_scores_in_blocks_of_rows_equal_the_readable_version(
    block_elements, stop_gradient, readable, monkeypatch
):
    """Scores up to thousands, whose exponentials underflow and overflow; in blocks of 1, 5 and all rows."""
    monkeypatch.setattr(hard, "BLOCK_ELEMENTS", block_elements)
    local, global_, batch = embeddings(23, 7, 8)
    local = (local * torch.logspace(-3, 3, 23, dtype=torch.float64).unsqueeze(1)).detach().requires_grad_()
    objective = InfoGraphLoss([4.0], 0.1, stop_gradient=stop_gradient, reduction="none")

    def step():
        losses = objective(local.unsqueeze(0), global_.unsqueeze(0), batch.unsqueeze(0))
        return losses, *torch.autograd.grad(losses.sum(), (local, global_))

    expected, actual = readable(step), step()
    assert (local @ global_.T).abs().max() > 1000
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_beta_and_tau_plus_can_be_learned():
    """A beta for each run."""
    local, global_ = (x.detach().view(2, -1, 4) for x in embeddings(14, 6, 4)[:2])
    batch = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 2, 2]])
    beta = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    tau_plus = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def loss(beta, tau_plus):
        return InfoGraphLoss(beta, tau_plus)(local, global_, batch)

    torch.testing.assert_close(loss(beta, tau_plus), loss([0.5, 2.0], 0.1))
    assert torch.autograd.gradcheck(loss, (beta, tau_plus))
    with pytest.raises(ValueError, match="`stop_gradient` makes the weights constants"):
        InfoGraphLoss(beta, stop_gradient=True)


@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_reductions(variant):
    """Without weights as in PyTorch; weights are shares of the mean."""
    local, global_, batch = embeddings(7, 3, 4)
    weight = torch.linspace(0.1, 0.7, 7, dtype=torch.float64)

    def losses(**options):
        return [
            InfoGraphLoss(2.0, 0.1, variant=variant, reduction=reduction)(local, global_, batch, **options)
            for reduction in ("none", "sum", "mean")
        ]

    each, total, mean = losses()
    alone = [
        InfoGraphLoss(2.0, 0.1, variant=variant)(local, global_, batch, weight=one) for one in torch.eye(7)
    ]
    torch.testing.assert_close(each, torch.stack(alone))
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.mean())
    weighted, total, mean = losses(weight=weight)
    torch.testing.assert_close(weighted, each * weight)
    torch.testing.assert_close(total, weighted.sum())
    torch.testing.assert_close(mean, weighted.sum())


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
        loss = InfoGraphLoss(0.0, 0.0, variant=variant)(local, global_, batch)
        torch.testing.assert_close(loss, positive + negative - 2 * math.log(2), rtol=1e-9, atol=0)


def score_gradient(variant, beta, tau_plus, positive, negatives):
    """d loss / d scores of one node with those scores: positive first, then the negatives."""
    scores = torch.tensor([[positive, *negatives]], dtype=torch.float64, requires_grad=True)
    # With an identity for the graphs' projections, a node's local projection is its row of scores.
    loss = InfoGraphLoss(beta, tau_plus, variant=variant)(
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
        one = InfoGraphLoss(beta, 0.0)
        plain = InfoGraphLoss(0.0, 0.0)
        local, global_, batch = embeddings(6, 2, 4)
        torch.testing.assert_close(one(local, global_, batch), plain(local, global_, batch))
        released = InfoGraphLoss(beta, 0.0, variant="released")(local, global_, batch)
        assert not torch.allclose(released, plain(local, global_, batch), rtol=1e-3)


@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_stop_gradient(variant):
    """The value is the same, the gradient is not."""
    local, global_, batch = embeddings(10, 4, 5)
    free, stopped = (InfoGraphLoss(3.0, 0.1, variant=variant, stop_gradient=stop) for stop in (False, True))
    torch.testing.assert_close(free(local, global_, batch), stopped(local, global_, batch))
    gradients = [torch.autograd.grad(loss(local, global_, batch), local)[0] for loss in (free, stopped)]
    assert not torch.allclose(*gradients)


def test_stop_gradient_makes_the_weights_constants():
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
def test_shared_rows_and_several_runs_equal_each_run_alone(nodes, graphs, beta, tau_plus, seed):
    """In value and gradient."""
    generator = torch.Generator().manual_seed(seed)
    local, global_, _ = embeddings(2 * nodes, 2 * graphs, 4, seed)
    local, global_ = (part.detach().reshape(2, -1, 4).requires_grad_() for part in (local, global_))
    node = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
    batch = torch.randint(0, graphs, (2, 3 * nodes), generator=generator)
    weight = torch.rand(2, 3 * nodes, dtype=torch.float64, generator=generator)
    for variant in ("corrected", "released"):
        together = InfoGraphLoss([beta, 1.0], [tau_plus, 0.0], variant=variant)
        losses = together(local, global_, batch, node, weight / weight.sum(1, keepdim=True))
        gradients = torch.autograd.grad(losses.sum(), (local, global_))
        for run, numbers in enumerate(((beta, tau_plus), (1.0, 0.0))):
            one = InfoGraphLoss(*numbers, variant=variant)
            share = weight[run] / weight[run].sum()
            loss = one(local[run][node[run]], global_[run], batch[run], weight=share)
            torch.testing.assert_close(losses[run], loss, rtol=1e-9, atol=1e-12)
            for gradient, alone in zip(gradients, torch.autograd.grad(loss, (local, global_)), strict=True):
                torch.testing.assert_close(gradient[run], alone[run], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_finite_in_half_precision(scale, dtype, variant):
    """With scores up to thousands, and with all scores 0, where m is 0."""
    local, global_, batch = embeddings(12, 4, 8)
    local = (local * scale).detach().to(dtype).requires_grad_()
    loss = InfoGraphLoss(32.0, 0.5, variant=variant)(local, (global_ * scale).detach().to(dtype), batch)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, local)[0].isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 5), st.floats(0, 10), st.floats(0, 0.9), st.integers(0, 2**31))
def test_value_does_not_depend_on_the_order_of_nodes_and_graphs(nodes, graphs, beta, tau_plus, seed):
    local, global_, batch = embeddings(nodes, graphs, 4, seed)
    generator = torch.Generator().manual_seed(seed)
    node_order = torch.randperm(nodes, generator=generator)
    graph_order = torch.randperm(graphs, generator=generator)
    for variant in ("corrected", "released"):
        loss = InfoGraphLoss(beta, tau_plus, variant=variant)
        shuffled = loss(local[node_order], global_[graph_order], graph_order.argsort()[batch[node_order]])
        torch.testing.assert_close(shuffled, loss(local, global_, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 3), (1, 3), (4,)), "`global_` has 1 graph; at least 2"),
        (((4, 3), (2, 5), (4,)), "with the same dim"),
        (((4, 3), (2, 3), (5,)), r"`batch` is \[5\] of torch.int64; it must be \[4\]"),
        (((0, 3), (2, 3), (0,)), "`local` has 0 nodes"),
        (((1, 6, 3), (3, 3, 3), (1, 6)), "the same runs in front"),
    ],
)
def test_shapes_that_do_not_match_are_refused(shapes, message):
    local, global_, batch = shapes
    with pytest.raises(ValueError, match=message):
        InfoGraphLoss()(torch.ones(local), torch.ones(global_), torch.zeros(batch, dtype=torch.long))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_input_that_is_no_tensor_is_refused(place):
    given = [torch.ones(4, 3), torch.ones(2, 3), torch.tensor([0, 0, 1, 1])]
    given[place] = given[place].numpy()
    with pytest.raises(ValueError, match="is a ndarray; it must be a tensor"):
        InfoGraphLoss()(*given)


@pytest.mark.parametrize(("name", "value"), [("beta", -5.0), ("tau_plus", 1.5)])
def test_setting_that_changes_later_is_checked(name, value):
    loss = InfoGraphLoss()
    setattr(loss, name, value)
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        loss(torch.ones(4, 3), torch.ones(2, 3), torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": torch.tensor([0, 1, 1, -1])}, "`batch` has -1 to 1; it must have 0 to 1"),
        ({"batch": torch.tensor([0, 1, 2, 0])}, "`batch` has 0 to 2"),
        ({"node": torch.tensor([0, 1, 4, 0])}, "`node` has 0 to 4; it must have 0 to 3"),
        ({"weight": torch.ones(4, 1)}, r"`weight` is \[4, 1\]; it must be \[4\]"),
    ],
)
@pytest.mark.parametrize("variant", ["corrected", "released"])
def test_nodes_that_do_not_match_are_refused(variant, arguments, message):
    given = {"batch": torch.tensor([0, 0, 1, 1])} | arguments
    with pytest.raises(ValueError, match=message):
        InfoGraphLoss(variant=variant)(torch.ones(4, 3), torch.ones(2, 3), **given)


@pytest.mark.parametrize("name", ["beta", "tau_plus"])
def test_settings_of_other_runs_are_refused(name):
    runs = torch.ones(3, 4, 2), torch.ones(3, 2, 2), torch.tensor([0, 0, 1, 1]).expand(3, 4)
    with pytest.raises(ValueError, match=rf"`{name}` is \[2\]; .* one for each of the \[3\] runs"):
        InfoGraphLoss(**{name: [0.1, 0.2]})(*runs)
    with pytest.raises(ValueError, match=rf"`{name}` is \[3\]; it must be a number$"):
        InfoGraphLoss(**{name: [0.1, 0.2, 0.3]})(*(one[0] for one in runs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1}, "`beta` is -1"),
        ({"beta": [0, -1]}, "`beta` is -1"),
        ({"beta": "x"}, "`beta` is 'x'; it must be a number, or one for each run"),
        ({"tau_plus": None}, "`tau_plus` is None; it must be a number, or one for each run"),
        ({"tau_plus": 1}, "`tau_plus` is 1"),
        ({"tau_plus": 1 - 1e-9}, "`tau_plus` is 0.999999999; it must be at least 0 and below 1"),
        ({"variant": "fixed"}, "`variant` is 'fixed'; it must be one of corrected, released"),
        ({"reduction": "max"}, "`reduction` is 'max'; it must be one of mean, sum, none"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfoGraphLoss(**arguments)
