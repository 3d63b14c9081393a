"""What recipes plan, and what their tables say of it."""

import json
from pathlib import Path

import pytest

from graph.config import defaults_for as graph_defaults
from shared_eval import reproduce
from shared_eval.reproduce.locate import locate
from shared_eval.reproduce.recipes import read_recipe
from shared_eval.reproduce.spec import Job
from tests.shared_eval.conftest import MOTIFS, PRIMARY, parsed, write_record


def finish(recipe):
    """Write the records of a recipe's runs."""
    for spec in locate(read_recipe(recipe).specs()):
        objective = parsed(Job((spec,))).objective_record()
        changes = {"dataset": spec.dataset, "epochs": spec.epochs, "objective": objective}
        write_record(spec.folder, seed=spec.seed, **changes)
        settings = graph_defaults().as_dict() | {"modality": "graph"} | spec.settings()
        (spec.folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (("title", "title"), []),
        (
            ('[primary]\nmetric = "svm_accuracy"', '[primary]\nmetric = "svm_acuracy"'),
            [
                "two epochs plans to compare motifs svm_acuracy of beta 1, tau_plus 0.1, family '' with "
                f"{baseline}, but the table has motifs svm_accuracy"
                for baseline in ("beta 0", "untrained")
            ],
        ),
        (
            ("hidden = 8", 'node_features = "degree"'),
            [
                "two epochs plans to compare motifs svm_accuracy of beta 1, tau_plus 0.1, family '' with "
                f"{baseline}, but in the table the family is 'features-degree'"
                for baseline in ("beta 0", "untrained")
            ],
        ),
        (
            ('metric = "svm_accuracy"\nlabel', 'metric = "svm_acc"\nlabel'),
            ["published figures of motifs svm_acc are not shown: the table has motifs svm_accuracy"],
        ),
    ],
    ids=["complete", "metric", "family", "published"],
)
def test_what_a_recipe_plans_and_its_table_lacks_is_named(recipe, capsys, change, lines):
    recipe.write_text((MOTIFS + PRIMARY).replace(*change))
    finish(recipe)
    reproduce.main([str(recipe)])
    assert capsys.readouterr().err.splitlines() == [f"warning: {line}" for line in lines]
    reproduce.main([str(recipe), "--objectives", "hard"])
    assert capsys.readouterr().err == ""


def test_planned_comparison_in_a_table_that_mixes_lengths_is_named(recipe, capsys):
    lengths = 'epochs = [2, 4]\nfolder = "runs/{epochs}"'
    recipe.write_text((MOTIFS + PRIMARY).replace("epochs = 2", lengths))
    finish(recipe)
    reproduce.main([str(recipe), "--mix"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 * 2  # baselines at each length
    assert all(line.endswith(", but the table mixes lengths of training") for line in said)


def test_reports_of_recipes_in_one_folder_are_two_files(recipe, capsys):
    finish(recipe)
    recipe.with_name("other.toml").write_text(recipe.read_text())
    for name in ("two", "other"):
        reproduce.main([f"{name}.toml"])
        assert f"report: runs/report-{name}.html" in capsys.readouterr().out
    assert {path.name for path in Path("runs").glob("*.html")} == {"report-two.html", "report-other.html"}
