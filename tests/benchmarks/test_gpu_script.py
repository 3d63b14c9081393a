"""The script for a lent GPU: its commands parse, and a rehearsal on the CPU ends with all that is kept."""

import os
import shlex
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import parse_suite
from benchmarks.pack import PackConfig
from benchmarks.pack import main as pack_main
from core.training.cli import parse, parse_config
from image.config import ImageConfig, defaults_for
from tests.image.conftest import write_class_folders
from tests.runs import result_of

ROOT = Path(__file__).parents[2]
TIME_IS_UP = 75


class Script:
    """Calls of the script on one machine; ``carry`` is what is carried there, ``out`` what comes back."""

    def __init__(self, folder, python):
        self.work, self.carry, self.out = folder / "work", folder / "carry", folder / "out"
        self.carry.mkdir(parents=True)
        self.environment = {
            **{"HCL_GPU_WORK": str(self.work), "HCL_GPU_CARRY": str(self.carry), "OUT": str(self.out)},
            **{"PYTHON": str(python), "HCL_GPU_RESERVE": "1"},
        }

    def __call__(self, *steps, **environment):
        """The exit code, and the lines that it printed."""
        done = subprocess.run(
            ["bash", ROOT / "benchmarks" / "gpu.sh", *steps],
            env=os.environ | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        return done.returncode, done.stdout.splitlines()

    def kept(self):
        with tarfile.open(self.out / "results.tar.gz") as file:
            return set(file.getnames())


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path / "machine", sys.executable)


def fake_python(folder, body):
    """An interpreter that runs ``body``, a shell script, instead."""
    path = folder / "python"
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("dry", ["", "1"])
def test_all_commands_parse(dry, script):
    status, lines = script(HCL_GPU_PRINT="1", HCL_GPU_DRY=dry)
    assert status == 0
    commands = [shlex.split(line)[1:] for line in lines]
    modules = {"benchmarks": [], "benchmarks.pack": [], "image.train": [], "pytest": []}
    for dash_m, module, *flags in commands:
        assert dash_m == "-m"
        modules[module].append(flags)
    suites = [parse_suite(flags) for flags in modules["benchmarks"]]
    expected = ("objective", "ranks", "images", "graphs", "sentences", "evaluation")
    assert [suite.only for suite in suites] == [(part,) for part in expected]
    assert {suite.device for suite in suites} == {"cpu" if dry else "cuda"}
    packs = [parse(PackConfig, flags, "pack", default=PackConfig()) for flags in modules["benchmarks.pack"]]
    assert [pack.dataset for pack in packs] == ["cifar10", "cifar100"]
    runs = [parse_config(ImageConfig, defaults_for, flags, "image.train") for flags in modules["image.train"]]
    assert [run.objective for run in runs] == ["hard", "simclr", "debiased"]
    assert all(run.resume and run.data_root == pack.data_root for run in runs for pack in packs)
    for run in runs:  # the folder that the run has at home
        assert run.output_dir == script.work / replace(run, output_dir=None).folder()
    [tests] = modules["pytest"]
    files = [name for name in tests if name.startswith("tests/")]
    assert len(files) == (1 if dry else 3)
    assert all((ROOT / name).exists() for name in files)
    if not dry:
        assert suites[0].objective.large_batches[-1] == 262_144
        assert {(run.arch, run.batch_size, run.epochs) for run in runs} == {("resnet18", 512, 100)}


@pytest.mark.parametrize("step", ["cifar10-simclr", "cifar100-debiased", "cifar100-hard"])
def test_dataset_objective_and_epochs_are_a_choice(script, step):
    _, [line] = script(step, HCL_GPU_PRINT="1", HCL_GPU_EPOCHS="300")
    _, _, module, *flags = shlex.split(line)
    assert module == "image.train"
    config = parse_config(ImageConfig, defaults_for, flags, module)
    assert (f"{config.dataset}-{config.objective}", config.epochs) == (step, 300)
    assert config.output_dir == script.work / replace(config, output_dir=None).folder()


def test_unknown_step_is_refused_before_the_others_end(script):
    status, lines = script("tsets", HCL_GPU_PRINT="1")
    assert status == 1
    assert lines[0].startswith("tsets is not a step; it must be one of setup tests objective")


def test_results_are_kept_after_each_step_and_of_a_step_that_fails(script, tmp_path):
    """Also of those before it, and the next steps are called."""
    body = """
    while [ $# -gt 0 ]; do
        case $1 in --only) part=$2 ;; --output) folder=$2 ;; esac
        shift
    done
    mkdir -p "$folder"
    echo "{}" > "$folder/$part.json"
    [ "$part" != ranks ] || { ls "$OUT" > "$folder/before-ranks.txt"; exit 1; }
    """
    script.environment["PYTHON"] = str(fake_python(tmp_path, body))
    status, lines = script("objective", "ranks", "images")
    assert status == 1
    assert lines[-1] == "failed: ranks"
    names = {f"benchmarks/results/gpu/{part}.json" for part in ("objective", "ranks", "images")}
    assert script.kept() == {*names, "benchmarks/results/gpu/before-ranks.txt"}
    assert (script.work / "results" / "before-ranks.txt").read_text() == "results.tar.gz\n"
    assert {path.name for path in (script.work / "done").iterdir()} == {"objective", "images"}


