"""Recipes: what they may say, the runs and jobs that they plan, and how long those may take."""

import dataclasses
import json
from pathlib import Path

import pytest

from core.io.errors import InputError
from sentence.config import SENTEVAL_TASKS
from shared_eval import reproduce
from shared_eval.reproduce import run
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.plan import (
    describe_estimate,
    describe_power,
    estimate_seconds,
    longest_first,
    select_objectives,
)
from shared_eval.reproduce.recipes import (
    FOLDER,
    TABLES,
    all_recipes,
    load_recipes,
    primary_comparisons,
    read_recipe,
)
from shared_eval.reproduce.spec import Job, RunSpec, group_jobs
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, MOTIFS, PRIMARY, parsed, run_spec, write_record

FIGURE = MOTIFS[MOTIFS.index("[[published]]") : MOTIFS.index("[settings]")]


def test_graphs_table_plans_every_run_once():
    [graphs, large] = load_recipes("graphs")
    assert not set(graphs.datasets) & set(large.datasets)
    specs = locate(graphs.specs(datasets=("MUTAG", "ENZYMES"), seeds=3))
    assert len(specs) == len(set(specs)) == 2 * 3 * (1 + 2 * 4)
    assert len({spec.folder for spec in specs}) == len(specs)
    assert {spec.tau_plus for spec in specs if dict(spec.options) == {"variant": "released"}} == {0.5}
    assert {spec.objective for spec in specs if spec.beta == 0} == {"infograph", "debiased"}
    narrowed = locate(graphs.specs(datasets=("MUTAG",), betas=(0.5,), seeds=1))
    narrowed = select_objectives(narrowed, ("hard",))
    assert [(spec.objective, spec.beta) for spec in narrowed] == [("hard", 0.5)] * 2


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_recipe_makes_commands_that_its_trainer_accepts(name):
    """Its folder is the trainer's default for these settings; published figures name rows of the table."""
    recipe = read_recipe(FOLDER / f"{name}.toml")
    assert recipe.source
    labels = set()
    for spec in locate(recipe.specs(seeds=1)):
        config = parsed(Job((spec,)))
        assert config.resume
        assert config.output_dir == spec.folder
        settings = config.as_dict()
        asked = json.loads(json.dumps(spec.settings()))  # as the modality is asked
        assert {name: settings[name] for name in asked} == asked
        assert spec.folder == dataclasses.replace(config, output_dir=None).folder(Path(spec.root))
        numbers = [
            f"{name} {value:g}" for name, value in (("beta", spec.beta), ("tau_plus", spec.tau_plus)) if value
        ]
        labels.add(", ".join([spec.objective, *numbers]))
    for figure in recipe.published:
        others = ("graphmae", "bcl", "alpha-cl", "sbert", "debiased")
        is_of_another_method = ", on " in figure.label or figure.label in others
        assert is_of_another_method or figure.label in labels


def test_recipes_that_share_a_folder_agree_on_its_runs():
    """``locate`` refuses two runs of one folder that differ in a setting."""
    located = locate([spec for recipe in all_recipes() for spec in recipe.specs(seeds=1)])
    names = {spec.folder.parent.name for spec in located if spec.dataset == "books" and spec.beta == 1}
    suffixes = ("", "-bow", "-normalized", "-all-MiniLM-L6-v2-normalized")
    assert names == {f"hard-beta1-tau0.1{suffix}" for suffix in suffixes}


def test_map_has_every_beta_and_tau_plus_of_both_variants_in_few_processes():
    """InfoGraph, beta 0 and tau_plus 0, is one objective in both."""
    [recipe] = load_recipes("graphs-map")
    specs = locate(recipe.specs(datasets=("MUTAG",), seeds=2))
    points = {(dict(spec.options).get("variant"), spec.beta, spec.tau_plus) for spec in specs}
    assert len(points) == 2 * 8 * 6 - 1
    assert {spec.objective for spec in specs if not spec.beta} == {"infograph", "debiased"}
    jobs = group_jobs(specs, 10)
    assert len(jobs) == 2 * 6
    for job in jobs:
        runs = parsed(job).expand()
        assert {run.output_dir for run in runs} == {spec.folder for spec in job.specs}
        assert len(runs) == len(job.specs)


