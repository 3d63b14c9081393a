"""The page of evidence says what its records say."""

import re
import shutil

import numpy as np
import pytest
import scipy.stats

from benchmarks.evidence import BLOCK, RESULTS, EvidenceConfig, Studies, fill, main
from shared_eval.records import main as write_csv
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, PLAIN, write_record

REACH = 0.1 * np.sqrt(5 / 3) * scipy.stats.t.ppf(0.975, 3) / 2  # of an interval of write_map, in points
INTERVAL = re.compile(r"\[-?\d+\.\d, -?\d+\.\d\]")


@pytest.fixture
def results(tmp_path):
    """A study of MUTAG: hard negatives gain 2 points over plain, 12 over the untrained encoder."""
    for seed in range(4):
        for objective, value in ((PLAIN, 0.8), (HARD, 0.82)):
            folder = tmp_path / "results" / "graphs" / "MUTAG" / objective["name"] / f"seed-{seed}"
            write_record(folder, seed=seed, objective=objective, metrics={"svm_accuracy": value})
    return tmp_path / "results"


def page_with(results, *blocks):
    page = results.parent / "page.md"
    page.write_text("".join(f"<!-- begin {block} -->\nold\n<!-- end -->\n" for block in blocks))
    return page


def test_blocks_are_filled_in_and_numbers_link_to_their_records(results, capsys):
    labels, title = "hard, beta 1, tau_plus 0.1 against infograph", "gains of hard negatives"
    blocks = "summary graphs", f"pairs graphs: {labels}", "scores graphs", f"figures graphs: {title}"
    page = page_with(results, *blocks)
    main(["--results", str(results), "--pages", str(page)])
    summary, pairs, scores, figures = (match.group() for match in BLOCK.finditer(page.read_text()))
    plain = "[80.0 ± 0.0 (4)](results/graphs/MUTAG/infograph)"
    hard = "[82.0 ± 0.0 (4)](results/graphs/MUTAG/hard)"
    published = "89.0 ± 1.1 (InfoGraph, by GraphMAE)"
    untrained = plain.replace("80.0", "70.0")  # scored by the same runs, before they trained
    assert (
        f"| MUTAG svm_accuracy | {untrained} | {plain} |  | {hard} | +2.0 [2.0, 2.0] | {published} |"
        in summary
    )
    assert "| MUTAG svm_accuracy | hard, beta 1, tau_plus 0.1 | infograph | +2.0 [2.0, 2.0] | 4 |" in pairs
    assert f"| infograph | {plain} |\n| hard, beta 1, tau_plus 0.1 | {hard} |" in scores
    assert "\nold\n" not in page.read_text()
    assert f"![{title}](figures/gains-of-hard-negatives.svg)" in figures
    assert "<svg" in (page.parent / "figures" / "gains-of-hard-negatives.svg").read_text()


def test_study_in_one_file_gives_the_same_tables(results, capsys):
    """Its numbers link to the study's folder, as there are no folders of runs."""
    blocks = "summary graphs", "scores graphs", "differences graphs", "primary graphs", "overall graphs"
    page = page_with(results, *blocks)
    from_runs = fill(page, Studies(results))
    export = results / "one-file" / "records.csv"
    export.parent.mkdir()
    write_csv([str(results / "graphs"), "--csv", str(export)])
    shutil.rmtree(results / "graphs")
    export.parent.rename(results / "graphs")
    assert fill(page, Studies(results)) == re.sub(r"results/graphs/MUTAG/\w+", "results/graphs", from_runs)


def test_variants_are_compared_with_the_default_at_the_same_beta_and_tau_plus(results):
    """A seed's differences at several tau_plus count as their mean; other settings have no counterpart."""
    gains = {(1.0, 0.1): 0.03, (1.0, 0.5): 0.01, (2.0, 0.1): -0.02}
    runs = [(*setting, "corrected", 0.0) for setting in gains]
    runs += [(*setting, "released", gain) for setting, gain in gains.items()] + [(4.0, 0.1, "released", 0.1)]
    for seed in range(4):
        for beta, tau_plus, variant, gain in runs:
            noise = (seed - 1.5) / 1000 if variant == "released" else 0
            write_record(
                results / "map" / f"{beta}-{tau_plus}-{variant}" / f"seed-{seed}",
                seed=seed,
                objective=HARD | {"beta": beta, "tau_plus": tau_plus, "variant": variant},
                metrics={"svm_accuracy": 0.8 + gain + noise},
            )
    text = fill(page_with(results, "variants map"), Studies(results))
    spread = 0.1 * np.sqrt(5 / 3)  # of four seeds a tenth of a point apart, in points
    reach = scipy.stats.t.ppf(0.975, 3) * spread / 2
    for beta, mean in (("1", 2.0), ("2", -2.0), ("all of these", 2 / 3)):
        interval = f"[{mean - reach:.1f}, {mean + reach:.1f}]"
        assert f"| MUTAG svm_accuracy | released | {beta} | {mean:+.1f} {interval} | 4 |" in text
    assert "| 4 | released" not in text.replace(" | 4 |\n", "")


