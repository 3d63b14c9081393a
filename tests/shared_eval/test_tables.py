"""Tables compared with values and texts computed by hand."""

import io
import json

import pandas as pd
import pytest
from rich.console import Console

from shared_eval.planned import Primary, PublishedScore, planned_together
from shared_eval.records import find_records, read_records
from shared_eval.table_formats import to_csv, to_latex, to_markdown, to_terminal
from shared_eval.tables import BEST_LENGTH, ORACLE, PLAIN, UNTRAINED, baselines_of, scores, summarise
from tests.shared_eval.conftest import HARD, write_record
from tests.shared_eval.conftest import PLAIN as PLAIN_GRAPH


def table_of(tmp_path, **options):
    return summarise(read_records(find_records([tmp_path])), **options)


def primary(*baselines):
    """Comparisons of hard at beta 1, tau_plus 0.1, on MUTAG."""
    named = (Primary("MUTAG svm_accuracy", 200, "", 0.1, 1.0, baseline) for baseline in baselines)
    return planned_together("graphs", named)


def write_seeds(tmp_path, name, values, **changes):
    for seed, value in enumerate(values):
        write_record(tmp_path / name / str(seed), seed=seed, metrics={"svm_accuracy": value}, **changes)


def test_mean_deviation_and_seeds_equal_values_by_hand(tmp_path):
    """0.80, 0.90, 0.85: mean 85, sample deviation 5; the untrained encoder counts once for each seed."""
    for seed, untrained in enumerate((0.7, 0.7, 0.76)):
        for name, objective, value in (
            ("plain", {}, (0.80, 0.90, 0.85)[seed]),
            ("hard", {"objective": HARD}, 0.5),
        ):
            write_record(
                tmp_path / name / str(seed),
                seed=seed,
                metrics={"svm_accuracy": value},
                untrained_metrics={"svm_accuracy": untrained},
                **objective,
            )
    assert to_markdown(table_of(tmp_path)) == (
        "| objective | MUTAG svm_accuracy |\n"
        "| --- | --- |\n"
        "| untrained encoder | 72.0 ± 3.5 (3) |\n"
        "| infograph | 85.0 ± 5.0 (3) |\n"
        "| hard, beta 1, tau_plus 0.1 | 50.0 ± 0.0 (3) |\n"
    )


def test_one_seed_has_no_deviation_and_missing_cells_are_empty(tmp_path):
    write_record(tmp_path / "a")
    write_record(tmp_path / "b", dataset="DD", objective=HARD)
    texts = {row.label: cells for row, cells in table_of(tmp_path).texts()}
    assert texts["infograph"] == ["80.0 (1)", ""]
    assert texts["hard, beta 1, tau_plus 0.1"] == ["", "80.0 (1)"]


def test_modalities_share_a_table(tmp_path):
    """Plain objectives share a row; metrics that only describe an embedding are not shown."""
    simclr = HARD | {"name": "simclr", "beta": 0, "tau_plus": 0}
    image = {
        "modality": "image",
        "dataset": "shapes",
        "objective": simclr,
        "metrics": {"knn_accuracy": 0.5, "linear_top5_accuracy": 0.9, "alignment": 1.5},
        "untrained_metrics": {"knn_accuracy": 0.25},
    }
    write_record(tmp_path / "image", **image)
    write_record(tmp_path / "graph")
    write_record(tmp_path / "graph-hard", objective=HARD)
    write_record(tmp_path / "image-hard", **image | {"objective": HARD | {"variant": None}})
    table = summarise(scores(read_records(find_records([tmp_path]))))
    assert table.columns == ["MUTAG svm_accuracy", "shapes knn_accuracy"]
    assert [row.label for row in table.rows] == [UNTRAINED, PLAIN, "hard, beta 1, tau_plus 0.1"]
    assert [cells for _, cells in table.texts()][1:] == [["80.0 (1)", "50.0 (1)"]] * 2


