"""Planning, running, skipping, resuming and failing runs, with real processes."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.io.errors import InputError
from core.training.cli import parse_config
from graph.config import GraphConfig
from graph.config import defaults_for as graph_defaults
from image.config import ImageConfig
from image.config import defaults_for as image_defaults
from sentence.config import SentenceConfig
from sentence.config import defaults_for as sentence_defaults
from shared_eval import reproduce
from shared_eval.records import find_records, read_records
from shared_eval.reproduce import run
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.plan import describe_estimate, estimate_seconds, longest_first
from shared_eval.reproduce.recipes import FOLDER, TABLES, all_recipes, load_recipes, read_recipe
from shared_eval.reproduce.results import show_table, table_text
from shared_eval.reproduce.run import num_slots, run_here
from shared_eval.reproduce.spec import Job, RunSpec, group_jobs
from shared_eval.tables import scores, summarise
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, write_record

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "image": (ImageConfig, image_defaults),
    "graph": (GraphConfig, graph_defaults),
    "sentence": (SentenceConfig, sentence_defaults),
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


def run_spec(**changes) -> RunSpec:
    hard = RunSpec("graph", "motifs", "hard", beta=1.0, tau_plus=0.1, seed=0, epochs=2, seeds_together=True)
    spec = dataclasses.replace(hard, **changes)
    folder = Path(spec.root) / spec.modality / spec.dataset / "hard-beta1-tau0.1" / f"seed-{spec.seed}"
    return dataclasses.replace(spec, folder=folder)


def is_finished(spec: RunSpec) -> bool:
    [located] = locate([spec])
    return located.finished


def parsed(job: Job):
    """The config that a job's command gives its trainer."""
    return parse_config(*CONFIGS[job.specs[0].modality], job.command()[3:], "test")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A small recipe; the working directory, where runs are written, is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "two.toml"
    path.write_text(MOTIFS)
    return path


def test_graphs_table_plans_every_run_once():
    [graphs] = load_recipes("graphs")
    specs = locate(graphs.specs(datasets=("MUTAG", "DD"), seeds=3))
    assert len(specs) == len(set(specs)) == 2 * 3 * (1 + 2 * 4)
    assert len({spec.folder for spec in specs}) == len(specs)
    assert {spec.tau_plus for spec in specs if dict(spec.options) == {"variant": "released"}} == {0.5}
    assert {spec.objective for spec in specs if spec.beta == 0} == {"infograph", "debiased"}
    narrowed = graphs.specs(datasets=("MUTAG",), objectives=("hard",), betas=(0.5,), seeds=1)
    assert [(spec.objective, spec.beta) for spec in narrowed] == [("hard", 0.5)] * 2


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_recipe_makes_commands_that_its_trainer_accepts(name):
    """Its folder is the trainer's default for these settings; published figures name rows of the table."""
    recipe = read_recipe(FOLDER / f"{name}.toml")
    assert recipe.source
    labels = set()
    for spec in locate(recipe.specs()):
        config = parsed(Job((spec,)))
        assert config.resume
        assert config.output_dir == spec.folder
        settings = config.as_dict()
        assert {name: settings[name] for name in spec.settings()} == spec.settings()
        assert spec.folder == dataclasses.replace(config, output_dir=None).folder(Path(recipe.folder))
        numbers = [
            f"{name} {value:g}" for name, value in (("beta", spec.beta), ("tau_plus", spec.tau_plus)) if value
        ]
        labels.add(", ".join([spec.objective, *numbers]))
    for entry in recipe.published:
        assert entry["label"] in labels
        assert entry["dataset"] in recipe.datasets
        assert 0 < entry["value"] < 1


def test_demo_has_every_modality_at_three_objectives():
    specs = [spec for recipe in load_recipes("demo") for spec in recipe.specs()]
    assert {spec.modality for spec in specs} == {"image", "graph", "sentence"}
    points = {(spec.modality, spec.beta, spec.tau_plus) for spec in specs}
    assert len(points) == len(specs) == 9
    assert set(TABLES["all"]) < {path.stem for path in FOLDER.glob("*.toml")}


