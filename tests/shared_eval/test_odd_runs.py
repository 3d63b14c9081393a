"""Records and tables of runs as people have them: linked, of one name in two modalities, at few settings."""

import os
import stat
from dataclasses import replace

import pytest
import torch

from core.io.errors import InputError
from core.io.files import write_atomically
from graph.scoring import samples
from shared_eval import compare, records
from shared_eval.comparison import compare_scores
from shared_eval.records import find_records, read_records
from shared_eval.report import file_names
from shared_eval.report_page import by_dataset, draw
from shared_eval.reproduce.plan import describe_estimate
from shared_eval.reproduce.recipes import read_recipe
from shared_eval.table_formats import to_latex
from shared_eval.tables import ORACLE, label_versions, scores, summarise
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, MOTIFS, write_record


def table_of(folder):
    return summarise(read_records(find_records([folder])))


def test_linked_runs_are_found_and_circles_end(tmp_path):
    write_record(tmp_path / "disk" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "runs" / "b").symlink_to(tmp_path / "runs")
    assert find_records([tmp_path / "runs"]) == [tmp_path / "runs" / "a" / "result.json"]


def test_output_that_is_a_link_is_written_through_it_with_the_users_permissions(tmp_path, monkeypatch):
    (tmp_path / "target.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("target.csv")
    monkeypatch.setattr("core.io.files.UMASK", 0o077)
    write_atomically(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == "new"
    assert stat.S_IMODE(os.stat(tmp_path / "target.csv").st_mode) == 0o600


def test_selection_of_nothing_names_what_there_is(tmp_path, capsys):
    write_record(tmp_path / "run")
    [error] = failure_of(records.main, capsys, [str(tmp_path), "--objective", "Hard"])
    assert "no record has --objective Hard; there are infograph" in error


def test_run_without_scores_is_named(tmp_path, capsys):
    """As of a text that is too short for sentences to be held out."""
    write_record(tmp_path / "short", metrics={}, untrained_metrics={})
    assert read_records(find_records([tmp_path])).empty
    assert capsys.readouterr().err == f"warning: {tmp_path}/short/result.json has no scores and is left out\n"


def test_runs_of_one_seed_are_those_of_one_dataset(tmp_path):
    for name, dataset in (("a", "MUTAG"), ("b", "PTC_MR"), ("c", "PTC_MR")):
        write_record(tmp_path / name, dataset=dataset)
    side = read_records(find_records([tmp_path]))
    with pytest.raises(InputError, match=r"b/result.json, \S+c/result.json"):
        compare_scores(side, side)


def test_comparison_without_a_common_seed_says_so(tmp_path, capsys):
    for seed in range(2):
        write_record(tmp_path / str(seed), seed=seed)
    compare.main([str(tmp_path / "0"), str(tmp_path / "1")])
    assert "both means are of different seeds" in capsys.readouterr().err


def test_datasets_of_one_name_are_named_by_their_modality(tmp_path):
    for modality in ("image", "graph"):
        write_record(tmp_path / modality, modality=modality, dataset="folder:data")
    write_record(tmp_path / "other", dataset="MUTAG")
    found = by_dataset(read_records(find_records([tmp_path])))
    assert {name for name, _ in found} == {"image folder:data", "graph folder:data", "MUTAG"}


def test_datasets_of_one_name_have_figures_and_columns_of_the_same_name(tmp_path):
    for modality, metric in (("image", "linear_accuracy"), ("graph", "svm_accuracy")):
        for beta in (1.0, 2.0):
            changes = {"objective": HARD | {"beta": beta}, "metrics": {metric: 0.5}}
            write_record(tmp_path / f"{modality}{beta}", modality=modality, dataset="folder:data", **changes)
    found = read_records(find_records([tmp_path]))
    table = summarise(scores(found))
    assert list(table.by_dataset()) == [name for name, _ in by_dataset(found)]
    drawn = draw(label_versions(found), table)
    assert {
        "image folder:data: linear_accuracy against beta",
        "graph folder:data: svm_accuracy against beta",
    } <= drawn.keys()


def test_titles_that_differ_in_signs_alone_are_files_of_their_own():
    assert file_names(["a-b: loss", "a.b: loss", "a b: loss", "c"]) == [
        "a-b-loss",
        "a-b-loss-2",
        "a-b-loss-3",
        "c",
    ]


def test_one_long_run_takes_its_time_on_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "one.toml"
    recipe.write_text(MOTIFS.replace("[settings]", "[seconds]\nmotifs = 800\n[settings]"))
    specs = [
        replace(spec, folder=tmp_path / f"a/b/{i}") for i, spec in enumerate(read_recipe(recipe).specs())
    ]
    assert "about 13 min" in describe_estimate(specs[:1], 8)
    assert "about 27 min" in describe_estimate(specs, 1)


def test_shorter_training_has_the_seconds_of_the_longest_which_it_does_not_exceed(tmp_path):
    recipe = tmp_path / "lengths.toml"
    text = MOTIFS.replace("epochs = 2", 'epochs = [5, 20]\nfolder = "runs/{epochs}"')
    recipe.write_text(text.replace("[settings]", "[seconds]\nmotifs = 8\n[settings]"))
    assert {spec.epochs: spec.seconds for spec in read_recipe(recipe).specs()} == {5: 8, 20: 8}


def test_recipe_needs_no_published_scores(tmp_path):
    recipe = tmp_path / "own.toml"
    start, end = MOTIFS.index("[[published]]"), MOTIFS.index("[settings]")
    recipe.write_text(MOTIFS[:start] + MOTIFS[end:])
    assert read_recipe(recipe).published == ()


def test_best_beta_is_of_datasets_that_have_several(tmp_path):
    for dataset, beta in (("MUTAG", 1.0), ("MUTAG", 2.0), ("DD", 1.0)):
        write_record(tmp_path / f"{dataset}{beta}", dataset=dataset, objective=HARD | {"beta": beta})
    oracle = table_of(tmp_path).row(f"{ORACLE}, tau_plus 0.1")
    assert list(oracle.cells) == ["MUTAG svm_accuracy"]


def test_best_lengths_of_two_revisions_have_two_labels(tmp_path):
    for revision in ("abc1234", "def5678"):
        for epochs in (5, 20):
            folder = tmp_path / f"{revision}{epochs}"
            write_record(folder, epochs=epochs, environment={"revision": revision})
    labels = [row.label for row in table_of(tmp_path).rows if row.kind == "oracle"]
    assert len(set(labels)) == 2


def test_latex_has_one_rule_where_the_first_rows_are_left_out(tmp_path):
    write_record(tmp_path / "plain")
    write_record(tmp_path / "hard", objective=HARD)
    assert "\\midrule\n\\midrule" not in to_latex(table_of(tmp_path), "difference_text")


def test_sampled_graphs_are_taken_from_the_whole_dataset(monkeypatch):
    """TUDatasets are sorted by class: the first 500 of 1,200 graphs would be of one."""
    count, vectors = 1200, torch.arange(1200.0).view(-1, 1)
    labels = (torch.arange(count) >= 600).long().numpy()
    monkeypatch.setattr("graph.scoring.represent", lambda encoder, batches: [vectors.numpy()])

    class Model(torch.nn.Module):
        encoder = None

        def forward(self, batch):
            return torch.randn(1, 4, 2), torch.randn(1, 3, 2), None

    class Batch:
        weight, node, graph = torch.ones(1, 4), torch.arange(4)[None], torch.arange(4)[None] % 3

    [sampled] = samples(Model(), [Batch()], labels)
    assert sampled["labels"].unique().tolist() == [0, 1]
    assert sampled["labels"].tolist() == (sampled["representations"].flatten() >= 600).long().tolist()
