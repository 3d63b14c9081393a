"""Running, skipping, resuming and failing runs, with real processes."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.io.errors import InputError
from graph.config import defaults_for as graph_defaults
from image.config import defaults_for as image_defaults
from shared_eval import reproduce
from shared_eval.records import find_records, read_records
from shared_eval.reproduce import run
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.recipes import read_recipe
from shared_eval.reproduce.results import show_table, table_text
from shared_eval.reproduce.run import num_slots, run_here
from shared_eval.reproduce.spec import Job, RunSpec
from shared_eval.tables import scores, summarise
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, MOTIFS, ROOT, is_finished, run_spec, write_record


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


def test_table_is_made_from_nothing_and_not_run_again(recipe, monkeypatch, capsys):
    reproduce.main([str(recipe), "--jobs", "2", "--output", "table.md", "TABLE.CSV", "table.tex"])
    shown = capsys.readouterr()
    assert shown.err.count("done: ") == 1  # both betas in one process
    table = Path("table.md").read_text()
    for row in (
        "untrained encoder",
        "debiased, tau_plus 0.1",
        "hard, beta 1, tau_plus 0.1",
        "paper: hard, beta 1 | 98.7",
    ):
        assert f"| {row}" in table
    assert Path("TABLE.CSV").read_text().startswith("objective,kind,column")
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
    assert "left no record of these settings in runs/graph/motifs/debiased-tau0.1/seed-0" in error


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


def test_log_that_cannot_be_written_is_named(recipe, capsys):
    Path("file").write_text("")
    recipe.write_text('folder = "file/runs"\n' + MOTIFS)
    [line] = failure_of(reproduce.main, capsys, [str(recipe)])
    assert line.startswith("error: file/runs/logs/graph-motifs-")
    assert line.endswith("cannot be written: Not a directory; choose another path")


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
        assert f"{separator} +10.0 [10.0, 10.0] (p 0.500) {separator}" in table_text(table, suffix)
    show_table(table)
    said = capsys.readouterr().out
    assert said.count("+10.0 [10.0, 10.0] (p 0.500)") == 2
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
        (["demo", "--gpus", "-1"], "--gpus is -1.0; it must be at least 0"),
        (
            ["demo", "--cpus", "2", "--dry-run"],
            "--cpus is for --launcher ray; on this machine --jobs shares the cores",
        ),
        (["demo", "--gpus", "1", "--dry-run"], "--gpus is for --launcher ray"),
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
        (["demo", "--output", "folder.md"], "--output is folder.md, which is not a regular file"),
        (
            ["graphs", "--objectives", "simclr"],
            "--objectives has simclr; the table has infograph, debiased, hard",
        ),
        (
            ["graphs", "--objectives", "hard", "debiasd", "--dry-run"],
            "--objectives has debiasd; the table has infograph,",
        ),
        (["graphs", "--datasets", "nothing"], "--datasets has nothing; the table has MUTAG, PTC_MR"),
        (
            ["graphs", "--datasets", "MUTAG", "PROTEIN", "--dry-run"],
            "--datasets has PROTEIN; the table has MUTAG, PTC_MR",
        ),
    ],
)
def test_invalid_input_is_an_error_of_one_line(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.md").mkdir()
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