def test_betas_share_a_job_where_they_lack_the_same_seeds():
    specs = [run_spec(beta=beta, seed=seed) for beta, seed in ((1.0, 0), (1.0, 1), (2.0, 1), (4.0, 1))]
    planned = [[(spec.beta, spec.seed) for spec in job.specs] for job in group_jobs(specs, 5)]
    assert planned == [[(1.0, 0), (1.0, 1)], [(2.0, 1), (4.0, 1)]]


def test_each_length_of_training_has_a_folder(recipe):
    text = MOTIFS.replace("epochs = 2", 'epochs = [2, 3]\nfolder = "runs/{epochs}"')
    recipe.write_text(text)
    specs = locate(read_recipe(recipe).specs())
    assert [(spec.epochs, spec.root) for spec in specs] == [(2, "runs/2")] * 2 + [(3, "runs/3")] * 2
    recipe.write_text(text.replace("runs/{epochs}", "runs"))
    with pytest.raises(InputError, match="differ in epochs and share the folder"):
        locate(read_recipe(recipe).specs())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("value = 0.987", "value = 98.7"), "published value is 98.7; it must be a fraction, as 0.874 for"),
        (("value = 0.987", ""), "published has no value"),
        (
            ("value = 0.987", "value = 0.987\ndeviation = 1.1"),
            "published deviation is 1.1; it must be a fraction",
        ),
        (
            ("[settings]", FIGURE + "[settings]"),
            "published has 2 scores of paper: hard, beta 1 in motifs svm_accuracy",
        ),
        (("value = 0.987", 'value = "0.987"'), 'value is "0.987"; it must be float'),
        (("value = 0.987", "vallue = 0.987"), "published has vallue, which is unknown; did you mean value?"),
        (
            ('dataset = "motifs"', 'dataset = "motif"'),
            "published dataset is motif, which the recipe does not have; did you mean motifs?",
        ),
        (("betas = [0.0, 1.0]", "betas = []"), "betas of an entry of objectives is empty"),
        (("betas = [0.0, 1.0]", "betas = [1.0]" + PRIMARY), "primary is against beta 0, which no entry of"),
        (("[settings]", PRIMARY.replace("1.0", "2.0") + "[settings]"), "primary has beta 2 and tau_plus 0.1"),
        (
            ("tau_plus = 0.1\nbetas = [0.0, 1.0]", "betas = [0.0, 1.0]" + PRIMARY.replace("0.1", "0.0")),
            "primary is against beta 0, which is plain where tau_plus is 0; leave it out",
        ),
        (("[settings]", PRIMARY.replace("untrained", "simple") + "[settings]"), "against is"),
        (
            ("betas = [0.0, 1.0]", "betas = [0.0, 1.0]\nfolder = 'runs'"),
            "objectives has folder, a key of the recipe; write it above the first line that begins with [",
        ),
        (("[settings]", "[settings]\npublished = []"), "settings has published, a key of the recipe"),
    ],
)
def test_bad_figure_or_comparison_is_one_clear_line(recipe, change, said):
    recipe.write_text(MOTIFS.replace(*change))
    with pytest.raises(InputError) as raised:
        read_recipe(recipe)
    assert f"two.toml is not a recipe: {said}" in str(raised.value)


def test_primary_comparisons_of_a_recipe(recipe):
    recipe.write_text(MOTIFS.replace("[settings]", PRIMARY + "[settings]"))
    planned = read_recipe(recipe).primary_comparisons()
    assert planned == {
        ("motifs svm_accuracy", 2, "", 0.1, 1.0, baseline): ("two epochs", 2)
        for baseline in ("beta 0", "untrained")
    }


def test_comparison_of_several_recipes_is_corrected_for_the_largest_plan(recipe):
    recipe.write_text(MOTIFS.replace("[settings]", PRIMARY + "[settings]"))
    small = read_recipe(recipe)
    large = dataclasses.replace(small, title="large", datasets=("motifs", "MUTAG"))
    for recipes in ([small, large], [large, small]):
        assert {plan.size for plan in primary_comparisons(recipes).values()} == {4}


