"""Planning, running, skipping, resuming and failing cells, with real processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.io.errors import InputError
from core.training.cli import parse_config
from core.training.run_folder import default_folder
from graph.train import GraphConfig, expand
from graph.train import recipe as graph_recipe
from image.train import ImageConfig
from image.train import recipe as image_recipe
from sentence.train import SentenceConfig
from sentence.train import recipe as sentence_recipe
from shared_eval import cells as cells_module
from shared_eval import reproduce
from shared_eval.cells import Cell, Launch, launches
from shared_eval.recipes import FOLDER, TABLES, load_recipes, read_recipe
from shared_eval.records import find_records, read_records
from shared_eval.reproduce import estimated_seconds
from shared_eval.tables import scores, summarise
from tests.shared_eval.conftest import HARD, write_record

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "image": (ImageConfig, image_recipe),
    "graph": (GraphConfig, graph_recipe),
    "sentence": (SentenceConfig, sentence_recipe),
}
MOTIFS = """
title = "two epochs"
modality = "graph"
source = "none"
cost = ""
datasets = ["motifs"]
epochs = 2
seeds = 1
[[published]]
source = "paper"
dataset = "motifs"
metric = "svm_accuracy"
label = "hard, beta 1"
value = 0.987
[settings]
hidden = 8
[[objectives]]
objective = "hard"
tau_plus = 0.1
betas = [0.0, 1.0]
"""


def cell(**changes) -> Cell:
    hard = Cell("graph", "motifs", "hard", beta=1.0, tau_plus=0.1, seed=0, epochs=2)
    return dataclasses.replace(hard, **changes)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A small recipe, in a fresh folder that runs go to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "two.toml"
    path.write_text(MOTIFS)
    return path


def test_the_graphs_table_has_every_cell_once():
    [of_graphs] = load_recipes("graphs")
    cells = of_graphs.cells(datasets=("MUTAG", "DD"), seeds=3)
    assert len(cells) == len(set(cells)) == 2 * 3 * (1 + 2 * 4)
    assert len({cell.folder for cell in cells}) == len(cells)
    assert {cell.tau_plus for cell in cells if cell.variant == "released"} == {0.5}
    assert {cell.objective for cell in cells if cell.beta == 0} == {"infograph", "debiased"}
    narrowed = of_graphs.cells(datasets=("MUTAG",), objectives=("hard",), betas=(0.5,), seeds=1)
    assert [(cell.objective, cell.beta) for cell in narrowed] == [("hard", 0.5)] * 2


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_one_that_the_commands_take(path):
    """Every cell's command parses, and lies where the recipe says; figures name rows that there are."""
    recipe = read_recipe(path)
    assert recipe.source
    labels = set()
    for cell_ in recipe.cells():
        config = parse_config(*CONFIGS[cell_.modality], Launch((cell_,)).command()[3:], "test")
        assert config.resume
        settings = config.as_dict()
        assert {name: settings[name] for name in cell_.settings()} == cell_.settings()
        chosen = default_folder(cell_.modality, config.dataset, config.objective_slug(), config.seed)
        assert cell_.folder == Path(recipe.folder) / chosen.relative_to("runs")
        numbers = [
            f"{name} {value:g}"
            for name, value in (("beta", cell_.beta), ("tau_plus", cell_.tau_plus))
            if value
        ]
        labels.add(", ".join([cell_.objective, *numbers]))
    for entry in recipe.published:
        assert entry["label"] in labels
        assert entry["dataset"] in recipe.datasets
        assert 0 < entry["value"] < 1


def test_the_demo_has_every_modality_at_three_objectives():
    cells = [cell_ for recipe_ in load_recipes("demo") for cell_ in recipe_.cells()]
    assert {cell_.modality for cell_ in cells} == {"image", "graph", "sentence"}
    points = {(cell_.modality, cell_.beta, cell_.tau_plus) for cell_ in cells}
    assert len(points) == len(cells) == 9
    assert set(TABLES["all"]) < {path.stem for path in FOLDER.glob("*.toml")}


@pytest.mark.parametrize(
    "change",
    [
        ("title", "titel"),
        ("epochs = 2", ""),
        ("epochs = 2", 'epochs = "two"\nunknown = 1'),
        ("betas = [0.0, 1.0]", 'betas = ["a"]'),
        ("[[objectives]]", "[[objective]]"),
        ("value = 0.987", "values = 0.987"),
        ("modality", "modality ="),
    ],
)
def test_a_damaged_recipe(recipe, change):
    recipe.write_text(MOTIFS.replace(*change))
    with pytest.raises(InputError, match=r"two\.toml is no recipe"):
        read_recipe(recipe)


