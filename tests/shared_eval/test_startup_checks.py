"""A file or folder with the name of a package of the project, where Python looks first."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from shared_eval import startup

ROOT = Path(__file__).parents[2]


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("other", ["core.py", "core/__init__.py"])
@pytest.mark.parametrize("module", ["graph.train", "image.evaluate", "sentence.train", "shared_eval.records"])
def test_command_names_what_shadows_core(tmp_path, module, other):
    path = tmp_path / other
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    answer = run_python(tmp_path, "-m", module, "--help")
    shadowing = tmp_path / other.split("/")[0]
    assert answer.returncode == 2
    assert answer.stderr == (
        f"error: {shadowing} has the name of this project's package core ({ROOT / 'core'}) and is imported "
        "instead of it; rename it, or start Python in another folder\n"
    )


def test_command_without_what_it_needs_says_what_to_install(monkeypatch, capsys):
    """As where the losses alone are installed, which need PyTorch alone."""
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        startup.start_command("core")
    assert exit_.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: the commands need more than the losses; install it with pip install -e '{ROOT}[train]'"
    )


def test_import_names_what_shadows_core(tmp_path):
    (tmp_path / "core.py").write_text("")
    answer = run_python(tmp_path, "-c", "import graph.encoder")
    last = answer.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / 'core.py'} has the name of this project's package core")


def test_folder_without_code_is_found_where_an_editable_install_prefers_it(tmp_path, monkeypatch):
    """A finder of setuptools comes after the working directory, where any folder is a namespace package."""
    assert startup.shadowing("core") is None
    namespace = ModuleSpec("core", None, is_package=True)
    namespace.submodule_search_locations = [str(tmp_path / "core")]
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: namespace)
    assert startup.shadowing("core") == str(tmp_path / "core")
    with pytest.raises(ImportError, match="rename it, or start Python in another folder"):
        startup.start_command("core")


def test_folder_of_data_beside_the_project_is_no_obstacle(tmp_path):
    (tmp_path / "core").mkdir()
    assert run_python(tmp_path, "-m", "graph.train", "--help").returncode == 0
