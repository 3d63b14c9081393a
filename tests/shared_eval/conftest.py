"""Records as runs write them."""

import json
from pathlib import Path
from typing import Any

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
