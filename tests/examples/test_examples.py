"""Each example runs as a newcomer would run it, on data that comes with its libraries, and learns."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *flags: str) -> None:
    before, sys.argv = sys.argv, [name, *flags]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


@pytest.mark.parametrize(
    ("name", "flags"), [("simclr_minimal.py", ["--epochs", "3"]), ("clip_pairs.py", ["--epochs", "10"])]
)
def test_score_is_better_after_training(name, flags, capsys):
    run(name, *flags)
    before, after = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert after > before
