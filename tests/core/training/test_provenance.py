"""What a record says about its environment: versions, device, git revision."""

import re
import subprocess

import torch

from core.training import provenance
from core.training.provenance import describe_environment


def test_environment_names_versions_and_device():
    environment = describe_environment(torch.device("cpu"))
    assert environment["torch"] == torch.__version__
    assert environment["device"] == "cpu"
    assert environment["device_name"]
    assert {"numpy", "torch", "scikit-learn"} <= environment["packages"].keys()


def test_revision_is_dirty_only_after_code_changes(tmp_path, monkeypatch):
    """Changed benchmark results do not count; outside a checkout there is no revision."""
    code, result = tmp_path / "core" / "provenance.py", tmp_path / "benchmarks" / "results" / "speed.json"
    monkeypatch.setattr(provenance, "__file__", str(code))
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("before")
    assert provenance._revision.__wrapped__() is None

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = provenance._revision.__wrapped__()
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    result.write_text("after")
    assert provenance._revision.__wrapped__() == clean
    code.write_text("after")
    assert provenance._revision.__wrapped__() == f"{clean}-dirty"
