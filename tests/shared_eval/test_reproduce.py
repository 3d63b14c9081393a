"""Planning, running, skipping and failing cells, with real processes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.config import parse_config
from core.run import default_folder
from graph.train import GraphConfig
from graph.train import recipe as graph_recipe
from image.train import ImageConfig
from image.train import recipe as image_recipe
from sentence.train import SentenceConfig
from sentence.train import recipe as sentence_recipe
from shared_eval import reproduce
from shared_eval.reproduce import Cell, ReproduceConfig, demo_cells, graph_cells

ROOT = Path(__file__).parents[2]


def cell(**changes) -> Cell:
    hard = Cell("graph", "motifs", "hard", beta=1.0, tau_plus=0.1, seed=0, epochs=2)
    return dataclasses.replace(hard, **changes)


def test_the_graphs_table_has_every_cell_once():
    cells = graph_cells(ReproduceConfig(table="graphs", datasets=("MUTAG", "DD"), seeds=3))
    assert len(cells) == len(set(cells)) == 2 * 3 * (1 + 2 * 4)
    assert len({cell.folder for cell in cells}) == len(cells)
    assert {cell.tau_plus for cell in cells if cell.variant == "released"} == {0.5}


CONFIGS = {
    "image": (ImageConfig, image_recipe),
    "graph": (GraphConfig, graph_recipe),
    "sentence": (SentenceConfig, sentence_recipe),
}


def test_folders_are_those_that_the_modality_chooses():
    for cell_ in [*graph_cells(ReproduceConfig(table="graphs")), *demo_cells()]:
        config = parse_config(*CONFIGS[cell_.modality], cell_.command()[3:], "test")
        assert config.resume
        assert cell_.folder == default_folder(
            cell_.modality, config.dataset, config.objective_slug(), config.seed
        )


def test_the_demo_has_every_modality_at_three_objectives():
    cells = demo_cells()
    assert {cell_.modality for cell_ in cells} == {"image", "graph", "sentence"}
    points = {(cell_.modality, cell_.beta, cell_.tau_plus) for cell_ in cells}
    assert len(points) == len(cells) == 9


def test_cells_run_once_and_failures_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    good, bad = cell(), cell(dataset="nowhere")
    monkeypatch.setattr(reproduce, "demo_cells", lambda: [bad, good])
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(["demo"])
    assert exit_.value.code == 1
    output = capsys.readouterr()
    assert "1 of 2 cells failed" in output.err
    assert "--dataset nowhere is unknown" in output.err
    assert "untrained encoder" in output.out
    assert good.is_finished()

    monkeypatch.setattr(reproduce, "demo_cells", lambda: [good])
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: pytest.fail("ran again"))
    reproduce.main(["demo"])
    assert not cell(epochs=3).is_finished()


def test_dry_run_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["graphs", "--seeds", "2", "--betas", "0", "1", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 2 * 2)
    assert all(line.startswith("to run") for line in lines)
    assert not list(tmp_path.iterdir())


def test_bad_input_as_a_command():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for flags in (["nothing"], ["demo", "--jobs", "0"]):
        answer = subprocess.run(
            [sys.executable, "-m", "shared_eval.reproduce", *flags],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert answer.returncode == 2
        assert answer.stderr.startswith("error: ")
        assert answer.stderr.count("\n") == 1


def test_a_table_in_markdown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cell()
    done.folder.mkdir(parents=True)
    (done.folder / "config.json").write_text(json.dumps(done.settings()))
    record = {
        "schema": 1,
        "modality": "graph",
        "dataset": "motifs",
        "objective": {"name": "hard", "beta": 1.0, "tau_plus": 0.1},
        "seed": 0,
        "epochs": 2,
        "metrics": {"svm_accuracy": 0.5},
        "untrained_metrics": {"svm_accuracy": 0.25},
        "train_seconds": 1.0,
        "eval_seconds": 1.0,
    }
    (done.folder / "result.json").write_text(json.dumps(record))
    monkeypatch.setattr(reproduce, "demo_cells", lambda: [done])
    reproduce.main(["demo", "--markdown", "table.md"])
    assert "| hard, beta 1, tau_plus 0.1 | 50.0 (1) |" in (tmp_path / "table.md").read_text()