def test_versions_have_rows_of_their_own(tmp_path):
    """Objectives, the untrained encoder and the oracle; baselines have the same version."""
    for folder, revision, value in (("a", "abc1234", 0.5), ("b", "def5678", 0.8)):
        changes = {"environment": {"revision": revision}, "untrained_metrics": {"svm_accuracy": value - 0.1}}
        for seed in range(2):
            write_record(
                tmp_path / folder / f"plain{seed}", seed=seed, metrics={"svm_accuracy": value}, **changes
            )
            for beta in (1.0, 2.0)[: 2 if folder == "a" else 1]:
                write_record(
                    tmp_path / folder / f"hard{beta}-{seed}",
                    seed=seed,
                    objective=HARD | {"beta": beta},
                    metrics={"svm_accuracy": value + 0.01},
                    **changes,
                )
    table = table_of(tmp_path)
    assert [(row.label, *texts) for row, texts in table.texts()] == [
        ("untrained encoder @ abc1234", "40.0 ± 0.0 (2)"),
        ("untrained encoder @ def5678", "70.0 ± 0.0 (2)"),
        ("infograph @ abc1234", "50.0 ± 0.0 (2)"),
        ("infograph @ def5678", "80.0 ± 0.0 (2)"),
        ("hard, beta 1, tau_plus 0.1 @ abc1234", "51.0 ± 0.0 (2)"),
        ("hard, beta 1, tau_plus 0.1 @ def5678", "81.0 ± 0.0 (2)"),
        ("hard, beta 2, tau_plus 0.1 @ abc1234", "51.0 ± 0.0 (2)"),
        (f"{ORACLE}, tau_plus 0.1 @ abc1234", "51.0 ± 0.0 (2)"),
    ]
    for row in table.rows:
        if row.label.startswith("hard"):
            assert row.cells["MUTAG svm_accuracy"].comparison.difference.mean == pytest.approx(0.01)


def test_merged_versions_are_averaged(tmp_path):
    """The mean of a seed's records counts, whatever their order."""
    for folder, revision, value in (("a", "abc1234", 0.5), ("b", "def5678", 0.8)):
        write_record(tmp_path / folder, environment={"revision": revision}, metrics={"svm_accuracy": value})
    row = table_of(tmp_path, merge=True).row("infograph")
    assert row.text("MUTAG svm_accuracy") == "65.0 (1)"
    assert len(row.cells["MUTAG svm_accuracy"].records) == 2


@pytest.mark.parametrize("merge", [False, True])
def test_scores_by_different_rules_are_never_averaged(tmp_path, merge):
    """Not even where versions are merged; a dataset with one kind alone shows no rules."""
    for folder, changes, value in (("a", {}, 0.5), ("b", {"evaluation": "senteval-2"}, 0.8)):
        write_seeds(tmp_path / folder, "plain", [value, value], **changes)
        write_seeds(tmp_path / folder, "hard", [value + 0.01] * 2, objective=HARD, **changes)
    write_record(tmp_path / "c", dataset="DD", evaluation="senteval-2")
    table = table_of(tmp_path, merge=merge)
    column = "MUTAG svm_accuracy"
    means = {row.label: row.cells[column].mean for row in table.rows if column in row.cells}
    assert {label: mean for label, mean in means.items() if "untrained" not in label} == {
        "infograph": 0.5,
        "infograph @ senteval-2": 0.8,
        "hard, beta 1, tau_plus 0.1": 0.51,
        "hard, beta 1, tau_plus 0.1 @ senteval-2": 0.81,
    }
    for row in table.rows:
        if row.label.startswith("hard"):
            assert row.cells[column].comparison.difference.mean == pytest.approx(0.01)
    assert "DD svm_accuracy" in table.row("infograph").cells


def test_versions_of_one_dataset_do_not_label_another(tmp_path):
    """An unclean work tree is always named, a revision only if its dataset has several."""
    write_record(tmp_path / "a", environment={"revision": "abc1234"})
    write_record(tmp_path / "b", environment={"revision": "def5678-dirty"})
    write_record(tmp_path / "c", dataset="DD", environment={"revision": "def5678"})
    write_record(tmp_path / "d", dataset="ENZYMES", environment={"revision": "def5678-dirty"})
    labels = [row.label for row in table_of(tmp_path).rows if row.kind == "objective"]
    assert labels == ["infograph", "infograph @ abc1234", "infograph @ def5678-dirty"]


