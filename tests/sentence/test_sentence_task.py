"""The task gives the objective every setting: its loss on a batch against naive loops, in float64."""

import pytest
import torch

from sentence.config import SentenceConfig
from sentence.objective import neighbour_scores
from sentence.task import SentenceTask
from tests.sentence.test_sentence_objective import naive

COSINES = {"normalize": True, "temperature": 0.7, "window": 2, "stop_gradient": True}
STEP = 1e-6  # of a finite difference


@pytest.mark.parametrize("settings", [COSINES, {"denominator": "all"}], ids=["cosines", "denominator all"])
def test_training_step_is_the_naive_loss_of_a_batch(books, tmp_path, settings):
    """Value and slope along a random direction of random embeddings; constant weights do not move.

    At tau_plus 0.5 the debiased sum of some anchors is at its floor, that of others is not.
    """
    config = SentenceConfig(
        dataset=f"folder:{books}",
        data_root=tmp_path,
        encoder="bow",
        embedding_dim=4,
        batch_size=8,
        beta=1.5,
        tau_plus=0.5,
        tasks=("none",),
        **settings,
    )
    task = SentenceTask([config.checked()], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    f, g, *directions = torch.randn(4, 8, 4, generator=generator, dtype=torch.float64)
    task.network = lambda ids, lengths: (f, g)
    batch = next(iter(task.batches(epoch=1)))

    @torch.no_grad()
    def expected(step):
        moved = [x + step * direction for x, direction in zip((f, g), directions, strict=True)]
        return naive(
            neighbour_scores(*moved, config.temperature),
            batch.positions,
            batch.book,
            beta=1.5,
            tau_plus=0.5,
            window=config.window,
            denominator=config.denominator,
            floor=-1 / 0.7 if config.normalize else None,
            weighted_by=neighbour_scores(f, g, config.temperature) if config.stop_gradient else None,
        )

    inputs = [f.requires_grad_(), g.requires_grad_()]
    [loss], _ = task.training_step(batch)
    assert loss.item() == pytest.approx(expected(0), rel=1e-10)
    gradients = torch.autograd.grad(loss, inputs)
    slope = sum((gradient * x).sum() for gradient, x in zip(gradients, directions, strict=True))
    assert slope.item() == pytest.approx((expected(STEP) - expected(-STEP)) / (2 * STEP), rel=1e-6)