def test_a_table_from_nothing_and_again(recipe, monkeypatch, capsys):
    reproduce.main([str(recipe), "--jobs", "2", "--output", "table.md", "table.csv", "table.tex"])
    shown = capsys.readouterr()
    assert shown.err.count("done: ") == 2
    table = Path("table.md").read_text()
    for row in (
        "untrained encoder",
        "debiased, tau_plus 0.1",
        "hard, beta 1, tau_plus 0.1",
        "paper: hard, beta 1 | 98.7",
    ):
        assert f"| {row}" in table
    assert Path("table.csv").read_text().startswith("objective,kind,column")
    assert Path("table.tex").read_text().startswith("\\begin{tabular}")
    config = json.loads(Path("runs/graph/motifs/hard-beta1-tau0.1/seed-0/config.json").read_text())
    assert config["hidden"] == 8

    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail("ran again"))
    reproduce.main([str(recipe)])
    assert "98.7" in capsys.readouterr().out


def test_seeds_of_a_graph_run_share_a_process():
    graphs = [cell(beta=beta, seed=seed) for beta in (1.0, 2.0) for seed in range(3)]
    images = [cell(modality="image", dataset="shapes", seed=seed) for seed in range(2)]
    planned = [[(c.beta, c.seed) for c in launch.cells] for launch in launches([*graphs, *images], 2)]
    assert planned == [
        *([(beta, 0), (beta, 1)] if first else [(beta, 2)] for beta in (1.0, 2.0) for first in (True, False)),
        [(1.0, 0)],
        [(1.0, 1)],
    ]


@pytest.mark.parametrize("root", ["runs", "elsewhere"])
def test_a_shared_process_fills_the_folders_of_its_cells(root):
    cells = tuple(cell(seed=seed, root=root) for seed in (0, 4))
    config = parse_config(*CONFIGS["graph"], Launch(cells).command()[3:], "test")
    folders = [
        run.output_dir or default_folder("graph", run.dataset, run.objective_slug(), run.seed)
        for run in expand(config)
    ]
    assert folders == [cell_.folder for cell_ in cells]


def test_failures_do_not_stop_the_others(recipe, capsys):
    recipe.write_text(MOTIFS.replace('["motifs"]', '["nowhere", "motifs"]'))
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(recipe)])
    assert exit_.value.code == 1
    output = capsys.readouterr()
    assert "2 of 4 cells failed" in output.err
    assert "--dataset is 'nowhere', which is unknown" in output.err
    assert "runs/logs/graph-nowhere-hard-beta1-tau0.1-seed-0.log" in output.err
    assert "untrained encoder" in output.out


