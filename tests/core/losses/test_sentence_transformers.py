"""Losses for SentenceTransformerTrainer against the library's own, at beta 0 and with its hardness."""

from importlib.metadata import version

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from torch.nn.functional import normalize

from core.distributed import local_slice
from core.losses import hard_negative_loss
from core.losses.sentence_transformers import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from tests.processes import in_processes

BATCH = 7
EXACTLY = {"rtol": 1e-10, "atol": 1e-12}
LOSSES = (HardNegativesRankingLoss, CachedHardNegativesRankingLoss)


class MeanOfTokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 6, dtype=torch.float64)

    def forward(self, features):
        mask = features["attention_mask"].unsqueeze(2)
        vectors = (self.embedding(features["input_ids"]) * mask).sum(1) / mask.sum(1)
        return features | {"sentence_embedding": vectors}


def tiny_model():
    """A model as the losses use it: a sequence of modules, padded token ids in, embeddings out."""
    return nn.Sequential(MeanOfTokens())


def columns(count, rows=slice(None)):
    """Token ids and masks of anchors, positives and ``count - 2`` columns of negatives."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (count, BATCH, 5), generator=generator)
    mask = torch.arange(5) < torch.randint(1, 6, (count, BATCH, 1), generator=generator)
    return [{"input_ids": i[rows], "attention_mask": m[rows].long()} for i, m in zip(ids, mask, strict=True)]


def value_and_gradient(loss_type, count, **options):
    model = tiny_model()
    value = loss_type(model, **options)(columns(count), None)
    value.backward()
    return value.detach(), model[0].embedding.weight.grad


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("cached", [False, True])
def test_beta_0_is_the_librarys_loss(count, cached):
    """For pairs, triplets and rows of three negatives: value and gradient."""
    ours = CachedHardNegativesRankingLoss if cached else HardNegativesRankingLoss
    theirs = CachedMultipleNegativesRankingLoss if cached else MultipleNegativesRankingLoss
    options = {"mini_batch_size": 3} if cached else {}
    expected = value_and_gradient(theirs, count, scale=12.0, **options)
    actual = value_and_gradient(ours, count, beta=0.0, tau_plus=0.0, scale=12.0, **options)
    torch.testing.assert_close(actual, expected, **EXACTLY)


# sentence-transformers 6.0 passes gradients on in float32, later versions in float64.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7} if version("sentence-transformers") < "6.1" else EXACTLY


@pytest.mark.parametrize("mini_batch_size", [1, 3, 100])
@pytest.mark.parametrize("count", [2, 4])
def test_cached_loss_is_the_loss(count, mini_batch_size):
    options = {"beta": 1.0, "tau_plus": 0.1, "scale": 10.0}
    expected = value_and_gradient(HardNegativesRankingLoss, count, **options)
    actual = value_and_gradient(
        CachedHardNegativesRankingLoss, count, mini_batch_size=mini_batch_size, **options
    )
    torch.testing.assert_close(actual, expected, **TOLERANCE)


def embeddings(count):
    model = tiny_model()
    return [model(features)["sentence_embedding"].detach().requires_grad_() for features in columns(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_librarys_hardness_is_ours_without_the_mean_of_the_weights(count):
    """Its strength 9 at scale 20 (Lan et al., 2025) is beta 0.45 with constant weights.

    The library's weights are not divided by their mean: that is a constant, by which it lowers the positive.
    """
    anchors, *documents = vectors = embeddings(count)
    library = MultipleNegativesRankingLoss(tiny_model(), hardness_mode="all_negatives", hardness_strength=9.0)
    expected = library.compute_loss_from_embeddings(vectors, None)

    candidates = normalize(torch.cat(documents), dim=1)
    logits = 20 * normalize(anchors, dim=1) @ candidates.T
    mask = ~torch.eye(*logits.shape, dtype=torch.bool)
    weights = torch.exp(0.45 * logits.detach())
    mean_weight = (weights * mask).sum(1) / mask.sum(1)
    losses = hard_negative_loss(
        logits.diagonal() - mean_weight.log(),
        logits,
        mask,
        beta=0.45,
        tau_plus=0.0,
        floor=-20.0,
        stop_gradient=True,
    )
    torch.testing.assert_close(losses.mean(), expected, rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(loss, vectors, retain_graph=True) for loss in (losses.mean(), expected))
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-12)


def test_value_is_the_objective_on_cosines():
    anchors, *documents = vectors = embeddings(3)
    loss = HardNegativesRankingLoss(
        tiny_model(), beta=1.0, tau_plus=0.1, scale=10.0
    ).compute_loss_from_embeddings(vectors)
    logits = 10 * normalize(anchors, dim=1) @ normalize(torch.cat(documents), dim=1).T
    mask = ~torch.eye(*logits.shape, dtype=torch.bool)
    expected = hard_negative_loss(logits.diagonal(), logits, mask, beta=1.0, tau_plus=0.1, floor=-10.0)
    torch.testing.assert_close(loss, expected.mean())
    plain = HardNegativesRankingLoss(
        tiny_model(), beta=0.0, tau_plus=0.0, scale=10.0
    ).compute_loss_from_embeddings(vectors)
    assert (loss - plain).abs() > 1e-3


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_gradient_is_the_equations(cached, stop_gradient):
    """With the weights of the negatives as constants and without; written out without log space."""
    model = tiny_model()
    anchors, *documents = (model(features)["sentence_embedding"] for features in columns(3))
    logits = 20 * normalize(anchors, dim=1) @ normalize(torch.cat(documents), dim=1).T
    mask = ~torch.eye(*logits.shape, dtype=torch.bool)
    weights = torch.exp(0.45 * (logits.detach() if stop_gradient else logits)) * mask
    weights = weights / (weights.sum(1, keepdim=True) / mask.sum(1, keepdim=True))
    losses = torch.log1p((weights * logits.exp()).sum(1) / logits.diagonal().exp())
    losses.mean().backward()
    actual = value_and_gradient(
        CachedHardNegativesRankingLoss if cached else HardNegativesRankingLoss,
        3,
        beta=0.45,
        stop_gradient=stop_gradient,
        **({"mini_batch_size": 3} if cached else {}),
    )
    expected = losses.mean().detach(), model[0].embedding.weight.grad
    torch.testing.assert_close(actual, expected, **(TOLERANCE if cached else EXACTLY))


@pytest.mark.parametrize("loss_type", LOSSES)
def test_settings_are_checked_and_shown(loss_type):
    with pytest.raises(ValueError, match="`beta` is -1; it must be at least 0"):
        loss_type(tiny_model(), beta=-1)
    with pytest.raises(ValueError, match="`tau_plus` is 1"):
        loss_type(tiny_model(), tau_plus=1)
    with pytest.raises(ValueError, match="positive"):
        loss_type(tiny_model(), scale=0)
    with pytest.raises(ValueError, match=r"at least 2|1 text column"):
        loss_type(tiny_model())(columns(1), None)
    loss = loss_type(tiny_model(), beta=2.0, tau_plus=0.1, scale=30.0)
    assert loss.get_config_dict() | {"mini_batch_size": 32} == {
        "beta": 2.0,
        "tau_plus": 0.1,
        "scale": 30.0,
        "stop_gradient": False,
        "gather_across_devices": False,
        "mini_batch_size": 32,
    }
    assert loss.scale == 30.0
    assert "Hard Negative Samples" in loss.citation


def own_value_and_gradient(loss_type, **options):
    model = tiny_model()
    loss = loss_type(model, beta=1.0, tau_plus=0.1, scale=10.0, gather_across_devices=True, **options)
    value = loss(columns(3, rows=local_slice(6)), None)
    value.backward()
    return value.item(), model[0].embedding.weight.grad.numpy()


def values_and_gradients():
    return [
        own_value_and_gradient(HardNegativesRankingLoss),
        own_value_and_gradient(CachedHardNegativesRankingLoss, mini_batch_size=2),
    ]


@pytest.mark.distributed
def test_two_processes_equal_one():
    """The mean of the processes' gradients is the whole batch's."""
    model = tiny_model()
    whole = HardNegativesRankingLoss(model, beta=1.0, tau_plus=0.1, scale=10.0)(
        columns(3, rows=slice(6)), None
    )
    whole.backward()
    for pair in zip(*in_processes(2, values_and_gradients), strict=True):
        assert sum(value for value, _ in pair) / 2 == pytest.approx(whole.item(), rel=1e-12)
        gradient = sum(torch.from_numpy(gradient) for _, gradient in pair) / 2
        torch.testing.assert_close(gradient, model[0].embedding.weight.grad, **TOLERANCE)