@pytest.mark.parametrize(
    ("modality", "options", "flags", "slug"),
    [
        ("graph", {"stop_gradient": True}, "--stop-gradient", "-stopgradient"),
        ("graph", {"stop_gradient": False}, "--no-stop-gradient", ""),
        ("graph", {"variant": "released"}, "--variant released", "-released"),
        ("image", {"positives": "label"}, "--positives label", "-truepositives"),
        ("image", {"anneal_beta": "down"}, "--anneal-beta down", "-annealed"),
        ("sentence", {"denominator": "all", "window": 2}, "--denominator all --window 2", "-all-window2"),
        ("sentence", {"normalize": True}, "--normalize", "-normalized"),
        ("sentence", {"encoder": "gru", "bidirectional": False}, "--encoder gru --no-bidirectional", "-gru"),
        ("sentence", {"encoder": "bow", "bidirectional": True}, "--encoder bow --bidirectional", ""),
        (
            "sentence",
            {"encoder": "transformer", "model": "a/b c"},
            "--encoder transformer --model 'a/b c'",
            "-b c-normalized",
        ),
    ],
)
def test_options_become_flags_and_the_folder_is_the_trainer_s(modality, options, flags, slug):
    """Any setting with any value, also a boolean one: what the command trains is what the recipe says."""
    dataset = {"graph": "motifs", "image": "shapes", "sentence": "pydoc"}[modality]
    spec = RunSpec(modality, dataset, "hard", 1.0, 0.1, 0, 2, options=tuple(options.items()), root="here")
    [spec] = locate([spec])
    assert spec.folder == Path("here") / modality / dataset / f"hard-beta1-tau0.1{slug}" / "seed-0"
    command = str(Job((spec,)))
    assert f"--epochs 2 {flags} --output-dir " in command
    config = parsed(Job((spec,)))
    assert {name: getattr(config, name) for name in options} == options
    assert config.output_dir == spec.folder


def test_options_of_a_recipe_reach_the_trainer(recipe):
    recipe.write_text(MOTIFS + 'variant = "released"\nstop_gradient = true\n')
    for spec in locate(read_recipe(recipe).specs()):
        config = parsed(Job((spec,)))
        assert (config.variant, config.stop_gradient, config.hidden) == ("released", True, 8)
        assert spec.folder.parent.name.endswith("-stopgradient")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hiden = 16", "--hiden is not a setting of graph training; did you mean hidden?"),
        ('hidden = "16"', '--hidden is "16"; it must be int'),
        ("hidden = 0", "--hidden is 0; it must be at least 1"),
        ("stop_gradient = 1", "--stop-gradient is 1; it must be bool"),
        ("temperature = 0.5", "--temperature is 0.5, but the graph objective"),
    ],
)
def test_setting_that_a_trainer_refuses_is_an_error_before_any_run(
    recipe, monkeypatch, capsys, line, message
):
    recipe.write_text(MOTIFS.replace("hidden = 8", line))
    monkeypatch.setattr(run, "run_job", lambda *arguments: pytest.fail("ran"))
    [error] = failure_of(reproduce.main, capsys, [str(recipe)])
    assert error.startswith(f"error: motifs, debiased, beta 0: {message}")


def test_two_runs_that_share_a_folder_are_refused(recipe, tmp_path):
    """One run that is written in two ways is run once."""
    [first, _] = read_recipe(recipe).specs()
    again = dataclasses.replace(first, options=(("stop_gradient", False),))
    assert len(locate([first, again])) == 1
    other = dataclasses.replace(first, extra=(("hidden", 16),))
    with pytest.raises(InputError, match="differ in hidden and share the folder runs/graph/motifs/debiased"):
        locate([first, other])