def test_one_commit_from_two_clones_is_one_version(tmp_path):
    """Git abbreviates a commit to more digits in a clone with more objects; unclean is still unclean."""
    for seed, revision in enumerate(("abc1234", "abc12345", "abc1234567-dirty")):
        write_record(tmp_path / f"{seed}", seed=seed, environment={"revision": revision})
    rows = [row for row in table_of(tmp_path).rows if row.kind == "objective"]
    assert [row.label for row in rows] == ["infograph @ abc1234", "infograph @ abc1234-dirty"]


def test_plain_objectives_of_two_families_have_two_rows(tmp_path):
    plain = {"name": "quickthought", "beta": 0.0, "tau_plus": 0.0}
    write_record(tmp_path / "graph")
    for encoder in (None, "bow"):
        write_record(
            tmp_path / f"{encoder}", modality="sentence", dataset="mr", objective=plain | {"encoder": encoder}
        )
    labels = [row.label for row in table_of(tmp_path).rows if row.kind == "objective"]
    assert labels == [PLAIN, f"{PLAIN}, bow"]


def test_table_of_one_dataset_keeps_the_corrected_p(tmp_path):
    write_seeds(tmp_path, "plain", [0.80, 0.82, 0.81, 0.83, 0.79, 0.84])
    write_seeds(tmp_path, "hard", [0.85, 0.87, 0.865, 0.88, 0.845, 0.885], objective=HARD)
    write_record(tmp_path / "DD" / "plain", dataset="DD")
    write_record(tmp_path / "DD" / "harder", dataset="DD", objective=HARD | {"beta": 2.0})
    table = table_of(tmp_path, primary=primary("plain"))
    parts = table.by_dataset()
    assert {dataset: part.columns for dataset, part in parts.items()} == {
        "DD": ["DD svm_accuracy"],
        "MUTAG": ["MUTAG svm_accuracy"],
    }
    assert "hard, beta 1, tau_plus 0.1" not in [row.label for row in parts["DD"].rows]
    cell = parts["MUTAG"].row("hard, beta 1, tau_plus 0.1").cells["MUTAG svm_accuracy"]
    assert cell.comparison.corrected_p == pytest.approx(0.03125)
    assert table.has_tests
    assert not parts["DD"].has_tests


def all_points(tmp_path):
    """A table of InfoGraph, debiased and two betas of one variant at six seeds."""
    base = [0.80, 0.82, 0.81, 0.83, 0.79, 0.84]
    debiased = {"name": "debiased", "beta": 0.0, "tau_plus": 0.1, "variant": "corrected"}
    write_seeds(tmp_path, "plain", base)
    write_seeds(tmp_path, "debiased", [value + 0.001 * i for i, value in enumerate(base)], objective=debiased)
    write_seeds(tmp_path, "hard1", [value + 0.05 + 0.001 * i for i, value in enumerate(base)], objective=HARD)
    write_seeds(tmp_path, "hard2", [value - 0.02 for value in base], objective=HARD | {"beta": 2.0})
    published = {("paper: hard, beta 1", "MUTAG svm_accuracy"): PublishedScore(0.9)}
    return table_of(tmp_path, published=published, primary=primary("beta 0", "plain", "untrained"))


def test_differences_are_to_the_beta_0_objective(tmp_path):
    table = all_points(tmp_path)
    column = "MUTAG svm_accuracy"
    rows = {row.label.split(", tau_plus")[0]: row for row in table.rows}
    assert not baselines_of(rows["infograph"], table.rows)
    assert baselines_of(rows["debiased"], table.rows) == {"plain": rows["infograph"]}
    assert baselines_of(rows["hard, beta 1"], table.rows) == {
        "beta 0": rows["debiased"],
        "plain": rows["infograph"],
    }
    cells = {name: row.cells[column] for name, row in rows.items()}
    assert cells["hard, beta 1"].comparison.difference.mean == pytest.approx(0.05)
    assert cells["hard, beta 1"].comparison.difference.p == pytest.approx(0.03125)
    # Three primary comparisons, each with the smallest p of six seeds.
    assert cells["hard, beta 1"].comparison.corrected_p == pytest.approx(0.09375)
    assert not cells["hard, beta 1"].is_better
    assert cells["infograph"].comparison is None
    assert [c.baseline for c in cells["infograph"].comparisons] == ["untrained"]


