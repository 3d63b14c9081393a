"""How the linear probe is trained: its epochs and its optimizer."""

import pytest
import torch

from shared_eval.probes import linear, linear_probe


def epochs_asked_for(**options):
    """The numbers of the epochs whose batches a probe takes."""
    asked = []

    def batches(epoch):
        asked.append(epoch)
        return [(torch.eye(2), torch.arange(2))]

    linear_probe(batches, torch.eye(2), torch.arange(2), classes=2, seed=0, **options)
    return asked


def test_probe_takes_a_hundred_epochs_counted_from_one():
    assert epochs_asked_for() == list(range(1, 101))
    assert epochs_asked_for(epochs=3) == [1, 2, 3]


def test_probe_is_trained_by_adam_with_the_paper_s_rate_and_weight_decay(monkeypatch):
    made = []
    make = linear.make_optimizer

    def spy(name, parameters, **options):
        made.append((name, options))
        return make(name, parameters, **options)

    monkeypatch.setattr(linear, "make_optimizer", spy)
    epochs_asked_for(epochs=1)
    [(name, options)] = made
    assert name == "adam"
    assert options == pytest.approx({"lr": 1e-3, "weight_decay": 1e-6})
