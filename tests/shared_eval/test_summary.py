"""What tables answer over several datasets, in text and in figures, compared with values by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from shared_eval.planned import Plan, Primary, PublishedScore, planned_together
from shared_eval.records import find_records, read_records
from shared_eval.statistics import Ranks
from shared_eval.summary import modality_rows, primary_rows, summarise_modalities
from shared_eval.table_figures import _groups, critical_difference, draw_table, forest, gain_maps
from shared_eval.tables import summarise
from tests.shared_eval.conftest import HARD, PLAIN, write_record

DATASETS = ("DD", "MUTAG", "PTC_MR")
DEBIASED = {"name": "debiased", "beta": 0.0, "tau_plus": 0.1, "variant": "corrected"}
PRIMARY = planned_together(
    "graphs",
    (
        Primary(f"{dataset} svm_accuracy", 200, "", 0.1, 1.0, baseline)
        for dataset in DATASETS
        for baseline in ("beta 0", "plain", "untrained")
    ),
)
PUBLISHED = {
    ("one: hard, beta 1, tau_plus 0.1", "MUTAG svm_accuracy"): PublishedScore(0.90),
    ("one: hard, beta 2, tau_plus 0.1", "MUTAG svm_accuracy"): PublishedScore(0.10),
    ("one: infograph", "MUTAG svm_accuracy"): PublishedScore(0.88),
    ("two: hard, on GraphCL", "MUTAG svm_accuracy"): PublishedScore(0.80),
    ("two: debiased, on GraphCL", "MUTAG svm_accuracy"): PublishedScore(0.83),
    ("three: infograph", "DD svm_accuracy"): PublishedScore(0.7),
}


@pytest.fixture
def table(tmp_path):
    """Three datasets, eight seeds; hard gains 2 points on DD, loses 1 on MUTAG, and is level on PTC_MR.

    Those are gains over plain; debiased is half a point below plain on each.
    """
    for dataset, gain in zip(DATASETS, (0.02, -0.01, 0.0), strict=True):
        for seed in range(8):
            noise = 0.002 * (seed - 3.5)
            for objective, value in ((PLAIN, 0.8), (DEBIASED, 0.795 + noise), (HARD, 0.8 + gain + noise)):
                folder = tmp_path / dataset / objective["name"] / str(seed)
                metrics = {"svm_accuracy": value}
                write_record(folder, dataset=dataset, seed=seed, objective=objective, metrics=metrics)
    return summarise(read_records(find_records([tmp_path])), published=PUBLISHED, primary=PRIMARY)


def test_every_primary_comparison_has_a_line(table):
    rows = primary_rows(table)
    assert len(rows) == 3 * 3
    label = "hard, beta 1, tau_plus 0.1"
    first = rows[0]
    assert first == [
        f"DD svm_accuracy: {label}",
        "beta 0",
        "+2.5 [2.5, 2.5]",
        "0.070",
        "8",
        "",
        "no [2.50, 2.50]",
    ]
    level = next(row for row in rows if row[:2] == [f"PTC_MR svm_accuracy: {label}", "plain"])
    # The differences are 0.002 (seed - 3.5): deviation 0.49 points, 90 % interval +- 0.33. No difference is
    # detectable: the smallest p of eight seeds, 0.0078, is 0.07 after correction for nine comparisons.
    assert level[3:] == ["1.000", "8", "", "yes [-0.33, 0.33]"]


def test_gains_and_ranks_of_a_modality(table):
    [summary] = summarise_modalities(table)
    assert (summary.modality, len(summary.columns)) == ("graph", 3)
    assert summary.gains["beta 0"].estimate == pytest.approx(0.005 + (0.02 - 0.01) / 3)
    assert summary.gains["plain"].estimate == pytest.approx((0.02 - 0.01) / 3)
    assert summary.gains["untrained"].estimate == pytest.approx(0.1 + 0.01 / 3)
    assert summary.gains["plain"].low < 0 < summary.gains["plain"].high
    # Hard is the first, the third, and level with plain.
    assert summary.ranks.means == {
        "untrained encoder": 4.0,
        "infograph": pytest.approx((2 + 1 + 1.5) / 3),
        "debiased, tau_plus 0.1": pytest.approx((3 + 2 + 3) / 3),
        "hard, beta 1, tau_plus 0.1": pytest.approx((1 + 3 + 1.5) / 3),
    }


def test_ranks_are_listed_from_the_best_after_the_gains(table):
    assert [row[1:3] for row in modality_rows(table)[3:-1]] == [
        ["mean rank: infograph", "1.50"],
        ["mean rank: hard, beta 1, tau_plus 0.1", "1.83"],
        ["mean rank: debiased, tau_plus 0.1", "2.67"],
        ["mean rank: untrained encoder", "4.00"],
    ]
    assert modality_rows(table)[-1][1] == "critical difference of mean ranks"


def test_oracles_and_published_figures_have_no_rank(tmp_path):
    """Both have a cell in every column, as the objectives have."""
    for dataset in DATASETS:
        for objective in (PLAIN, HARD, HARD | {"beta": 2.0}):
            folder = tmp_path / dataset / f"{objective['name']}-{objective['beta']}"
            write_record(folder, dataset=dataset, objective=objective)
    published = {("one: infograph", f"{dataset} svm_accuracy"): PublishedScore(0.9) for dataset in DATASETS}
    table = summarise(read_records(find_records([tmp_path])), published=published, primary=PRIMARY)
    assert {row.kind for row in table.rows} == {"untrained", "objective", "oracle", "published"}
    [summary] = summarise_modalities(table)
    assert set(summary.ranks.means) == {
        "untrained encoder",
        "infograph",
        "hard, beta 1, tau_plus 0.1",
        "hard, beta 2, tau_plus 0.1",
    }


def test_ranks_compare_common_seeds(tmp_path):
    """On DD hard has two more seeds, easy ones: at the two that all have it is the worse one."""

    def write(dataset, name, objective, values):
        for seed, value in enumerate(values):
            folder = tmp_path / dataset / name / str(seed)
            scored = {"metrics": {"svm_accuracy": value}, "untrained_metrics": {}}
            write_record(folder, dataset=dataset, seed=seed, objective=objective, **scored)

    for dataset in ("DD", "MUTAG"):
        write(dataset, "plain", PLAIN, [0.80, 0.80])
        write(dataset, "hard", HARD, [0.79, 0.79, 0.99, 0.99] if dataset == "DD" else [0.79, 0.79])
    [summary] = summarise_modalities(summarise(read_records(find_records([tmp_path])), primary=PRIMARY))
    assert summary.ranks.means == {"infograph": 1.0, "hard, beta 1, tau_plus 0.1": 2.0}


def test_forest_has_a_line_for_each_dataset_and_hollow_published_gains(table):
    axes = forest(table).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"graph: {d} svm" for d in DATASETS]
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    drawn = {line.get_fillstyle(): [] for line in points}
    for line in points:
        drawn[line.get_fillstyle()].append(float(line.get_xdata()[0]))
    assert drawn["full"] == pytest.approx([2, -1, 0, 2.5, -0.5, 0.5])  # over plain, then over debiased
    # Of the source's betas that of the comparison counts; a source without a baseline has no gain.
    assert drawn["none"] == pytest.approx([2, -3])


def test_forest_draws_each_gain_with_its_interval_at_a_height_of_its_own(table):
    """Over plain the differences are the gain and the noise of ``table``; over debiased all are equal."""
    axes = forest(table).axes[0]
    lines = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    points = [line for line in lines if line.get_fillstyle() == "full" and len(line.get_xdata()) == 1]
    intervals = [line for line in lines if len(line.get_xdata()) == 2]
    heights = [line.get_ydata()[0] for line in points]
    assert heights == pytest.approx([-0.15, 0.85, 1.85, 0.15, 1.15, 2.15])
    assert [line.get_ydata()[0] for line in intervals] == heights
    assert [line.get_color() for line in intervals] == [line.get_color() for line in points]
    noise = 0.2 * (np.arange(8) - 3.5)
    reach = stats.t.ppf(0.975, 7) * stats.sem(noise)
    assert reach > 0.3
    for line, gain in zip(intervals[:3], (2, -1, 0), strict=True):
        assert line.get_xdata() == pytest.approx([gain - reach, gain + reach])
    for line, gain in zip(intervals[3:], (2.5, -0.5, 0.5), strict=True):
        assert line.get_xdata() == pytest.approx([gain, gain])


def test_forest_of_a_folder_with_a_long_path_fits_its_figure(tmp_path):
    """The folder is named without its path, and nothing is cut off."""
    dataset = "folder:/a/long/path/to/a/folder/of/images below/my photos"
    for objective, value in ((PLAIN, 0.8), (HARD, 0.82)):
        folder = tmp_path / objective["name"]
        write_record(folder, dataset=dataset, objective=objective, metrics={"svm_accuracy": value})
    named = [Primary(f"{dataset} svm_accuracy", 200, "", 0.1, 1.0, "plain")]
    primary = planned_together("one", named)
    figure = forest(summarise(read_records(find_records([tmp_path])), primary=primary))
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["graph: folder:my photos svm"]
    figure.draw_without_rendering()  # lays it out
    width, used = figure.get_size_inches()[0], figure.get_tightbbox()
    assert 0 <= used.x0 < used.x1 <= width


def test_no_primary_comparison_is_no_figure(table, tmp_path):
    exploratory = summarise(read_records(find_records([tmp_path])))
    assert forest(exploratory) is None
    assert draw_table(exploratory) == {}
    assert primary_rows(exploratory) == modality_rows(exploratory) == []
    assert set(draw_table(table)) == {"gains of hard negatives", "graph: mean ranks"}


def test_versions_are_summarised_apart(tmp_path):
    """Two lengths of training with opposite gains: neither a mean over both nor a family of both.

    The smallest p of 6 and of 5 seeds, 1/32 and 1/16, are corrected together: they are one plan.
    """
    for epochs, gain, seeds in ((5, 0.05, 6), (200, -0.05, 5)):
        for seed in range(seeds):
            noise = 0.001 * seed
            for objective, value in ((PLAIN, 0.8), (HARD, 0.8 + gain + noise)):
                folder = tmp_path / str(epochs) / objective["name"] / str(seed)
                metrics = {"svm_accuracy": value}
                write_record(folder, seed=seed, epochs=epochs, objective=objective, metrics=metrics)
    [plain] = [key for key in PRIMARY if key.column.startswith("MUTAG") and key.baseline == "plain"]
    planned = planned_together("one", [plain, plain._replace(epochs=5)])
    table = summarise(read_records(find_records([tmp_path])), primary=planned)
    short, long = summarise_modalities(table)
    assert (short.modality, long.modality) == ("graph @ epochs 5", "graph @ epochs 200")
    assert short.gains["plain"].low > 0.04
    assert long.gains["plain"].high < -0.04
    assert [row[3] for row in primary_rows(table)] == ["0.062", "0.062"]
    [axes] = forest(table).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["graph: MUTAG svm @ epochs 5", "graph: MUTAG svm @ epochs 200"]


def test_comparison_counts_at_each_revision(tmp_path):
    """One planned comparison of p 1/128, made at two revisions, counts as two: neither is a second chance."""
    for revision in ("aaaaaaa", "bbbbbbb"):
        for seed in range(8):
            for objective, value in ((PLAIN, 0.8), (HARD, 0.81 + 0.001 * seed)):
                write_record(
                    tmp_path / revision / objective["name"] / str(seed),
                    seed=seed,
                    objective=objective,
                    metrics={"svm_accuracy": value},
                    environment={"revision": revision},
                )
    [plain] = [key for key in PRIMARY if key.column.startswith("MUTAG") and key.baseline == "plain"]
    table = summarise(read_records(find_records([tmp_path])), primary=planned_together("one", [plain]))
    assert [row[3] for row in primary_rows(table)] == ["0.016", "0.016"]


def test_each_gain_names_its_number_of_datasets(table):
    """MUTAG and PTC_MR have no debiased runs: that gain is of one dataset, with an interval of its seeds."""
    rows = [
        replace(row, cells={c: cell for c, cell in row.cells.items() if c.startswith("DD")})
        if row.label.startswith("debiased")
        else replace(
            row,
            cells={
                column: replace(
                    cell,
                    comparisons=tuple(
                        c for c in cell.comparisons if c.baseline != "beta 0" or column.startswith("DD")
                    ),
                )
                for column, cell in row.cells.items()
            },
        )
        for row in table.rows
    ]
    gains = [row[1:] for row in modality_rows(replace(table, rows=rows)) if " - " in row[1]]
    assert [(what, count) for what, _, count in gains] == [
        ("primary objective - beta 0", "1"),
        ("primary objective - plain", "3"),
        ("primary objective - untrained", "3"),
    ]


def test_two_primary_objectives_have_a_summary_each(tmp_path):
    """Otherwise a seed would count twice, and the mean would be of no objective."""
    for seed in range(8):
        for objective, value in ((PLAIN, 0.80), (HARD, 0.83), (HARD | {"beta": 2.0}, 0.81)):
            folder = tmp_path / f"{objective['name']}-{objective['beta']}" / str(seed)
            write_record(folder, seed=seed, objective=objective, metrics={"svm_accuracy": value})
    [plain] = [key for key in PRIMARY if key.column.startswith("MUTAG") and key.baseline == "plain"]
    planned = planned_together("one", [plain, plain._replace(beta=2.0)])
    first, second = summarise_modalities(summarise(read_records(find_records([tmp_path])), primary=planned))
    assert first.modality == "graph, hard, beta 1, tau_plus 0.1"
    assert second.modality == "graph, hard, beta 2, tau_plus 0.1"
    assert first.gains["plain"].estimate == pytest.approx(0.03)
    assert second.gains["plain"].estimate == pytest.approx(0.01)


def test_detectable_is_that_of_a_t_test_where_a_corrected_p_can_be_significant(tmp_path):
    for seed in range(8):
        for objective, value in ((PLAIN, 0.8), (HARD, 0.8 + 0.002 * (seed - 3.5))):
            folder = tmp_path / objective["name"] / str(seed)
            write_record(folder, seed=seed, objective=objective, metrics={"svm_accuracy": value})
    [plain] = [key for key in PRIMARY if key.column.startswith("MUTAG") and key.baseline == "plain"]
    for planned, expected in ((1, "0.6"), (6, "0.6"), (7, "")):
        table = summarise(read_records(find_records([tmp_path])), primary={plain: Plan("one", planned)})
        [row] = primary_rows(table)
        assert row[5] == expected


def test_bars_join_ranks_within_the_critical_difference(table):
    assert _groups([1.0, 1.5, 2.6, 4.0], 1.2) == [(1.0, 1.5), (1.5, 2.6)]
    assert _groups([1.0, 1.5, 2.0], 1.2) == [(1.0, 2.0)]
    assert _groups([1.0, 3.0], 1.2) == []
    [summary] = summarise_modalities(table)
    axes = critical_difference(summary.ranks, "graph").axes[0]
    assert [text.get_text() for text in axes.texts][-2:] == [
        "untrained encoder (4.00)",
        f"critical difference {summary.ranks.critical:.2f}",
    ]


def test_bars_are_as_long_as_the_ranks_that_they_join():
    ranks = Ranks({"a": 1.0, "b": 1.5, "c": 2.6, "d": 4.0}, datasets=10, critical=1.2)
    axes = critical_difference(ranks, "graph").axes[0]
    bars = [line for line in axes.lines if line.get_linewidth() == 3]
    assert [line.get_xdata() for line in bars] == [
        pytest.approx(ends) for ends in ((0.97, 1.53), (1.47, 2.63))
    ]
    assert len({line.get_ydata()[0] for line in bars}) == 2  # they overlap
    [scale] = [line for line in axes.lines if line.get_marker() == "|"]
    assert scale.get_xdata() == pytest.approx([1, 2.2])


def test_cell_of_two_rows_is_empty_in_a_map(tmp_path):
    """Two labels at one beta and tau_plus, as records by different code may have."""
    families = {"family": "", "plain_family": "", "encoder": None}
    for tau_plus in (0.0, 0.1):
        for beta in (0.0, 1.0):
            for label in ("one", "two") if beta and tau_plus else (f"{beta}, {tau_plus}",):
                objective = {"name": "hard", "beta": beta, "tau_plus": tau_plus, "label": label} | families
                write_record(tmp_path / label, objective=objective)
    table = summarise(read_records(find_records([tmp_path])))
    texts = gain_maps(table, "MUTAG svm_accuracy").axes[0].texts
    assert sorted(text.get_position() for text in texts) == [(0, 1), (1, 0)]


def test_map_marks_gains_whose_interval_excludes_0(tmp_path):
    """At beta 0 and tau_plus 0 is the plain objective itself, which has no gain."""
    for seed in range(6):
        for tau_plus in (0.0, 0.1):
            for beta in (0.0, 1.0):
                name = "hard" if beta else "debiased" if tau_plus else "infograph"
                value = 0.8 + 0.1 * beta * tau_plus + 0.001 * beta * (-1) ** seed
                write_record(
                    tmp_path / f"{tau_plus}-{beta}-{seed}",
                    seed=seed,
                    objective=HARD | {"name": name, "beta": beta, "tau_plus": tau_plus},
                    metrics={"svm_accuracy": value},
                )
    table = summarise(read_records(find_records([tmp_path])))
    figure = gain_maps(table, "MUTAG svm_accuracy")
    axes = figure.axes[0]
    texts = {
        (int(text.get_position()[0]), int(text.get_position()[1])): text.get_text() for text in axes.texts
    }
    assert texts == {(0, 1): "+0.0", (1, 0): "+0.0", (1, 1): "+1.0\n*"}
    image = axes.images[0].get_array()
    assert np.ma.is_masked(image[0, 0]) or np.isnan(image[0, 0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_map_has_beta_across_and_tau_plus_upwards(tmp_path):
    """Losses are as dark as gains, in the other colour."""
    gains = {(0.0, 0.0): 0, (0.0, 1.0): 1, (0.0, 5.0): 2, (0.1, 0.0): -3, (0.1, 1.0): 4, (0.1, 5.0): -6}
    for (tau_plus, beta), gain in gains.items():
        name = "hard" if beta else "debiased" if tau_plus else "infograph"
        objective = HARD | {"name": name, "beta": beta, "tau_plus": tau_plus}
        metrics = {"svm_accuracy": 0.8 + gain / 100}
        write_record(tmp_path / f"{tau_plus}-{beta}", objective=objective, metrics=metrics)
    axes = gain_maps(summarise(read_records(find_records([tmp_path]))), "MUTAG svm_accuracy").axes[0]
    [image] = axes.images
    np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), [[np.nan, 1, 2], [-3, 4, -6]])
    assert image.origin == "lower"
    assert image.get_clim() == pytest.approx((-9, 9))
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (1, 0): "+1.0",
        (2, 0): "+2.0",
        (0, 1): "-3.0",
        (1, 1): "+4.0",
        (2, 1): "-6.0",
    }
    for axis, name, labels in ((axes.xaxis, "beta", "0 1 5"), (axes.yaxis, "tau_plus", "0 0.1")):
        assert axis.get_label_text() == name
        assert axis.get_ticklocs().tolist() == list(range(len(labels.split())))
        assert [label.get_text() for label in axis.get_ticklabels()] == labels.split()
