"""What there is to compute on, memory that does not suffice, and which code it was."""

import re
import subprocess

import numpy as np
import pytest
import torch

from core.io.errors import InputError
from core.training import provenance
from core.training.cli import command
from core.training.runtime import choose_device


@pytest.mark.parametrize("name", ["meta", "meta:0"])
def test_devices_that_compute_nothing(name):
    with pytest.raises(InputError, match=f"--device is {name}; it must be auto, cpu, cuda"):
        choose_device(name)


def of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...\nSee ...")


def of_python():
    raise MemoryError


@pytest.mark.parametrize(
    ("asks", "how_much"),
    [
        (lambda: torch.empty(1 << 60, dtype=torch.uint8), f": {1 << 60} bytes more were asked for"),
        (lambda: np.empty(1 << 60, dtype=np.uint8), ": 1.00 EiB more were asked for"),
        (of_a_gpu, ": 2.50 GiB more were asked for"),
        (of_python, ""),
    ],
    ids=["torch", "numpy", "gpu", "python"],
)
def test_out_of_memory(capsys, asks, how_much):
    with pytest.raises(SystemExit) as exit_:
        command(asks)()
    assert exit_.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out of memory{how_much}; try a smaller --batch-size")


def test_other_faults_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="size"):
        command(lambda: torch.ones(2) @ torch.ones(3))()


def test_a_revision_is_unclean_where_code_is_changed(tmp_path, monkeypatch):
    """Results that studies have written are no code; without a checkout there is no revision."""
    code, result = tmp_path / "core" / "environment.py", tmp_path / "benchmarks" / "results" / "speed.json"
    monkeypatch.setattr(provenance, "__file__", str(code))
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("before")
    assert provenance._revision.__wrapped__() is None

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = provenance._revision.__wrapped__()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    result.write_text("after")
    assert provenance._revision.__wrapped__() == clean
    code.write_text("after")
    assert provenance._revision.__wrapped__() == f"{clean}-dirty"