def test_exploratory_comparisons_are_marked_and_not_corrected(tmp_path):
    """Holm counts the primary ones alone, and no other is ever bold."""
    table = all_points(tmp_path)
    for row, _, comparison in table.comparisons():
        is_primary = row.label == "hard, beta 1, tau_plus 0.1"
        assert comparison.is_primary == is_primary
        assert (comparison.corrected_p is None) == (not is_primary)
        assert is_primary or not comparison.is_gain
    harder = table.row("hard, beta 2, tau_plus 0.1")
    assert harder.text("MUTAG svm_accuracy", "difference_text").endswith(" (p 0.031)")
    few = table_of(tmp_path, primary=primary("beta 0"))
    [corrected] = [c.corrected_p for _, _, c in few.comparisons() if c.is_primary]
    assert corrected == pytest.approx(0.03125)
    assert few.row("hard, beta 1, tau_plus 0.1").cells["MUTAG svm_accuracy"].is_better
    none = table_of(tmp_path)
    assert "**" not in to_markdown(none)


def test_lengths_of_training_have_rows_and_an_oracle_of_each_seed(tmp_path):
    """The settings beside the records differ in their epochs alone."""
    for epochs, values in ((5, (0.80, 0.90)), (20, (0.84, 0.86)), (100, (0.82, 0.82))):
        for seed, value in enumerate(values):
            folder = tmp_path / str(epochs) / str(seed)
            write_record(folder, seed=seed, epochs=epochs, metrics={"svm_accuracy": value})
            (folder / "config.json").write_text(json.dumps({"hidden": 32, "epochs": epochs, "seed": seed}))
    rows = [(row.label, texts) for row, texts in table_of(tmp_path).texts() if row.kind != "untrained"]
    assert rows == [
        ("infograph @ epochs 5", ["85.0 ± 7.1 (2)"]),
        ("infograph @ epochs 20", ["85.0 ± 1.4 (2)"]),
        ("infograph @ epochs 100", ["82.0 ± 0.0 (2)"]),
        (f"infograph, {BEST_LENGTH}", ["87.0 ± 4.2 (2)"]),
    ]


def test_oracle_of_lengths_is_of_datasets_that_have_several(tmp_path):
    """MUTAG has two lengths, DD and PTC_MR one each; no other length was tried for these."""
    for dataset, epochs in (("MUTAG", 5), ("MUTAG", 20), ("DD", 5), ("PTC_MR", 20)):
        write_record(tmp_path / f"{dataset}-{epochs}", dataset=dataset, epochs=epochs)
    [oracle] = [row for row in table_of(tmp_path).rows if row.kind == "oracle"]
    assert list(oracle.cells) == ["MUTAG svm_accuracy"]
    for path in tmp_path.glob("MUTAG-*/result.json"):
        path.unlink()
    assert not [row for row in table_of(tmp_path).rows if row.kind == "oracle"]


def test_oracle_takes_the_best_beta(tmp_path):
    column = "MUTAG svm_accuracy"
    table = all_points(tmp_path)
    cells = {row.label.split(", tau_plus")[0]: row.cells[column] for row in table.rows}
    oracle = next(row for row in table.rows if row.kind == "oracle")
    assert oracle.label == f"{ORACLE}, tau_plus 0.1"
    assert oracle.cells[column].mean == cells["hard, beta 1"].mean


@pytest.mark.parametrize("betas", [(1.0, 2.0), (1.0,)])
def test_oracle_is_of_several_hard_betas_even_if_beta_0_is_best(tmp_path, betas):
    for beta, value in ((0.0, 0.9), *zip(betas, (0.8, 0.85), strict=False)):
        objective = HARD | {"beta": beta}
        write_record(tmp_path / str(beta), objective=objective, metrics={"svm_accuracy": value})
    oracles = [row for row in table_of(tmp_path).rows if row.kind == "oracle"]
    assert [row.cells["MUTAG svm_accuracy"].mean for row in oracles] == [0.85] * (len(betas) > 1)


def test_untrained_scores_of_one_seed_that_differ_are_averaged(tmp_path):
    """Those of two objectives at a seed are usually equal, and then count once."""
    for name, objective, before in (("plain", PLAIN_GRAPH, 0.5), ("hard", HARD, 0.7), ("again", HARD, 0.7)):
        write_record(tmp_path / name, objective=objective, untrained_metrics={"svm_accuracy": before})
    [untrained] = [row for row in table_of(tmp_path).rows if row.kind == "untrained"]
    assert untrained.cells["MUTAG svm_accuracy"].mean == pytest.approx(0.6)