def write_map(results, gains):
    """Runs at each (beta, tau_plus), of four seeds: the gains of hard ones are a tenth of a point apart."""
    for seed in range(4):
        for (beta, tau_plus), gain in gains.items():
            noise = (seed - 1.5) / 1000 if beta else 0
            write_record(
                results / "map" / f"{beta}-{tau_plus}" / f"seed-{seed}",
                seed=seed,
                objective=HARD | {"beta": beta, "tau_plus": tau_plus},
                metrics={"svm_accuracy": 0.8 + gain + noise},
            )


def test_gains_at_each_beta_and_tau_plus_are_counted(results):
    """One cell is not run."""
    write_map(results, {(0.0, 0.0): 0.0, (1.0, 0.1): 0.03, (1.0, 0.5): -0.02, (2.0, 0.1): 0.001})
    text = fill(page_with(results, "gains map: MUTAG svm_accuracy"), Studies(results))
    assert "| MUTAG svm_accuracy, default | beta 1 | beta 2 |" in text
    for tau_plus, means in (("0.1", (3.0, 0.1)), ("0.5", (-2.0, None))):
        cells = ["" if m is None else f"{m:+.1f} [{m - REACH:.1f}, {m + REACH:.1f}]" for m in means]
        assert f"| tau_plus {tau_plus} | {cells[0]} | {cells[1]} |" in text
    assert "Of 3 intervals 1 are above 0 and 1 below. Chance gives as many on one side with p " in text
    [p] = re.findall(r"with p (\d\.\d+)", text)
    assert float(p) == pytest.approx(2 / 2**4, abs=0.01)  # where all four seeds have one sign


def test_gains_of_other_seeds_are_counted_without_a_test(results):
    for beta, tau_plus, seeds in ((0.0, 0.0, 4), (1.0, 0.1, 4), (1.0, 0.5, 4), (2.0, 0.1, 3), (2.0, 0.5, 4)):
        for seed in range(seeds):
            write_record(
                results / "map" / f"{beta}-{tau_plus}" / f"seed-{seed}",
                seed=seed,
                objective=HARD | {"beta": beta, "tau_plus": tau_plus},
            )
    text = fill(page_with(results, "gains map"), Studies(results))
    assert "Of 4 intervals 0 are above 0 and 0 below.\n" in text


def test_averages_of_several_lengths_are_apart(results):
    """And a row that has no seed in common with the plain objective has no line."""
    for epochs, gain in ((5, -0.01), (200, 0.01)):
        for seed in range(3):
            for objective, value in ((PLAIN, 0.8), (HARD, 0.8 + gain)):
                write_record(
                    results / "map" / f"{epochs}" / objective["name"] / f"seed-{seed}",
                    seed=seed,
                    epochs=epochs,
                    objective=objective,
                    metrics={"svm_accuracy": value},
                )
    write_record(results / "map" / "other", seed=9, epochs=200, objective=HARD | {"beta": 2.0})
    text = fill(page_with(results, "averages map"), Studies(results))
    for epochs, gain in ((5, -1), (200, 1)):
        row = f"| default @ epochs {epochs} | 1 | {gain:+.1f} [{gain:.1f}, {gain:.1f}] |"
        assert row in text
    assert "| 2 |" not in text


def test_averages_are_over_all_tau_plus_of_a_beta(results):
    """The untrained encoder has 0.7; noise is the same at each tau_plus, so that it does not average out."""
    write_map(results, {(0.0, 0.0): 0.0, (1.0, 0.1): 0.03, (1.0, 0.5): 0.01, (2.0, 0.1): -0.02})
    text = fill(page_with(results, "averages map"), Studies(results))
    for beta, mean in (("1", 2.0), ("2", -2.0)):
        plain, untrained = (f"{m:+.1f} [{m - REACH:.1f}, {m + REACH:.1f}]" for m in (mean, mean + 10))
        assert f"| MUTAG svm_accuracy | default | {beta} | {plain} | {untrained} | 4 |" in text
    assert "| default | 0 |" not in text


