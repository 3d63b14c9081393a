"""Records as runs write them, and a recipe of small runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from core.training.cli import parse_config
from graph.config import GraphConfig
from graph.config import defaults_for as graph_defaults
from image.config import ImageConfig
from image.config import defaults_for as image_defaults
from sentence.config import SentenceConfig
from sentence.config import defaults_for as sentence_defaults
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.spec import Job, RunSpec

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
# What a recipe plans to compare, to be appended to MOTIFS.
PRIMARY = """
[primary]
metric = "svm_accuracy"
beta = 1.0
tau_plus = 0.1
against = ["beta 0", "untrained"]
"""
# Objectives as recorded before they had a label: ``label_older_objective`` reads them.
HARD = {"name": "hard", "beta": 1.0, "tau_plus": 0.1, "variant": "corrected"}
PLAIN = {"name": "infograph", "beta": 0.0, "tau_plus": 0.0, "variant": "corrected"}


def write_record(folder: Path, **changes: Any) -> Path:
    """Write a record in ``folder``, with ``changes`` to its fields."""
    record = {
        "schema": 1,
        "modality": "graph",
        "dataset": "MUTAG",
        "objective": PLAIN,
        "seed": 0,
        "epochs": 200,
        "metrics": {"svm_accuracy": 0.8},
        "untrained_metrics": {"svm_accuracy": 0.7},
        "train_seconds": 1.0,
        "eval_seconds": 1.0,
        "environment": {"revision": "abc1234"},
    } | changes
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(record))
    return folder / "result.json"


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