def test_every_family_has_its_own_baseline_and_untrained_encoder(tmp_path):
    """Two encoders, and the released variant, which shares its plain objective with the corrected one."""
    plain = {"name": "quickthought", "beta": 0.0, "tau_plus": 0.0}
    for encoder, value in ((None, 0.6), ("bow", 0.7)):
        for objective, gain in ((plain, 0.0), (HARD | {"variant": None}, 0.05)):
            write_record(
                tmp_path / f"{encoder}-{gain}",
                objective=objective | {"encoder": encoder},
                metrics={"svm_accuracy": value + gain},
                untrained_metrics={"svm_accuracy": value - 0.1},
            )
    table = table_of(tmp_path)
    column = "MUTAG svm_accuracy"
    assert table.row(UNTRAINED).cells[column].mean == pytest.approx(0.5)
    assert table.row(f"{UNTRAINED}, bow").cells[column].mean == pytest.approx(0.6)
    for details in ("", ", bow"):
        row = table.row(f"hard, beta 1, tau_plus 0.1{details}")
        assert baselines_of(row, table.rows)["plain"].label == f"quickthought{details}"
        assert row.cells[column].comparison.difference.mean == pytest.approx(0.05)
    released = HARD | {"variant": "released", "tau_plus": 0.5}
    write_record(tmp_path / "released" / "0", objective=released | {"name": "debiased", "beta": 0.0})
    write_record(tmp_path / "released" / "1", objective=released)
    write_record(tmp_path / "released" / "2", objective=PLAIN_GRAPH | {"variant": "released"})
    rows = table_of(tmp_path / "released").rows
    by_label = {row.label: row for row in rows}
    debiased = by_label["debiased, tau_plus 0.5, released"]
    assert baselines_of(by_label["hard, beta 1, tau_plus 0.5, released"], rows)["beta 0"] is debiased
    assert baselines_of(debiased, rows) == {"plain": by_label["infograph"]}


def test_family_of_a_record_decides_its_baseline(tmp_path):
    """Options that no code here knows: label, family and plain family come from the record."""

    def objective(name, beta, family, plain_family):
        label = ", ".join(filter(None, [name, f"beta {beta:g}" if beta else "", family]))
        families = {"family": family, "plain_family": plain_family, "encoder": None, "slug": "not read"}
        return {"name": name, "beta": beta, "tau_plus": 0.0, "label": label, "margin": 0.2} | families

    write_record(tmp_path / "plain", objective=objective("infograph", 0.0, "", ""))
    for family, plain_family in (("margin 0.2", ""), ("margin 0.2, cosine", "cosine")):
        for beta in (1.0, 2.0):
            given = objective("hard", beta, family, plain_family)
            write_record(tmp_path / f"{family}-{beta}", objective=given, metrics={"svm_accuracy": 0.9})
    rows = {row.label: row for row in table_of(tmp_path).rows}
    assert list(rows) == [
        UNTRAINED,
        "infograph",
        "hard, beta 1, margin 0.2",
        "hard, beta 2, margin 0.2",
        "hard, beta 1, margin 0.2, cosine",
        "hard, beta 2, margin 0.2, cosine",
        f"{ORACLE}, tau_plus 0, margin 0.2",
        f"{ORACLE}, tau_plus 0, margin 0.2, cosine",
    ]
    assert baselines_of(rows["hard, beta 1, margin 0.2"], rows.values()) == {"plain": rows["infograph"]}
    assert not baselines_of(rows["hard, beta 1, margin 0.2, cosine"], rows.values())