def test_a_step_ends_when_the_time_is_up_and_the_next_call_continues(script, tmp_path):
    """Steps that are done are not called again."""
    body = f"""
    echo "$*" >> {tmp_path}/calls
    mkdir -p {script.work}/results
    case "$*" in
        *"--only ranks"*) trap 'echo saved > {script.work}/results/ranks.txt; exit 130' INT
            [ -e {script.work}/results/ranks.txt ] || sleep 60 & wait ;;
    esac
    """
    script.environment["PYTHON"] = str(fake_python(tmp_path, body))
    status, lines = script(HCL_GPU_SECONDS="3")
    assert status == TIME_IS_UP
    assert lines[-1].startswith("time is up within: ")
    assert "--only ranks" in lines[-1]
    assert script.kept() == {f"benchmarks/results/gpu/{name}.txt" for name in ("ranks", "tests")}
    status, _ = script()
    assert status == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [sum(f"--only {part}" in call for call in calls) for part in ("objective", "ranks", "images")] == [
        1,
        2,
        1,
    ]
    assert script("images", HCL_GPU_SECONDS="0")[0] == TIME_IS_UP


def test_time_of_a_call_includes_the_setup_and_the_next_call_resumes_the_run(script, tmp_path):
    """Both calls end with what the run has written until then."""
    body = """
    case "$*" in
        *--unpack*) sleep 2 ;;
        *image.train*) [[ "$*" = *--resume* ]] || exit 1
            while [ "$1" != --output-dir ]; do shift; done
            mkdir -p "$2"
            if [ -e "$2/metrics.jsonl" ]; then echo {} > "$2/result.json"; exit 0; fi
            trap 'exit 130' INT
            echo {} > "$2/metrics.jsonl"
            sleep 60 & wait ;;
    esac
    """
    script.environment["PYTHON"] = str(fake_python(tmp_path, body))
    (script.carry / "cifar10-1-of-1.zip").touch()
    status, lines = script("setup", "cifar10-hard", HCL_GPU_SECONDS="6")
    assert status == TIME_IS_UP, lines
    [training] = [line for line in lines if line.startswith("== ") and "image.train" in line]
    assert int(training.split()[-3].strip("(")) <= 4  # "(4 s left)"
    run = "runs/image/cifar10/hard-beta1-tau0.1/seed-0"
    assert script.kept() == {f"{run}/metrics.jsonl"}
    status, lines = script("cifar10-hard")
    assert status == 0, lines
    assert script.kept() == {f"{run}/metrics.jsonl", f"{run}/result.json"}


def test_checkpoint_of_an_unfinished_run_is_carried_in_pieces(script, tmp_path):
    """To another machine, four pieces a call; a finished run stays."""
    content = os.urandom(5000)
    for run in ("simclr", "hard-beta1-tau0.1"):
        folder = script.work / "runs" / "image" / "cifar10" / run / "seed-0"
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "a.pt").write_bytes(content)
        (folder / "metrics.jsonl").write_text("{}\n")
    (script.work / "runs" / "image" / "cifar10" / "simclr" / "seed-0" / "result.json").write_text("{}")
    other = Script(tmp_path / "other machine", "python3")
    restored = other.work / "runs" / "image" / "cifar10" / "hard-beta1-tau0.1" / "seed-0"
    for call in ("1", "2"):
        status, lines = script("keep", call, HCL_GPU_PIECE="2000")
        assert status == 0, lines
        names = sorted(path.name for path in script.out.glob("piece-*"))
        assert 1 <= len(names) <= 4
        for path in (*other.carry.iterdir(), *script.out.iterdir()):
            path.unlink() if path.parent == other.carry else path.rename(other.carry / path.name)
        status, lines = other("restore")
        assert status == 0, lines
        assert restored.exists() == (call == "2")
        assert len(list((other.work / "pieces").glob("piece-*"))) == (4 if call == "1" else 4 + len(names))
    assert (restored / "checkpoint" / "a.pt").read_bytes() == content
    assert not (other.work / "runs" / "image" / "cifar10" / "simclr").exists()


@pytest.mark.slow
def test_rehearsal_on_the_cpu(script, tmp_path):
    """Real commands at tiny sizes: carried images, a run, a part of the suite, a test of the kernels."""
    data = tmp_path / "data"
    write_class_folders(data / "cifar10" / "train", per_class=32, size=32)
    write_class_folders(data / "cifar10" / "test", per_class=8, size=32, seed=1)
    pack_main(["--data-root", str(data), "--folder", str(script.carry)])
    dry = {"HCL_GPU_DRY": "1", "OMP_NUM_THREADS": "1"}
    status, lines = script("setup", "cifar10-hard", "objective", "tests", **dry)
    assert status == 0, lines
    folder = script.work / "runs" / "image" / "cifar10" / "hard-beta1-tau0.1" / "seed-0"
    assert result_of(folder)["objective"]["name"] == "hard"
    run = "runs/image/cifar10/hard-beta1-tau0.1/seed-0"
    suite = "benchmarks/results/gpu"
    assert script.kept() >= {
        *(f"{run}/{name}" for name in ("result.json", "config.json", "metrics.jsonl")),
        *(f"{suite}/{name}" for name in ("objective.json", "README.md", "objective.png", "tests.txt")),
    }
    assert not [name for name in script.kept() if name.endswith((".pt", ".safetensors"))]
    assert (script.out / "results.tar.gz").stat().st_size < 2**20
