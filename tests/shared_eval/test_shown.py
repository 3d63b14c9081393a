"""The embeddings that a report takes from samples."""

import numpy as np

from shared_eval.shown import embeddings_of


def a_sample(before, after, shape=(3, 2)):
    return {"shown_before": np.full(shape, before), "shown_after": np.full(shape, after)}


def test_an_objective_has_its_embeddings_after_training():
    """Those before training are of one encoder, whose name is its own."""
    found = embeddings_of({"plain": a_sample(0, 1), "hard": a_sample(0, 2)}, items=3)
    assert list(found) == ["before training", "plain", "hard"]
    for matrix, value in zip(found.values(), (0, 1, 2), strict=True):
        np.testing.assert_array_equal(matrix, np.full((3, 2), value))
        assert matrix.dtype == float


def test_samples_without_an_embedding_of_each_item_are_left_out():
    samples = {
        "whole": a_sample(0, 1),
        "of fewer items": a_sample(0, 1, shape=(2, 2)),
        "of two sizes": a_sample(0, 1) | {"shown_before": np.zeros((3, 4))},
        "cut": {"shown_before": np.zeros((3, 2))},
    }
    assert list(embeddings_of(samples, items=3)) == ["before training", "whole"]