def test_significant_gain_is_bold(tmp_path):
    write_seeds(tmp_path, "plain", [0.80, 0.82, 0.81, 0.83, 0.79, 0.84])
    write_seeds(tmp_path, "hard", [0.85, 0.87, 0.865, 0.88, 0.845, 0.885], objective=HARD)
    table = table_of(tmp_path, primary=primary("plain"))
    assert "| hard, beta 1, tau_plus 0.1 | **86.6 ± 1.6 (6)** |" in to_markdown(table)
    assert "| hard, beta 1, tau_plus 0.1 | **+5.1 [4.7, 5.5] p 0.031** |" in to_markdown(
        table, "difference_text"
    )
    assert r"\textbf{86.6 $\pm$ 1.6 (6)}" in to_latex(table)
    console = Console(
        force_terminal=True, color_system="standard", width=100, record=True, quiet=False, file=None
    )
    with console.capture() as captured:
        console.print(to_terminal(table, "a title"))
    assert "\x1b[1m86.6 ± 1.6 (6)" in captured.get()


def test_gain_over_the_baseline_that_a_recipe_names_is_bold(tmp_path):
    """Also if the table has another baseline, which the recipe does not name."""
    write_seeds(tmp_path, "plain", [0.80, 0.82, 0.81, 0.83, 0.79, 0.84])
    debiased = HARD | {"name": "debiased", "beta": 0.0}
    write_seeds(tmp_path, "debiased", [0.86, 0.88, 0.87, 0.89, 0.85, 0.90], objective=debiased)
    write_seeds(tmp_path, "hard", [0.85, 0.87, 0.865, 0.88, 0.845, 0.885], objective=HARD)
    for baseline, text in (("plain", "**+5.1 [4.7, 5.5] p 0.031**"), ("beta 0", "-0.9 [-1.3, -0.5] p 0.031")):
        table = table_of(tmp_path, primary=primary(baseline))
        assert f"| hard, beta 1, tau_plus 0.1 | {text} |" in to_markdown(table, "difference_text")


def test_difference_says_how_many_seeds_are_common(tmp_path):
    write_seeds(tmp_path, "plain", [0.80, 0.82])
    write_seeds(tmp_path, "hard", [0.85, 0.87, 0.86], objective=HARD)
    table = table_of(tmp_path)
    assert "+5.0 [5.0, 5.0] (p 0.500) (2 of 3 seeds) |" in to_markdown(table, "difference_text")
    assert ",0.05,0.05,0.05,2,0.5,,plain,False,,False" in to_csv(table)


def test_recipe_names_columns_of_a_dataset_that_two_modalities_have(tmp_path):
    write_seeds(tmp_path, "plain", [0.80, 0.82])
    write_seeds(tmp_path, "hard", [0.85, 0.87], objective=HARD)
    simclr = {"name": "simclr", "beta": 0.0, "tau_plus": 0.0}
    write_record(tmp_path / "image", modality="image", objective=simclr, metrics={"linear_accuracy": 0.5})
    published = {("paper: hard", "MUTAG svm_accuracy"): PublishedScore(0.9)}
    table = table_of(tmp_path, primary=primary("plain"), published=published)
    assert table.columns == ["graph MUTAG svm_accuracy", "image MUTAG linear_accuracy"]
    assert [c.baseline for _, _, c in table.comparisons() if c.is_primary] == ["plain"]
    assert table.row("paper: hard").text("graph MUTAG svm_accuracy") == "90.0"