@pytest.mark.parametrize(("seeds", "said"), [(5, "below 0.12"), (6, "below 0.062"), (7, None)])
def test_seeds_that_are_too_few_for_the_planned_comparisons_are_named(recipe, seeds, said):
    """Two comparisons: the smallest p of six seeds is 2/2^6, and twice that after correction."""
    recipe.write_text(MOTIFS.replace("[settings]", PRIMARY + "[settings]"))
    lines = describe_power([read_recipe(recipe)], seeds)
    start = f"two epochs: {seeds} seeds are too few for its 2 primary comparisons: after correction no p"
    assert lines == ([f"{start} can be {said}"] if said else [])


def metrics_of(recipe):
    """The names of the scores that a recipe's runs have."""
    if recipe.modality == "image":
        return {"knn_accuracy", "linear_accuracy"}
    if recipe.modality == "graph":
        return {"svm_accuracy"}
    endings = dict.fromkeys(SENTEVAL_TASKS, "accuracy") | {"stsb": "spearman"}
    endings |= {f"sts{year}": "all_spearman" for year in range(12, 17)}
    tasks = recipe.settings.get("tasks", SENTEVAL_TASKS)
    return {"transfer_accuracy", *(f"{task}_{endings[task]}" for task in tasks)}


@pytest.mark.parametrize("named", all_recipes(), ids=lambda recipe: recipe.title)
def test_published_figures_and_comparisons_are_of_scores_that_the_runs_have(named):
    metrics = {figure.metric for figure in named.published}
    if named.primary is not None:
        metrics.add(named.primary.metric)
    assert metrics <= metrics_of(named)


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


def test_setting_of_a_recipe_may_be_a_list(recipe):
    """Such as tasks; a list of anything but words is refused."""
    text = MOTIFS.replace('"graph"', '"sentence"').replace('"motifs"', '"pydoc"')
    text = text.replace("svm_accuracy", "topic_accuracy")
    recipe.write_text(text.replace("hidden = 8", 'tasks = ["mr", "stsb"]'))
    for spec in locate(read_recipe(recipe).specs()):
        assert " --tasks mr stsb " in str(spec)
        assert parsed(Job((spec,))).tasks == ("mr", "stsb")
    recipe.write_text(text.replace("hidden = 8", "tasks = [1, 2]"))
    with pytest.raises(InputError, match="is not a recipe"):
        read_recipe(recipe)


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
    assert error.startswith(f"error: motifs, hard, beta 0: {message}")


def test_two_runs_that_share_a_folder_are_refused(recipe, tmp_path):
    """One run that is written in two ways is run once."""
    [first, _] = read_recipe(recipe).specs()
    again = dataclasses.replace(first, options=(("stop_gradient", False),))
    assert len(locate([first, again])) == 1
    other = dataclasses.replace(first, extra=(("hidden", 16),))
    with pytest.raises(InputError, match="differ in hidden and share the folder runs/graph/motifs/debiased"):
        locate([first, other])


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
    text = MOTIFS.replace('modality = "graph"', f'modality = "{modality}"\n{key}').replace("hidden", "width")
    recipe.write_text(text.replace("width = 8", "") if modality == "graph" else text)
    specs = [dataclasses.replace(spec, dataset=dataset) for spec in read_recipe(recipe).specs((), (1.0,), 3)]
    specs = locate(specs)
    assert [len(job.specs) for job in group_jobs(specs, 5)] == ([3] if together else [1, 1, 1])


def test_seeds_that_can_be_trained_together_share_a_job():
    graphs = [run_spec(beta=beta, seed=seed) for beta in (1.0, 2.0) for seed in range(3)]
    images = [
        run_spec(modality="image", dataset="shapes", seed=seed, seeds_together=False) for seed in range(2)
    ]
    planned = [[(spec.beta, spec.seed) for spec in job.specs] for job in group_jobs([*graphs, *images], 2)]
    assert planned == [
        [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)],
        [(1.0, 2), (2.0, 2)],
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


def test_dry_run_runs_nothing_and_estimates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reproduce.main(["graphs", "--datasets", "MUTAG", "--seeds", "2", "--betas", "0", "1", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 2 * 2) + 2
    assert all(line.startswith("to run") for line in lines[:-2])
    assert lines[-2].startswith("TUDatasets: 2 seeds are too few for its 18 primary comparisons")
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
    books = ("books-small", "books-bow", "books-normalized", "books-transformer")
    for table in ("demo", "graphs", "images-small", *books):
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