def test_pairs_of_some_seeds_and_columns(results):
    for seed in range(4):
        for objective, value in ((PLAIN, 0.8), (HARD, 0.8 + seed / 100)):
            folder = results / "graphs" / "DD" / objective["name"] / f"seed-{seed}"
            write_record(
                folder, dataset="DD", seed=seed, objective=objective, metrics={"svm_accuracy": value}
            )
    rows = "pairs graphs: hard, beta 1, tau_plus 0.1 against infograph"
    some = fill(page_with(results, f"{rows}; DD svm_accuracy; seeds 2-3"), Studies(results))
    assert "| DD svm_accuracy | hard, beta 1, tau_plus 0.1 | infograph | +2.5 " in some
    assert " | 2 |\n" in some
    assert "MUTAG" not in some
    for column in ("MUTAG", "DD"):
        assert f"| {column} svm_accuracy | hard, beta 1, tau_plus 0.1 | infograph |" in fill(
            page_with(results, rows), Studies(results)
        )


def test_overall_has_the_selected_modalities(results):
    line = "| image | primary objective - plain | +2.0 [2.0, 2.0] | 1 |"
    for seed in range(4):
        for objective, value in ((PLAIN, 0.4), (HARD, 0.42)):
            write_record(
                results / "both" / "cifar10" / objective["name"] / f"seed-{seed}",
                modality="image",
                dataset="cifar10",
                seed=seed,
                epochs=3,
                objective=objective,
                metrics={"linear_accuracy": value},
            )
    shutil.copytree(results / "graphs", results / "both" / "graphs")
    for block, modalities in (("overall both", "graph image"), ("overall both: graph", "graph")):
        text = fill(page_with(results, block), Studies(results))
        for modality in ("graph", "image"):
            assert (line.replace("image", modality) in text) == (modality in modalities)


def test_study_named_as_a_recipe_has_its_primary_comparisons(results):
    """Those of a map are exploratory, though other recipes name the same runs."""
    assert "p 1.000 |" in fill(page_with(results, "differences graphs"), Studies(results))
    shutil.copytree(results / "graphs", results / "graphs-map")
    text = fill(page_with(results, "differences graphs-map", "primary graphs-map"), Studies(results))
    assert "(p 0.125) |" in text
    assert "p 1.000 |" not in text
    assert "| plain |" not in text


def test_training_is_compared_with_the_encoder_before_it(results):
    text = fill(page_with(results, "training graphs: MUTAG svm_accuracy"), Studies(results))
    table = Studies(results).table("graphs")
    for row, column, comparison in table.comparisons():
        if comparison.baseline == "untrained" and column == "MUTAG svm_accuracy":
            assert f"| {row.label} | {comparison.points} |" in text
    assert "untrained" not in text.partition("| --- |")[2]


def test_page_that_is_filled_in_stays_as_it_is(results):
    page = page_with(results, "differences graphs", "primary graphs", "overall graphs: graph")
    page.write_text(fill(page, Studies(results)))
    assert fill(page, Studies(results)) == page.read_text()


def test_figures_of_one_title_and_two_studies_are_an_error(results, capsys):
    """They would share a file."""
    (results / "again").symlink_to(results / "graphs")
    title = "gains of hard negatives"
    page = page_with(results, f"figures graphs: {title}", f"figures again: {title}")
    [error] = failure_of(main, capsys, ["--results", str(results), "--pages", str(page)])
    assert f"has the figure {title} of graphs and of again" in error
    assert page.read_text().count("old") == 2


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("nothing graphs", "has a block nothing, which is not one of summary,"),
        ("scores no", "no records of no"),
        ("scores graphs: MUTAG svm", "no column MUTAG svm, only MUTAG svm_accuracy"),
        (
            "pairs graphs: infograph against hard, beta 1, tau_plus 0.1; seeds 7-9",
            "have no common seed in MUTAG svm_",
        ),
        ("pairs graphs: infograph", "no column infograph, only MUTAG svm_accuracy"),
        ("overall graphs: image", "the table has no comparisons of image"),
        ("summary graphs: MUTG svm_accuracy", "no column MUTG svm_accuracy, only MUTAG svm_accuracy"),
        (
            "pairs graphs: infograph against hard",
            "no row hard, only untrained encoder; infograph; hard, beta 1,",
        ),
        ("figures graphs: gains", "no figure gains, only gains of hard negatives"),
    ],
)
def test_block_that_cannot_be_filled_is_an_error_of_one_line(results, block, message, capsys):
    page = page_with(results, block)
    [error] = failure_of(main, capsys, ["--results", str(results), "--pages", str(page)])
    assert message in error
    assert "\nold\n" in page.read_text()


@pytest.mark.parametrize("page", EvidenceConfig.pages, ids=lambda page: page.parent.name)
def test_pages_have_what_their_records_say(page):
    assert fill(page, Studies(RESULTS)) == page.read_text(), "run python -m benchmarks.evidence"


def test_interval_in_the_text_is_one_of_the_tables():
    text = (RESULTS / "README.md").read_text()
    written = INTERVAL.findall(BLOCK.sub("", text))
    made = INTERVAL.findall("".join(match.group() for match in BLOCK.finditer(text)))
    assert written
    assert set(written) <= set(made)
