"""SIGTERM and Ctrl-C: the step ends, a checkpoint is saved, and one line says how to resume."""

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
from core.training.run_folder import Run
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.recipes import read_recipe
from shared_eval.reproduce.spec import Job
from tests.faults.tiny import TinyCommand, assert_same_run, has_trained, wait_for

LONG = ("--epochs", "500")
NO_CHECKPOINTS = ("--checkpoint-seconds", "1000")  # the only checkpoint is the one that the signal saves


@pytest.mark.faults
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_in_training_saves_a_checkpoint(tiny, tmp_path, signum, code):
    folder = tmp_path / "run"
    process = tiny.start(folder, *LONG, *NO_CHECKPOINTS)
    wait_for(lambda: has_trained(folder))
    process.signal(signum)
    assert process.wait(60) == code
    last = process.output().splitlines()[-1]
    name = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
    assert last.startswith(f"interrupted by {name} in epoch ")
    assert last.endswith("resume with the same command and --resume")
    assert "Traceback" not in process.output()
    progress = Checkpoints(folder / "checkpoint").load()["progress"]
    assert f"in epoch {progress['epoch']} of 500, after step {len(progress['step_statistics'])} of " in last


@pytest.mark.faults
def test_run_resumed_after_a_signal_equals_an_uninterrupted_one(tiny, finished_runs, tmp_path):
    folder = tmp_path / "run"
    process = tiny.start(folder, *NO_CHECKPOINTS)
    wait_for(lambda: (folder / "metrics.jsonl").exists())
    process.signal(signal.SIGTERM)
    if process.wait(60) == 143:
        tiny.finish(folder, "--resume")
    assert_same_run(finished_runs(tiny.modality), tiny, folder)


@pytest.mark.parametrize("steps_before", [0, 1])
def test_signal_saves_no_constant_embeddings(tiny_graph, tmp_path, monkeypatch, capsys, steps_before):
    """The message says which checkpoint is kept instead."""
    calls, step_statistics = [], divergence.step_statistics

    def constant_later(*arguments):
        calls.append(1)
        if len(calls) > steps_before:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_statistics(*arguments) * torch.tensor([1.0, 1.0, float(len(calls) <= steps_before)])

    monkeypatch.setattr(divergence, "step_statistics", constant_later)
    with pytest.raises(SystemExit) as exit_:
        tiny_graph.run_inline(tmp_path / "run")
    assert exit_.value.code == 143
    kept = "the checkpoint before is" if steps_before else "nothing is"
    assert f"; the embeddings are constant, and {kept} kept: resume with" in capsys.readouterr().err
    saved = Checkpoints(tmp_path / "run" / "checkpoint").load()
    assert len(saved["progress"]["step_statistics"] if saved else []) == steps_before


@pytest.mark.faults
def test_second_signal_exits_at_once(tmp_path):
    """Even inside a step that never ends; the same signal twice within a second counts once."""
    code = (
        "import time\n"
        "from core.training import signals\n"
        "with signals.graceful_shutdown(), signals.shielded():\n"
        "    print('started', flush=True)\n"
        "    while True: time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_signal_in_evaluation_keeps_all_training(tiny, finished_runs, tmp_path, monkeypatch, capsys):
    """When the evaluation of a finished training is interrupted, no step is trained again."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_sample", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as exit_:
            tiny.run_inline(folder)
    assert exit_.value.code == 143
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted by SIGTERM; what was trained is kept: resume with the same command and --resume"
    )
    before = {path: path.read_bytes() for path in (folder / "checkpoint").iterdir()}
    tiny.run_inline(folder, "--resume")
    assert {path: path.read_bytes() for path in (folder / "checkpoint").iterdir()} == before
    assert_same_run(finished_runs(tiny.modality), tiny, folder)


@pytest.mark.faults
@pytest.mark.distributed
def test_signal_to_one_rank_stops_all_after_the_same_step(tiny_data, tmp_path):
    """Rank 0 saves the checkpoint, and no rank hangs."""
    tiny, folder = TinyCommand("image", tiny_data), tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher = subprocess.Popen(
        [*torchrun, "-m", tiny.module, *tiny.flags(folder, *LONG, *NO_CHECKPOINTS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: has_trained(folder) or launcher.poll() is not None, 120)
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=60)
    assert "interrupted by SIGTERM in epoch" in output
    progress = Checkpoints(folder / "checkpoint").load()["progress"]
    assert len(progress["history"]) >= 2
    assert json.loads((folder / "config.json").read_text())["epochs"] == 500


@pytest.mark.faults
def test_signal_to_reproduce_stops_the_current_run(tmp_path):
    """The run saves a checkpoint; the same command resumes it."""
    path = tmp_path / "long.toml"
    path.write_text(
        'title = "long"\nmodality = "graph"\nsource = "a test"\ncost = ""\ndatasets = ["motifs"]\n'
        "epochs = 5000\nseeds = 1\npublished = []\n"
        '[[objectives]]\nobjective = "hard"\ntau_plus = 0.1\nbetas = [1.0]\n'
    )
    [spec] = locate(read_recipe(path).specs())
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
    _, output = process.communicate(timeout=120)
    assert process.returncode == 143
    assert output.splitlines()[-1].endswith("resume with the same command")
    assert "interrupted by SIGTERM in epoch" in (tmp_path / Job((spec,)).log).read_text()
    assert Checkpoints(folder / "checkpoint").load() is not None