def test_a_cell_cut_short_is_resumed(recipe):
    """Killed after its first epoch: only the rest is trained, and the record is whole."""
    [*_, hard] = read_recipe(recipe).cells()
    code = (
        "import core.training.loop, os, sys\n"
        "take = core.training.loop.take_step\n"
        "taken = []\n"
        "def step(*a):\n"
        "    taken.append(1)\n"
        "    return os._exit(9) if len(taken) == 4 else take(*a)\n"
        "core.training.loop.take_step = step\n"
        "import graph.train; graph.train.main(sys.argv[1:])\n"
    )
    flags = [*Launch((hard,)).command()[3:], "--checkpoint-seconds", "0"]
    killed = subprocess.run([sys.executable, "-c", code, *flags])
    assert killed.returncode == 9
    assert not hard.is_finished()
    assert (hard.folder / "checkpoint" / "state-a.pt").exists()
    reproduce.main([str(recipe), "--objectives", "hard"])
    assert hard.is_finished()
    lines = [json.loads(line) for line in (hard.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process of its parent's end")
def test_cells_end_with_whoever_is_killed(recipe):
    """kill -9 of the table reaches the run under way, which saves; the same command goes on with it."""
    recipe.write_text(MOTIFS.replace("epochs = 2", "epochs = 30"))
    flags = [str(recipe), "--objectives", "hard"]
    [*_, hard] = read_recipe(recipe).cells()
    first = subprocess.Popen([sys.executable, "-m", "shared_eval.reproduce", *flags])
    metrics, end = hard.folder / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reproduce.main(flags)
    assert hard.is_finished()
    assert "interrupted by SIGTERM in epoch" in Launch((hard,)).log.read_text()
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == list(range(31))


def test_dry_run_runs_nothing_and_estimates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["graphs", "--datasets", "MUTAG", "--seeds", "2", "--betas", "0", "1", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 2 * 2) + 1
    assert all(line.startswith("to run") for line in lines[:-1])
    assert lines[-1] == "10 of 10 to run: 10 have no earlier record to go by"
    assert not list(tmp_path.iterdir())
    record = {"train_seconds": 100.0, "eval_seconds": 10.0, "epochs": 100, "objective": HARD}
    write_record(Path("runs/graph/MUTAG/x/seed-0"), **record)
    # An epoch takes a second, an evaluation ten; a cell has 200 epochs and two evaluations.
    assert estimated_seconds([cell(dataset="MUTAG", epochs=200)]) == (pytest.approx(220), 0)
    assert estimated_seconds([cell()]) == (0, 1)
    assert estimated_seconds([cell(dataset="MUTAG", root="runs/small")]) == (0, 1)
    assert reproduce.estimate([cell(dataset="MUTAG", epochs=200, seed=seed) for seed in range(12)], 2) == (
        "about 22 min"
    )


def test_each_recipe_of_several_takes_its_own_datasets(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["all", "--datasets", "MUTAG", "cifar10", "--seeds", "1", "--dry-run"])
    planned = capsys.readouterr().out
    assert planned.count("graph.train --dataset MUTAG ") == 9
    assert planned.count("image.train --dataset cifar10 ") == 5
    assert planned.count("to run") == 14 + 1


def test_differences_are_printed_and_written(tmp_path, monkeypatch, capsys):
    """In every format, once there are several seeds; a table that is too wide for a terminal is cut up."""
    for dataset in ("MUTAG", "DD"):
        for seed in range(2):
            write_record(tmp_path / dataset / f"plain{seed}", dataset=dataset, seed=seed)
            write_record(
                tmp_path / dataset / f"hard{seed}",
                dataset=dataset,
                seed=seed,
                objective=HARD,
                metrics={"svm_accuracy": 0.9},
            )
    table = summarise(scores(read_records(find_records([tmp_path]))))
    for ending, separator in ((".md", "|"), (".tex", "&")):
        assert f"{separator} +10.0 [10.0, 10.0] p 1.000 {separator}" in reproduce.written(table, ending)
    reproduce.show_table(table)
    said = capsys.readouterr().out
    assert said.count("+10.0 [10.0, 10.0] p 1.000") == 2
    assert said.count("objective") == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    reproduce.show_table(table)
    assert capsys.readouterr().out.count("objective") == 1 + 2


def test_a_finished_cell_has_a_whole_record_of_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cell()
    assert not done.is_finished()
    write_record(done.folder)
    assert not done.is_finished()
    (done.folder / "config.json").write_text(json.dumps(done.settings() | {"lr": 0.1}))
    assert done.is_finished()
    assert not dataclasses.replace(done, epochs=3).is_finished()
    assert not dataclasses.replace(done, extra=(("hidden", 8),)).is_finished()
    (done.folder / "result.json").write_text('{"schema": 1, "mod')
    assert not done.is_finished()


@pytest.mark.parametrize(("given", "threads"), [(None, "2"), ("3", "3")])
def test_each_job_gets_its_share_of_the_cores(monkeypatch, tmp_path, given, threads):
    """Or as many threads as whoever starts them says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    seen = []

    class Process:
        returncode = 0

        def __init__(self, command, env, **options):
            seen.append(env["OMP_NUM_THREADS"])

        def poll(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert len(list(cells_module.run_here([Launch((cell(),)), Launch((cell(seed=1),))], jobs=4))) == 2
    assert seen == [threads, threads]


@pytest.mark.parametrize("given", ["x", "0", "-1", "1e9", "9" * 5000])
def test_a_number_of_threads_that_is_none(monkeypatch, given):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    with pytest.raises(InputError, match=f"OMP_NUM_THREADS is {given}; it must be a whole number"):
        cells_module.threads_of_a_process(2)


def test_places_of_a_cluster():
    resources = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert cells_module.places_of(resources, 1.0, 0.0) == 8
    assert cells_module.places_of(resources, 2.0, 0.5) == 4
    with pytest.raises(InputError, match="--gpus 4, but the Ray cluster has 8 CPUs and 2 GPUs"):
        cells_module.places_of(resources, 1.0, 4.0)


def test_a_small_plan_on_ray(recipe, capsys):
    pytest.importorskip("ray", reason="ray is not installed")
    reproduce.main([str(recipe), "--launcher", "ray", "--cpus", "1"])
    assert "hard, beta 1, tau_plus 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nothing"], "nothing is no table (demo, images, graphs, sentences, all), recipe ("),
        (["demo", "--jobs", "0"], "--jobs is 0"),
        (["demo", "--together", "0"], "--together is 0; it must be at least 1"),
        (["demo", "--cpus", "0"], "--cpus is 0"),
        (["demo", "--cpus", "nan"], "--cpus is nan"),
        (["demo", "--jobs", "1" + 30 * "0"], "it must be at most 1048576"),
        (["demo", "--seeds", "1000000000", "--dry-run"], "--seeds is 1000000000; it must be at most 1048576"),
        (
            ["demo", "--seeds", "1000000", "--dry-run"],
            "would have 3,000,000 runs; 100,000 at most",
        ),
        (["demo", "--betas", "1", "nan", "--dry-run"], "--betas has nan; each must be at least 0"),
        (["demo", "--betas", "-1", "--dry-run"], "--betas has -1.0; each must be at least 0"),
        (["x" * 3000], "is no table (demo, "),
        (["demo", "--output", "table.doc"], "its ending must be one of .md, .csv, .tex"),
        (["graphs", "--objectives", "simclr"], "leaves nothing of graphs to run"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_as_a_command():
    answer = subprocess.run(
        [sys.executable, "-m", "shared_eval.reproduce", "nothing"], capture_output=True, text=True, cwd=ROOT
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: nothing is no table")
