"""The sentence study runs, and its page holds what was measured."""

import json
import sys

import pytest

from benchmarks import sentence_speed


def test_a_small_study(tmp_path, monkeypatch):
    output = tmp_path / "speed.json"
    flags = [
        "--dataset",
        "pydoc",
        "--embedding-dim",
        "8",
        "--hidden",
        "6",
        "--batch-size",
        "20",
        "--rounds",
        "1",
    ]
    flags += ["--sentences", "50", "--tasks", "topic", "--device", "cpu", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["sentence_speed", *flags])
    sentence_speed.main()
    results = json.loads(output.read_text())["results"]
    assert results["training"]["packed"]["tokens_per_second"] > 0
    assert 0 < results["training"]["padding"] < 1
    assert sum(part["share"] for part in results["training"]["parts"].values()) == pytest.approx(1, abs=1e-3)
    assert results["evaluation"]["fits"] == 610
    page = output.with_suffix(".md").read_text()
    assert f"| **ratio** | {results['encoding']['ratio']} |" in page
