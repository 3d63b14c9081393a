"""The changes that docs/extending.md shows apply to the code, and the changed code runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the packages with all of the page's changes."""
    folder = tmp_path_factory.mktemp("changed")
    for package in ("core", "image", "graph", "sentence", "shared_eval"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for diff in DIFFS:
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (
            "image.train --dataset digits --arch resnet14 --width 4 --beta-warmup 1 --epochs 1",
            "image/digits/hard-beta1-tau0.1-warmup1/seed-0",
        ),
        ("graph.train --dataset cycles --epochs 2", "graph/cycles/hard-beta1-tau0.1/seed-0"),
    ],
)
def test_changed_code_trains_and_names_the_run(changed, command, folder):
    assert len(DIFFS) == 3
    subprocess.run(
        [sys.executable, "-m", *command.split(), "--device", "cpu"],
        cwd=changed,
        env=os.environ | {"PYTHONPATH": str(changed)},
        capture_output=True,
        check=True,
    )
    assert (changed / "runs" / folder / "result.json").exists()
