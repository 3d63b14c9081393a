"""Each finished run has a README: what it is, its scores beside the untrained encoder's, how to load it."""

import json
import re
from pathlib import Path

import pytest

from core.training.config import TrainConfig
from core.training.model_card import CITATION, CardLines, model_card
from core.training.records import read_record
from graph.config import GraphConfig
from tests.faults.tiny import FLAGS

ROOT = Path(__file__).parents[2]


def blocks_of(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


@pytest.fixture(params=list(FLAGS))
def folder(request, finished_runs) -> Path:
    return finished_runs(request.param)


def test_card_has_scores_and_settings_of_the_record(folder):
    card, record = (folder / "README.md").read_text(), read_record(folder / "result.json")
    for name, value in record["metrics"].items():
        assert f"| {name} | {record['untrained_metrics'][name]:.4f} | {value:.4f} |" in card
    assert card.startswith(f"# {record['objective']['label']}, trained on {record['dataset']}\n")
    [settings] = blocks_of(card, "json")
    recorded = json.loads((folder / "config.json").read_text())
    assert all(recorded[name] == value for name, value in json.loads(settings).items())
    assert list(folder.rglob("README.md")) == [folder / "README.md"]


def test_card_says_how_to_load_the_encoder(folder):
    [usage] = blocks_of((folder / "README.md").read_text(), "python")
    names: dict = {}
    exec(usage, names)
    assert len(usage.split("\n\n")[-1].splitlines()) <= 5
    assert names["vectors"].ndim == 2
    assert len(names["vectors"]) == 1


def test_citation_is_that_of_the_project():
    entry = (ROOT / "CITATION.cff").read_text().partition("preferred-citation:")[2]
    values = dict(re.findall(r'^ *-? ?([a-z-]+): "?([^"\n]+)"?$', entry, re.MULTILINE))
    names = re.findall(r"given-names: (.*)\n *family-names: (.*)", entry)
    authors = " and ".join(map(" ".join, names))
    for value in (values["title"], authors, values["collection-title"], values["year"], values["url"]):
        assert f"{{{value}}}" in CITATION


@pytest.mark.parametrize("name", ["runs/\udcff", 'a"b\\c', "it's {here}"])
def test_folder_of_any_name_gives_a_valid_card(name):
    config: TrainConfig = GraphConfig(beta=0.0, tau_plus=0.0, output_dir=Path(name))
    card = model_card(config, CardLines("A model.", "folder = RUN"), {"graphs": 1000}, {"accuracy": 0.5}, {})
    [usage] = blocks_of(card, "python")
    names: dict = {}
    exec(usage, names)
    assert names["folder"] == name
    assert "graphs 1,000." in card
    assert "| accuracy |  | 0.5000 |" in card
