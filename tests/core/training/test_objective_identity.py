"""An option of an objective is declared once, in its config: folders, records and tables follow from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.io.errors import InputError
from core.training.config import objective_option
from core.training.launch import launch
from graph.config import GraphConfig
from graph.task import GraphTask
from shared_eval.records import find_records, read_records
from shared_eval.result_table import ResultTable
from shared_eval.tables import baselines_of, summarise
from tests.graph.conftest import write_tu_dataset
from tests.runs import losses_of, result_of


@dataclass(frozen=True, kw_only=True)
class MarginConfig(GraphConfig):
    """Graph training with an option that the objective does not have."""

    margin: float = objective_option(0.0, slug="margin{:g}", label="margin {:g}")


class MarginLoss(nn.Module):
    def __init__(self, loss: nn.Module, margin: float) -> None:
        super().__init__()
        self.loss, self.margin = loss, margin

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(*inputs) + self.margin


class MarginTask(GraphTask):
    def __init__(self, configs: Sequence[MarginConfig], device: torch.device) -> None:
        super().__init__(configs, device)
        self.objective = MarginLoss(self.objective, configs[0].margin)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folder of default run folders: the debiased and a hard objective, each with margin 0 and 0.5."""
    root = tmp_path_factory.mktemp("margin")
    write_tu_dataset(root / "data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for margin in (0.0, 0.5):
            launch(MarginTask, make_config(root, betas="0,2", seeds="0,1", margin=margin))
    return root


def make_config(root: Path, **settings: Any) -> MarginConfig:
    tiny = {"dataset": "TINY", "data_root": root / "data", "epochs": 2, "batch_size": 10, "hidden": 8}
    return MarginConfig(beta=2.0, tau_plus=0.1, device="cpu", **tiny, **settings)


def run_folder(root: Path, objective: str) -> Path:
    return root / "runs" / "graph" / "TINY" / objective / "seed-0"


@pytest.fixture(scope="module")
def table(root) -> ResultTable:
    records = read_records(find_records([root]))
    return summarise(records.assign(revision="abc1234"))  # an unclean work tree would show in the labels


def test_default_folder_names_a_changed_option(root):
    folders = {path.parents[1].name for path in find_records([root])}
    assert folders == {
        "debiased-tau0.1",
        "debiased-tau0.1-margin0.5",
        "hard-beta2-tau0.1",
        "hard-beta2-tau0.1-margin0.5",
    }


def test_option_reaches_the_loss(root):
    plain, margin = (
        losses_of(run_folder(root, f"hard-beta2-tau0.1{suffix}")) for suffix in ("", "-margin0.5")
    )
    assert margin == pytest.approx([loss + 0.5 for loss in plain], abs=1e-5)


@pytest.mark.parametrize(
    ("margin", "slug", "family"),
    [(0.0, "", ""), (0.5, "-margin0.5", "margin 0.5")],
    ids=["default", "changed"],
)
def test_record_has_the_option_and_names_it_if_changed(root, margin, slug, family):
    objective = result_of(run_folder(root, f"hard-beta2-tau0.1{slug}"))["objective"]
    label = ", ".join(filter(None, ["hard, beta 2, tau_plus 0.1", family]))
    expected = {"margin": margin, "slug": f"hard-beta2-tau0.1{slug}", "label": label, "family": family}
    assert {name: objective[name] for name in expected} == expected
    assert objective["plain_family"] == family


def test_table_has_a_row_for_each_value_of_the_option(table):
    assert [row.label for row in table.rows if row.kind == "objective"] == [
        "debiased, tau_plus 0.1",
        "hard, beta 2, tau_plus 0.1",
        "debiased, tau_plus 0.1, margin 0.5",
        "hard, beta 2, tau_plus 0.1, margin 0.5",
    ]
    [column] = table.columns
    assert all(row.cells[column].scores.keys() == {0, 1} for row in table.rows)


@pytest.mark.parametrize("family", ["", ", margin 0.5"], ids=["default", "changed"])
def test_difference_is_taken_within_the_family(table, family):
    hard, debiased = (
        table.row(f"{name}{family}") for name in ("hard, beta 2, tau_plus 0.1", "debiased, tau_plus 0.1")
    )
    assert baselines_of(hard, table.rows)["beta 0"] == debiased
    [column] = table.columns
    difference = hard.cells[column].comparison.difference
    assert difference.pairs == 2
    assert difference.mean == pytest.approx(hard.cells[column].mean - debiased.cells[column].mean)


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_resume_with_another_value_is_refused(root, margin):
    folder = run_folder(root, "hard-beta2-tau0.1-margin0.5")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"run of other settings .margin 0.5 there, {margin} now"):
        launch(MarginTask, make_config(root, margin=margin, output_dir=folder, resume=True))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