def test_package_that_is_shadowed_is_named(recipe, tmp_path, capsys):
    """A modality's package is imported by a process of its own, from the working directory."""
    (tmp_path / "graph.py").write_text("")
    answer = subprocess.run(
        [sys.executable, "-m", "shared_eval.reproduce", str(recipe)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: {tmp_path / 'graph.py'} has the name of this project's package")


@pytest.mark.parametrize(
    "change",
    [
        ("title", "titel"),
        ("epochs = 2", ""),
        ("epochs = 2", 'epochs = "two"\nunknown = 1'),
        ("betas = [0.0, 1.0]", 'betas = ["a"]'),
        ("[[objectives]]", "[[objective]]"),
        ("tau_plus = 0.1", "window = [1, 2]"),
        ("tau_plus = 0.1", "seed = 3"),
        ("hidden = 8", 'output_dir = "mine"'),
        ("epochs = 2", 'epochs = 2\nseeds_together = "yes"'),
        ("value = 0.987", "values = 0.987"),
        ("modality", "modality ="),
    ],
)
def test_damaged_recipe_is_refused_by_name(recipe, change):
    recipe.write_text(MOTIFS.replace(*change))
    with pytest.raises(InputError, match=r"two\.toml is not a recipe"):
        read_recipe(recipe)


def test_table_is_made_from_nothing_and_not_run_again(recipe, monkeypatch, capsys):
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

    monkeypatch.setattr(run, "run_job", lambda *arguments: pytest.fail("ran again"))
    reproduce.main([str(recipe)])
    assert "98.7" in capsys.readouterr().out


def test_recipe_with_a_boolean_setting_runs(recipe, capsys):
    recipe.write_text(MOTIFS.replace("betas = [0.0, 1.0]", "stop_gradient = true\nbetas = [1.0]"))
    reproduce.main([str(recipe)])
    assert "hard, beta 1, tau_plus 0.1, weights constant" in capsys.readouterr().out
    folder = Path("runs/graph/motifs/hard-beta1-tau0.1-stopgradient/seed-0")
    assert json.loads((folder / "config.json").read_text())["stop_gradient"]


def test_run_without_a_record_of_its_settings_has_failed(recipe, monkeypatch, capsys):
    """Even with exit code 0: a table that lacks a row is never reported as complete."""
    monkeypatch.setattr(Job, "command", lambda job: [sys.executable, "-c", ""])
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(recipe)])
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert "2 of 2 runs failed" in error
    assert "left no record of these settings in runs/graph/motifs/hard-beta1-tau0.1/seed-0" in error


def test_finished_run_of_other_settings_is_not_the_table_s(recipe, monkeypatch, capsys):
    """What the recipe does not name has its default: a run by hand with another --lr does not count.

    It stops neither the other runs nor the other seeds of its job.
    """
    started = []
    monkeypatch.setattr(Job, "command", lambda job: started.append(job) or [sys.executable, "-c", ""])
    hard = [spec for spec in locate(read_recipe(recipe).specs(seeds=2)) if spec.beta]
    write_record(hard[0].folder)
    settings = graph_defaults().as_dict() | {"modality": "graph"} | hard[0].settings() | {"lr": 0.5}
    (hard[0].folder / "config.json").write_text(json.dumps(settings))
    flags = [str(recipe), "--objectives", "hard", "--seeds", "2"]
    reproduce.main([*flags, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["other", "to", "1"]
    started.clear()
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(flags)
    assert exit_.value.code == 1
    output = capsys.readouterr()
    assert "2 of 2 runs failed" in output.err  # the other one because its command is nothing here
    assert (
        f"\n{hard[0].folder} holds a run of other settings (lr 0.5 there, 0.001 now); move it" in output.err
    )
    assert {job.specs for job in started} == {(hard[1],)}
    assert "hard" not in output.out
    assert json.loads((hard[0].folder / "config.json").read_text()) == settings


def test_exit_code_0_without_the_run_is_a_failure(recipe, monkeypatch, capsys):
    """Also where the folder has a record, whose settings are not known."""
    monkeypatch.setattr(Job, "command", lambda job: [sys.executable, "-c", ""])
    for spec in locate(read_recipe(recipe).specs()):
        write_record(spec.folder)
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(recipe)])
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert "2 of 2 runs failed" in error
    assert error.count("left no record of these settings in runs/graph/motifs/") == 2


def test_table_without_rows_is_an_error(recipe, capsys):
    for spec in locate(read_recipe(recipe).specs()):
        write_record(spec.folder, metrics={"negative_similarity": 0.5})
        settings = graph_defaults().as_dict() | {"modality": "graph"} | spec.settings()
        (spec.folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(recipe)])
    assert exit_.value.code == 1
    assert "the table has no rows: none of 2 records has a score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modality", "key", "together"),
    [
        ("graph", "", True),
        ("image", "", False),
        ("image", "seeds_together = true", True),
        ("graph", "seeds_together = false", False),
    ],
)
def test_recipe_says_whether_seeds_are_trained_together(recipe, modality, key, together):
    dataset = {"graph": "motifs", "image": "shapes"}[modality]
    text = MOTIFS.replace('modality = "graph"', f'modality = "{modality}"\n{key}').replace("hidden", "warmup")
    recipe.write_text(text.replace("warmup = 8", "") if modality == "graph" else text)
    specs = [
        dataclasses.replace(spec, dataset=dataset) for spec in read_recipe(recipe).specs((), (), (1.0,), 3)
    ]
    specs = locate(specs)
    assert [len(job.specs) for job in group_jobs(specs, 5)] == ([3] if together else [1, 1, 1])


