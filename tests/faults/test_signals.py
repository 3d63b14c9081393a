"""SIGTERM and Ctrl-C: the step is finished, a checkpoint saved, and one line says how to go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from core.training import divergence
from core.training.checkpoints import Checkpoints
from shared_eval.reproduce.recipes import read_recipe
from shared_eval.reproduce.spec import Job
from tests.faults.tiny import Tiny, check_is_as

LONG = ("--epochs", "500")


def wait_for(condition, seconds=60.0):
    """Wait until ``condition`` holds; fail where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def has_trained(folder):
    """Whether the run has begun its third epoch."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") > 2


def has_begun(folder):
    return (folder / "checkpoint").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_training(tiny, tmp_path, signum, code):
    folder = tmp_path / "run"
    seldom = ("--checkpoint-seconds", "1000")  # the checkpoint found is the signal's
    trainer = tiny.start(folder, *LONG, *seldom)
    wait_for(lambda: has_trained(folder))
    trainer.signal(signum)
    assert trainer.wait(60) == code
    last = trainer.said().splitlines()[-1]
    name = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
    assert last.startswith(f"interrupted by {name} in epoch ")
    assert last.endswith("go on with the same command and --resume")
    assert "Traceback" not in trainer.said()
    place = Checkpoints(folder / "checkpoint").load()["place"]
    assert f"in epoch {place['epoch']} of 500, after step {len(place['measures'])} of " in last


def test_what_a_signal_leaves_ends_as_an_uninterrupted_run(tiny, whole_runs, tmp_path):
    whole, folder = whole_runs(tiny.modality), tmp_path / "run"
    trainer = tiny.start(folder, "--checkpoint-seconds", "1000")
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    trainer.signal(signal.SIGTERM)
    if trainer.wait(60) == 143:
        assert tiny.run(folder, "--resume").wait() == 0
    check_is_as(whole, tiny, folder)


@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_signal_while_embeddings_are_constant(tiny_graph, tmp_path, monkeypatch, capsys, steps_before):
    """They are not saved, and the message says what is kept instead."""
    taken, measure = [], divergence.measure

    def constant_later(*arguments):
        taken.append(1)
        if len(taken) > steps_before:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments) * torch.tensor([1.0, 1.0, float(len(taken) <= steps_before)])

    monkeypatch.setattr(divergence, "measure", constant_later)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.here(tmp_path / "run")
    assert exit_.value.code == 143
    what = "the checkpoint before is" if steps_before else "nothing is"
    assert f"; the embeddings are constant, and {what} kept: go on with" in capsys.readouterr().err
    saved = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert len(saved["place"]["measures"] if saved else []) == steps_before


def test_a_second_signal_leaves_at_once(tmp_path):
    """Even in the middle of a step that never ends; the same signal twice within a second counts once."""
    code = (
        "import signal, os, time\n"
        "from core import interruption\n"
        "with signals.handled(), signals.deferred():\n"
        "    print('begun', flush=True)\n"
        "    while True: time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_a_signal_in_evaluation_loses_nothing(tiny, whole_runs, tmp_path):
    """A finished training whose evaluation is cut short: no step is trained again."""
    whole, folder = whole_runs(tiny.modality), tmp_path / "run"
    code = (
        "import sys, core.training.run_folder, os, signal\n"
        "def cut(self, *_): os.kill(os.getpid(), signal.SIGTERM)\n"
        "core.training.run_folder.Run.save_sample = cut\n"
        f"import {tiny.module}\n"
        f"{tiny.module}.main(sys.argv[1:])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, *tiny.flags(folder)], capture_output=True, text=True)
    assert answer.returncode == 143
    assert answer.stderr.splitlines()[-1] == (
        "interrupted by SIGTERM; what was trained is kept: go on with the same command and --resume"
    )
    before = {path: path.read_bytes() for path in (folder / "checkpoint").iterdir()}
    assert tiny.run(folder, "--resume").wait() == 0
    assert {path: path.read_bytes() for path in (folder / "checkpoint").iterdir()} == before
    check_is_as(whole, tiny, folder)


def test_processes_that_train_as_one_leave_together(tiny_data, tmp_path):
    """One of two gets the signal: both finish the same step, the first saves, neither hangs."""
    tiny, folder = Tiny("image", tiny_data), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    seldom = ("--checkpoint-seconds", "1000")
    launcher = subprocess.Popen(
        [*command, "-m", tiny.module, *tiny.flags(folder, *LONG, *seldom)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: has_trained(folder) or launcher.poll() is not None, 120)
    launcher.send_signal(signal.SIGTERM)
    said, _ = launcher.communicate(timeout=60)
    assert "interrupted by SIGTERM in epoch" in said
    place = Checkpoints(folder / "checkpoint").load()["place"]
    assert len(place["history"]) >= 3
    assert json.loads((folder / "config.json").read_text())["epochs"] == 500


def test_reproduce_tells_its_cells_to_leave(tmp_path):
    """SIGTERM to the table reaches the run under way, which saves; the same command goes on with it."""
    path = tmp_path / "long.toml"
    path.write_text(
        'title = "long"\nmodality = "graph"\nsource = "a test"\ncost = ""\ndatasets = ["motifs"]\n'
        "epochs = 5000\nseeds = 1\npublished = []\n"
        '[[objectives]]\nobjective = "hard"\ntau_plus = 0.1\nbetas = [1.0]\n'
    )
    [spec] = read_recipe(path).specs()
    folder = tmp_path / spec.folder
    process = subprocess.Popen(
        [sys.executable, "-m", "shared_eval.reproduce", str(path)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_for(lambda: has_trained(folder) or process.poll() is not None, 120)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert said.splitlines()[-1].endswith("go on with the same command")
    assert "interrupted by SIGTERM in epoch" in (tmp_path / Job((spec,)).log).read_text()
    assert Checkpoints(folder / "checkpoint").load() is not None
