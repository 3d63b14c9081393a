"""Random states: seeded, saved, restored."""

import random

import numpy as np
import pytest
import torch

from core.training.seeding import random_states, seed_everything, seeded, set_random_states


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeded_draws_repeat_and_restored_states_continue():
    seed_everything(3)
    first = draws()
    states = random_states()
    second = draws()
    seed_everything(3)
    assert draws() == first
    set_random_states(states)
    assert draws() == second
    with seeded(3):
        assert draws() == first
    set_random_states(states)
    with seeded(9):
        draws()
    assert draws() == second


def test_random_states_survive_a_checkpoint(tmp_path):
    states = random_states()
    expected = draws()
    torch.save(states, tmp_path / "states.pt")
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == expected


@pytest.mark.parametrize(("saved", "visible"), [(2, 1), (1, 2), (2, 2), (0, 1), (2, 0)])
def test_states_of_as_many_gpus_as_there_are_are_restored(saved, visible, monkeypatch):
    gpus = [torch.tensor([10 + i], dtype=torch.uint8) for i in range(saved)]
    states = random_states() | {"cuda": gpus}
    restored = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)

    def set_rng_state(state, device):
        assert device < visible
        restored[device] = state

    monkeypatch.setattr(torch.cuda.random, "set_rng_state", set_rng_state)
    set_random_states(states)
    assert restored == dict(enumerate(gpus[:visible]))