def test_seeds_that_can_be_trained_together_share_a_job():
    graphs = [run_spec(beta=beta, seed=seed) for beta in (1.0, 2.0) for seed in range(3)]
    images = [
        run_spec(modality="image", dataset="shapes", seed=seed, seeds_together=False) for seed in range(2)
    ]
    planned = [[(spec.beta, spec.seed) for spec in job.specs] for job in group_jobs([*graphs, *images], 2)]
    assert planned == [
        *([(beta, 0), (beta, 1)] if first else [(beta, 2)] for beta in (1.0, 2.0) for first in (True, False)),
        [(1.0, 0)],
        [(1.0, 1)],
    ]


@pytest.mark.parametrize("root", ["runs", "elsewhere"])
def test_job_of_several_seeds_trains_each_in_its_own_folder(root):
    options = (("stop_gradient", True),)
    specs = tuple(locate([run_spec(seed=seed, root=root, options=options) for seed in (0, 4)]))
    command = Job(specs).command()
    assert command[-3:-1] == ["--output-dir", str(specs[0].folder).replace("seed-0", "seed-{seed}")]
    assert [config.output_dir for config in parsed(Job(specs)).expand()] == [spec.folder for spec in specs]


def test_failed_run_does_not_stop_the_others(recipe, capsys):
    recipe.write_text(MOTIFS.replace('["motifs"]', '["nowhere", "motifs"]'))
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(recipe), "--betas", "1"])
    assert exit_.value.code == 1
    output = capsys.readouterr()
    assert "1 of 2 runs failed" in output.err
    assert "--dataset is 'nowhere', which is unknown" in output.err
    assert "runs/logs/graph-nowhere-hard-beta1-tau0.1-seed-0.log" in output.err
    assert "untrained encoder" in output.out


