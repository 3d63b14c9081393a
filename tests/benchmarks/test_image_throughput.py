"""The throughput study runs, and its page holds what was measured."""

import json
import sys

import pytest

from benchmarks import image_throughput


def test_a_small_study(tmp_path, monkeypatch, capsys):
    output = tmp_path / "throughput.json"
    flags = [
        "--batch-size",
        "8",
        "--steps",
        "2",
        "--rounds",
        "1",
        "--width",
        "4",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["image_throughput", *flags, "--output", str(output)])
    image_throughput.main()
    results = json.loads(output.read_text())["results"]
    for pipeline in results["pipelines"].values():
        for what in ("views", "training"):
            assert pipeline[what]["images_per_second"] > 0
    assert sum(part["share"] for part in results["parts"].values()) == pytest.approx(1, abs=1e-3)
    assert results["no_synchronisation"] is None
    page = output.with_suffix(".md").read_text()
    assert f"| **ratio** | {results['ratio']['training']} | {results['ratio']['views']} |" in page
