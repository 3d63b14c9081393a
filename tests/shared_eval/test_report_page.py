"""What the page shows of many runs: which runs it draws, and records of several versions."""

import base64
import re
from pathlib import Path

import pandas as pd
import pytest

from shared_eval.report import main as report_main
from shared_eval.report_page import first_runs
from tests.shared_eval.conftest import write_record


def runs_at(*points, seeds=(0,)):
    """Records of each (beta, tau_plus) at each seed."""
    return pd.DataFrame(
        {
            "label": f"beta {beta}, tau_plus {tau_plus}",
            "beta": beta,
            "tau_plus": tau_plus,
            "seed": seed,
            "path": f"runs/{beta}-{tau_plus}-{seed}/result.json",
        }
        for beta, tau_plus in points
        for seed in seeds
    )


def test_the_lowest_seed_s_runs_are_drawn():
    found = first_runs(runs_at((1, 0.1), (0, 0.1), seeds=(5, 3, 8)), at_most=8)
    assert list(found.items()) == [
        ("beta 0, tau_plus 0.1", Path("runs/0-0.1-3")),
        ("beta 1, tau_plus 0.1", Path("runs/1-0.1-3")),
    ]


@pytest.mark.parametrize(
    ("at_most", "betas"),
    [(1, [0]), (2, [0, 16]), (3, [0, 2, 16]), (5, [0, 1, 2, 4, 16]), (8, [0, 1, 2, 4, 16])],
)
def test_too_many_objectives_are_thinned_evenly_from_the_least_to_the_hardest(at_most, betas):
    records = runs_at(*((beta, 0.1) for beta in (4, 0, 16, 2, 1)))
    assert list(first_runs(records, at_most)) == [f"beta {beta}, tau_plus 0.1" for beta in betas]


def test_a_metric_more_is_no_run_more():
    """A run has a row for each metric; runs of one beta are in the order of tau_plus."""
    records = pd.concat([runs_at((1, 0.5), (1, 0.0), (0, 0.5))] * 2)
    assert [path.name for path in first_runs(records, at_most=3).values()] == [
        "0-0.5-0",
        "1-0.0-0",
        "1-0.5-0",
    ]


def figures_on(page):
    """The figures of a page as SVG; each of their texts is there as a comment."""
    found = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    return "".join(base64.b64decode(text).decode() for text in found)


@pytest.mark.parametrize("mix", [False, True])
def test_versions_are_averaged_in_the_table_and_the_figures_of_a_mixed_report_alone(tmp_path, mix):
    for revision, value in (("abc1234", 0.5), ("def5678", 0.8)):
        folder = tmp_path / "runs" / revision
        write_record(folder, environment={"revision": revision}, metrics={"svm_accuracy": value})
        (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')
    output = tmp_path / "page.html"
    report_main([str(tmp_path / "runs"), "--output", str(output), *(["--mix"] if mix else [])])
    page = output.read_text()
    assert ("65.0 (1)" in page) == mix
    assert ("infograph @ abc1234" not in page) == mix
    drawn = figures_on(page)
    assert ("<!-- infograph -->" in drawn) == mix
    assert ("<!-- infograph @ abc1234 -->" not in drawn) == mix