@pytest.mark.faults
def test_killed_run_is_resumed(recipe):
    """Killed after its first epoch: only the second is trained, and the record is complete."""
    [*_, hard] = locate(read_recipe(recipe).specs())
    code = (
        "import core.training.loop, os, sys\n"
        "take = core.training.loop.optimizer_step\n"
        "taken = []\n"
        "def step(*a):\n"
        "    taken.append(1)\n"
        "    return os._exit(9) if len(taken) == 4 else take(*a)\n"
        "core.training.loop.optimizer_step = step\n"
        "import graph.train; graph.train.main(sys.argv[1:])\n"
    )
    flags = [*Job((hard,)).command()[3:], "--checkpoint-seconds", "0"]
    killed = subprocess.run([sys.executable, "-c", code, *flags])
    assert killed.returncode == 9
    assert not is_finished(hard)
    assert (hard.folder / "checkpoint" / "state-a.pt").exists()
    reproduce.main([str(recipe), "--objectives", "hard"])
    assert is_finished(hard)
    lines = [json.loads(line) for line in (hard.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent ends")
def test_run_saves_and_ends_when_reproduce_is_killed(recipe):
    """After kill -9 of the command its run saves and exits; the same command resumes it."""
    recipe.write_text(MOTIFS.replace("epochs = 2", "epochs = 30"))
    flags = [str(recipe), "--objectives", "hard"]
    [*_, hard] = locate(read_recipe(recipe).specs())
    first = subprocess.Popen([sys.executable, "-m", "shared_eval.reproduce", *flags])
    metrics, end = hard.folder / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reproduce.main(flags)
    assert is_finished(hard)
    assert "interrupted by SIGTERM in epoch" in Job((hard,)).log.read_text()
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == list(range(31))


def test_dry_run_runs_nothing_and_estimates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["graphs", "--datasets", "MUTAG", "--seeds", "2", "--betas", "0", "1", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 2 * 2) + 1
    assert all(line.startswith("to run") for line in lines[:-1])
    assert lines[-1] == "10 of 10 to run: about 25 s with 1 process x 1 thread"  # by the recipe
    assert not list(tmp_path.iterdir())
    record = {"train_seconds": 100.0, "eval_seconds": 10.0, "epochs": 100, "objective": HARD}
    write_record(Path("runs/graph/MUTAG/x/seed-0"), **record)
    # An epoch takes a second, an evaluation ten; a run has 200 epochs and two evaluations.
    recorded = run_spec(dataset="MUTAG", epochs=200, seconds=3.0)
    assert estimate_seconds([recorded]) == {recorded: pytest.approx(220)}
    for spec in (run_spec(), run_spec(dataset="MUTAG", root="runs/small")):
        assert estimate_seconds([spec]) == {spec: None}
        measured = dataclasses.replace(spec, seconds=3.0)
        assert estimate_seconds([measured]) == {measured: 3.0}
    specs = [run_spec(dataset="MUTAG", epochs=200, seed=seed) for seed in range(12)]
    assert describe_estimate(specs, 2) == "about 22 min"
    unknown = "1 have no earlier record and no measured cost to estimate from"
    assert describe_estimate([run_spec()], 2) == unknown
    assert describe_estimate([*specs, run_spec()], 2) == f"about 22 min; {unknown}"
    assert describe_estimate([*specs, run_spec()], 2, " with care") == f"about 22 min with care; {unknown}"
    assert describe_estimate([], 2) == "nothing"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 days")],
)
def test_estimate_has_a_readable_unit(seconds, text):
    assert describe_estimate([run_spec(seconds=seconds)], 1) == f"about {text}"


def test_demo_and_graphs_can_be_estimated():
    """Every run of the tables that were measured has a cost; those of images and BookCorpus take GPUs."""
    for table in ("demo", "graphs", "books-small", "cifar10-small"):
        for recipe in load_recipes(table):
            assert set(recipe.seconds) == set(recipe.datasets)


def test_longest_job_starts_first(tmp_path, monkeypatch):
    """A job's runs count together; one without an estimate may be the longest."""
    monkeypatch.chdir(tmp_path)
    costs = {"a": 1.0, "b": 9.0, "c": None}
    short, long, unknown = (run_spec(dataset=name, seconds=cost) for name, cost in costs.items())
    several = tuple(run_spec(dataset="d", seed=seed, seconds=4.0) for seed in range(3))
    jobs = [Job((short,)), Job((long,)), Job((unknown,)), Job(several)]
    assert [job.specs[0].dataset for job in longest_first(jobs)] == ["c", "d", "b", "a"]


def test_measured_cost_is_of_the_recipe_datasets_and_positive(tmp_path):
    for recipe in all_recipes():
        assert set(recipe.seconds) <= set(recipe.datasets)
    path = tmp_path / "cost.toml"
    path.write_text(MOTIFS + "\n[seconds]\nmotifs = 2.5\n")
    assert {spec.seconds for spec in read_recipe(path).specs()} == {2.5}
    path.write_text(MOTIFS + "\n[seconds]\nmotifs = -1\n")
    with pytest.raises(InputError, match="seconds motifs is -1; it must be above 0"):
        read_recipe(path)


def test_each_of_several_recipes_takes_its_own_datasets(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.main(["all", "--datasets", "MUTAG", "cifar10", "--seeds", "1", "--dry-run"])
    planned = capsys.readouterr().out
    assert planned.count("graph.train --dataset MUTAG ") == 9
    assert planned.count("image.train --dataset cifar10 ") == 5
    assert planned.count("to run") == 14 + 1


def test_differences_are_printed_and_written(tmp_path, monkeypatch, capsys):
    """In every format, if there are several seeds; a table too wide for the terminal is split by dataset."""
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
    for suffix, separator in ((".md", "|"), (".tex", "&")):
        assert f"{separator} +10.0 [10.0, 10.0] p 1.000 {separator}" in table_text(table, suffix)
    show_table(table)
    said = capsys.readouterr().out
    assert said.count("+10.0 [10.0, 10.0] p 1.000") == 2
    assert said.count("objective") == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    show_table(table)
    assert capsys.readouterr().out.count("objective") == 1 + 2


def test_finished_run_has_a_valid_record_of_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_spec()
    assert not is_finished(done)
    write_record(done.folder)
    assert not is_finished(done)
    settings = graph_defaults().as_dict() | {"modality": "graph"} | done.settings()
    for changes, finished in (
        ({}, True),
        ({"data_root": "elsewhere", "device": "cuda"}, True),  # where it was run, not what
        ({"lr": 0.1}, False),
        ({"hidden": 8}, False),
    ):
        (done.folder / "config.json").write_text(json.dumps(settings | changes))
        assert is_finished(done) == finished
    (done.folder / "config.json").write_text(json.dumps(settings))
    assert not is_finished(dataclasses.replace(done, epochs=3))
    assert not is_finished(dataclasses.replace(done, extra=(("hidden", 8),)))
    (done.folder / "result.json").write_text('{"schema": 1, "mod')
    assert not is_finished(done)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_run_has_the_precision_of_its_device(tmp_path, monkeypatch, precision):
    """``auto`` is what the device brings: a run of a GPU counts also where there is none."""
    monkeypatch.chdir(tmp_path)
    [spec] = locate([RunSpec("image", "shapes", "hard", 1.0, 0.1, 0, 20)])
    write_record(spec.folder, modality="image")
    settings = image_defaults("shapes").as_dict() | spec.settings() | {"precision": precision}
    (spec.folder / "config.json").write_text(json.dumps({"modality": "image"} | settings))
    assert is_finished(spec)
    float32 = dataclasses.replace(spec, extra=(("precision", "float32"),))
    assert is_finished(float32) == (precision == "float32")


@pytest.mark.parametrize(
    ("given", "wanted", "shares"),
    [
        (None, 1, (1, 8)),
        (None, 3, (3, 2)),
        (None, 100, (8, 1)),
        ("3", 4, (2, 3)),
        ("1", 4, (4, 1)),
        ("9", 4, (1, 9)),
    ],
)
def test_processes_and_threads_fit_the_available_cores(monkeypatch, given, wanted, shares):
    """Unless OMP_NUM_THREADS is above them."""
    monkeypatch.setattr(run, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert run.share_cores(wanted) == shares


@pytest.mark.parametrize(("given", "threads"), [(None, "2"), ("3", "3")])
def test_process_gets_its_share_of_the_cores(monkeypatch, tmp_path, given, threads):
    """Or as many threads as OMP_NUM_THREADS says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "available_cores", lambda: 8)
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
    assert len(list(run_here([Job((run_spec(seed=seed),)) for seed in range(2)], num_processes=4))) == 2
    assert seen == [threads, threads]


@pytest.mark.parametrize("given", ["x", "0", "-1", "1e9", "9" * 5000])
def test_invalid_number_of_threads_is_refused(monkeypatch, given):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    with pytest.raises(InputError, match=f"OMP_NUM_THREADS is {given}; it must be a whole number"):
        run.share_cores(2)


def test_slots_of_a_cluster():
    resources = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert num_slots(resources, 1.0, 0.0) == 8
    assert num_slots(resources, 2.0, 0.5) == 4
    with pytest.raises(InputError, match="`gpus` 4, but the Ray cluster has 8 CPUs and 2 GPUs"):
        num_slots(resources, 1.0, 4.0)


@pytest.mark.slow
def test_small_table_on_ray(recipe, capsys):
    pytest.importorskip("ray", reason="ray is not installed")
    reproduce.main([str(recipe), "--launcher", "ray", "--cpus", "1"])
    assert "hard, beta 1, tau_plus 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nothing"], "nothing is not a table (demo, images, graphs, sentences, all), recipe ("),
        (["demo", "--jobs", "0"], "--jobs is 0"),
        (["demo", "--together", "0"], "--together is 0; it must be at least 1"),
        (["demo", "--cpus", "0"], "--cpus is 0"),
        (["demo", "--cpus", "nan"], "--cpus is nan"),
        (["demo", "--jobs", "1" + 30 * "0"], "it must be at most 2147483647"),
        (
            ["demo", "--seeds", "10000000000", "--dry-run"],
            "--seeds is 10000000000; it must be at most",
        ),
        (
            ["demo", "--seeds", "1000000", "--dry-run"],
            "would have 3,000,000 runs; a table has at most 100,000",
        ),
        (["demo", "--betas", "1", "nan", "--dry-run"], "--betas has nan; each must be at least 0"),
        (["demo", "--betas", "-1", "--dry-run"], "--betas has -1.0; each must be at least 0"),
        (["x" * 3000], "is not a table (demo, "),
        (["demo", "--output", "table.doc"], "its suffix must be one of .md, .csv, .tex"),
        (["graphs", "--objectives", "simclr"], "no run of TUDatasets is left with --objectives simclr"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        reproduce.main(flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_module_runs_as_a_command():
    answer = subprocess.run(
        [sys.executable, "-m", "shared_eval.reproduce", "nothing"], capture_output=True, text=True, cwd=ROOT
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: nothing is not a table")
