"""The task gives objective and optimizer every setting, and saves what belongs together.

The loss of a batch is compared with naive loops, in float64.
"""

import json
from types import SimpleNamespace

import pytest
import torch

from sentence.config import SentenceConfig
from sentence.objective import neighbour_scores
from sentence.task import SentenceTask
from tests.sentence.conftest import write_books
from tests.sentence.test_sentence_objective import naive

COSINES = {"normalize": True, "temperature": 0.7, "window": 2, "stop_gradient": True}
STEP = 1e-6  # of a finite difference


def task_of(books, data_root, **settings):
    config = SentenceConfig(
        dataset=f"folder:{books}",
        data_root=data_root,
        encoder="bow",
        beta=1.5,
        tau_plus=0.5,
        **{"embedding_dim": 4, "batch_size": 8, "tasks": ("none",)} | settings,
    )
    return SentenceTask([config.checked()], torch.device("cpu"))


def saved_by(task):
    """The tensors that the task saves for figures."""
    saved = {}
    run = SimpleNamespace(save_sample=saved.update, save_encoder_folder=lambda save: None)
    task.save([run])
    return saved


@pytest.mark.parametrize("settings", [COSINES, {"denominator": "all"}], ids=["cosines", "denominator all"])
def test_training_step_is_the_naive_loss_of_a_batch(books, tmp_path, settings):
    """Value and slope along a random direction of random embeddings; constant weights do not move.

    At tau_plus 0.5 the debiased sum of some anchors is at its floor, that of others is not.
    """
    task = task_of(books, tmp_path, **settings)
    config = task.config
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


def test_optimizer_is_adam_without_weight_decay_on_clipped_gradients(books, tmp_path):
    task = task_of(books, tmp_path, lr=0.02, clip_norm=0.25)
    assert type(task.optimizer).__name__ == "Adam"
    assert [(group["lr"], group["weight_decay"]) for group in task.optimizer.param_groups] == [(0.02, 0.0)]
    assert task.clip_norm == 0.25


@pytest.mark.parametrize("window", [1, 2])
def test_saved_positives_are_the_neighbours_in_the_window_and_the_book(tmp_path, window):
    """Against loops, on a batch in which books of five sentences follow each other."""
    books = write_books(tmp_path / "short", [5] * 8)
    task = task_of(books, tmp_path, batch_size=20, window=window)
    batch = next(iter(task.batches(epoch=1)))
    task.encoders.eval()
    with torch.no_grad():
        f, g = task.encoders(batch.ids, batch.lengths)
    near = [
        (i, j)
        for i in range(20)
        for j in range(20)
        if 0 < abs(batch.positions[i] - batch.positions[j]) <= window
    ]
    pairs = [(i, j) for i, j in near if batch.book[i] == batch.book[j]]
    assert len(pairs) < len(near)
    expected = torch.stack([torch.cosine_similarity(f[i], g[j], dim=0) for i, j in pairs])
    found = saved_by(task)["positives"]
    assert len(found) == len(expected)
    torch.testing.assert_close(found.sort().values, expected.sort().values)


def test_saved_vectors_are_the_trained_encoders_of_their_sentences(books, data_folder):
    """With the label of each sentence; and before training those of the untrained encoder."""
    task = task_of(books, data_folder, tasks=("mr",))
    untrained = task.encode(task.shown_texts)
    torch.manual_seed(0)
    for parameter in task.model.parameters():
        torch.nn.init.normal_(parameter)
    saved = saved_by(task)
    texts = json.loads(bytes(saved["shown_texts"].tolist()))
    assert texts == task.shown_texts
    torch.testing.assert_close(saved["shown_before"], untrained)
    torch.testing.assert_close(saved["shown_after"], task.encode(texts))
    assert (saved["shown_after"] - saved["shown_before"]).abs().max() > 0.1
    mr = task.tasks["mr"]
    differences = saved["representations"].unsqueeze(1) - task.encode(mr.sentences)
    nearest, sentences = differences.abs().amax(dim=2).min(dim=1)
    assert nearest.max() < 1e-5
    assert sorted(sentences.tolist()) == list(range(40))
    assert saved["labels"].tolist() == mr.labels[sentences].tolist()
