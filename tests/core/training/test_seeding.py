"""Random states: seeded, saved, restored."""

import random

import numpy as np
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