def test_csv_and_latex_equal_texts_by_hand(tmp_path):
    write_record(tmp_path / "a", metrics={"svm_accuracy": 0.8})
    write_record(tmp_path / "b", objective=HARD, metrics={"svm_accuracy": 0.9})
    table = table_of(
        tmp_path,
        published={
            ("paper: hard, beta 1", "MUTAG svm_accuracy"): PublishedScore(0.874, 0.011),
            ("paper: hard, beta 2", "DD svm_accuracy"): PublishedScore(0.5),  # of a dataset without records
        },
    )
    assert to_csv(table) == (
        "objective,kind,column,mean,deviation,seeds,difference,low,high,pairs,p,corrected_p,"
        "baseline,primary,detectable,equivalent\n"
        "untrained encoder,untrained,MUTAG svm_accuracy,0.7,,1,,,,,,,,,,\n"
        "infograph,objective,MUTAG svm_accuracy,0.8,,1,0.1,,,1,,,untrained,False,,\n"
        '"hard, beta 1, tau_plus 0.1",objective,MUTAG svm_accuracy,0.9,,1,0.1,,,1,,,plain,False,,\n'
        '"hard, beta 1, tau_plus 0.1",objective,MUTAG svm_accuracy,0.9,,1,0.2,,,1,,,untrained,False,,\n'
        '"paper: hard, beta 1",published,MUTAG svm_accuracy,0.874,0.011,,,,,,,,,,,\n'
    )
    assert to_latex(table) == (
        "\\begin{tabular}{lc}\n"
        "\\toprule\n"
        "objective & MUTAG svm\\_accuracy \\\\\n"
        "\\midrule\n"
        "untrained encoder & 70.0 (1) \\\\\n"
        "\\midrule\n"
        "infograph & 80.0 (1) \\\\\n"
        "hard, beta 1, tau\\_plus 0.1 & 90.0 (1) \\\\\n"
        "\\midrule\n"
        "paper: hard, beta 1 & 87.4 $\\pm$ 1.1 \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_csv_has_every_primary_comparison(tmp_path):
    lines = pd.read_csv(io.StringIO(to_csv(all_points(tmp_path))))
    named = lines[lines["primary"] == True]  # noqa: E712  (empty where there is no comparison)
    assert named["baseline"].tolist() == ["beta 0", "plain", "untrained"]
    assert set(named["objective"]) == {"hard, beta 1, tau_plus 0.1"}


def test_latex_escapes_names(tmp_path):
    write_record(tmp_path / "a", dataset="folder:a_$b^{c}~\\d")
    assert r"folder:a\_\$b\^{}\{c\}\~{}\textbackslash{}d svm\_accuracy" in to_latex(table_of(tmp_path))


def test_cell_names_its_records(tmp_path):
    paths = [write_record(tmp_path / str(seed), seed=seed) for seed in range(2)]
    row = table_of(tmp_path).row("infograph")
    assert row.cells["MUTAG svm_accuracy"].records == tuple(map(str, paths))


def test_runs_without_labels_show_what_describes_their_embedding(tmp_path):
    """As it is, without differences, oracle and percent; a run that has scores shows these alone."""
    described = {
        "metrics": {"alignment": 0.25, "effective_rank": 41.5, "negative_similarity": 0.1},
        "untrained_metrics": {"alignment": 0.125, "effective_rank": 7.0, "negative_similarity": 0.9},
    }
    for seed in range(2):
        for beta in (0.0, 1.0, 2.0):
            objective = {"objective": HARD | {"beta": beta}}
            write_record(tmp_path / f"{seed}-{beta}", dataset="folder:a", seed=seed, **objective, **described)
    write_record(tmp_path / "scored")
    table = summarise(scores(read_records(find_records([tmp_path]))))
    columns = ["folder:a alignment", "folder:a effective_rank", "MUTAG svm_accuracy"]
    assert sorted(table.columns) == sorted(columns)
    hard = table.row("hard, beta 2, tau_plus 0.1")
    assert [hard.text(column) for column in columns] == ["0.25 ± 0.00 (2)", "41.50 ± 0.00 (2)", ""]
    assert hard.text(columns[0], "difference_text") == ""
    assert table.row(UNTRAINED).text(columns[1]) == "7.00 ± 0.00 (2)"
    assert not [row for row in table.rows if row.kind == "oracle"]


def test_gain_of_the_mean_alone_is_not_bold(tmp_path):
    """Nineteen of twenty seeds lose a little; where the baseline collapsed, one gains 40 points."""
    write_seeds(tmp_path, "plain", [0.80] * 19 + [0.40])
    losses = [0.80 - 0.002 - seed / 10_000 for seed in range(19)]
    write_seeds(tmp_path, "hard", [*losses, 0.80], objective=HARD)
    table = table_of(tmp_path, primary=primary("plain"))
    [comparison] = [c for _, _, c in table.comparisons() if c.is_primary]
    assert comparison.difference.mean > 0
    assert comparison.corrected_p < 0.05
    assert not comparison.is_gain


def test_column_of_two_modalities_is_two_columns(tmp_path):
    for modality, value in (("image", 0.2), ("sentence", 0.4)):
        metrics = {"knn_accuracy": value}
        write_record(tmp_path / modality, modality=modality, dataset="folder:data", metrics=metrics)
    table = table_of(tmp_path)
    assert table.columns == ["image folder:data knn_accuracy", "sentence folder:data knn_accuracy"]
