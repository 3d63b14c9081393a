"""Environment, files and errors: what the run stands on."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from core.io.errors import InputError, TrainingError
from core.io.files import write_atomically
from core.training.cli import command
from core.training.provenance import describe_environment
from core.training.runtime import choose_device
from core.training.seeding import random_states, seed_everything, seeded, set_random_states


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeds_and_random_states():
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


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("toaster", "cuda:99"):
        with pytest.raises(InputError, match=f"--device {name} cannot be used"):
            choose_device(name)


def test_environment_names_what_a_number_depends_on():
    environment = describe_environment(torch.device("cpu"))
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"
    assert environment["device_name"]
    assert {"numpy", "torch", "scikit-learn"} <= environment["packages"].keys()


def test_atomic_writes_leave_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fails(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("--beta is -1"), 2, "error: --beta is -1\n"),
        (TrainingError("the loss became nan"), 1, "error: the loss became nan\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_end_in_a_line_and_a_code(capsys, raised, code, said):
    @command
    def main():
        raise raised

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    assert capsys.readouterr().err == said


def test_our_own_faults_keep_their_traceback():
    @command
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_core_is_light_to_import():
    """Whoever lifts the objectives takes torch along and nothing else."""
    code = "import sys, core; print(sorted({'sklearn', 'tyro', 'torch_geometric'} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
