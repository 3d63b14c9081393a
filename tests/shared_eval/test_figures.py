"""Figures draw what is in the records and samples."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from shared_eval import figures
from shared_eval.records import find_records, read_records
from shared_eval.tables import label_versions
from tests.shared_eval.conftest import HARD, write_record


@pytest.fixture
def records(tmp_path):
    for seed in range(3):
        for beta in (0.0, 1.0, 10.0):
            write_record(
                tmp_path / f"{beta}-{seed}",
                seed=seed,
                objective=HARD | {"beta": beta, "name": "hard" if beta else "debiased"},
                metrics={
                    "svm_accuracy": 0.8 + beta / 100 + seed / 1000,
                    "alignment": 0.5 + beta / 100,
                    "uniformity": -2.0 - beta,
                },
            )
    return label_versions(read_records(find_records([tmp_path])))


@pytest.fixture
def accuracies(records):
    return records[records["metric"] == "svm_accuracy"]


def test_accuracy_against_beta(accuracies):
    axes = figures.score_against("beta", accuracies, "MUTAG svm_accuracy").axes[0]
    points, means, untrained = axes.lines
    assert len(points.get_xdata()) == 9
    assert means.get_xdata().tolist() == [0, 1, 10]
    np.testing.assert_allclose(means.get_ydata(), [80.1, 81.1, 90.1])
    assert untrained.get_ydata() == pytest.approx([70.0, 70.0])
    assert figures.score_against("beta", accuracies[accuracies["beta"] == 1], "MUTAG") is None


def test_each_version_has_its_own_line(accuracies):
    changes = {"value": accuracies["value"] - 0.3, "untrained": accuracies["untrained"] - 0.3}
    other = accuracies.assign(revision="def5678", **changes)
    both = label_versions(pd.concat([accuracies, other]).drop(columns="version"))
    axes = figures.score_against("beta", both, "MUTAG").axes[0]
    assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == [
        "tau_plus 0.1, abc1234",
        "tau_plus 0.1, def5678",
        "untrained encoder, abc1234",
        "untrained encoder, def5678",
    ]
    assert [line.get_ydata()[0] for line in axes.lines[4:]] == pytest.approx([70.0, 40.0])
    np.testing.assert_allclose(axes.lines[3].get_ydata(), [50.1, 51.1, 60.1])


def test_score_against_epochs_has_a_line_for_each_beta(accuracies):
    lengths = pd.concat([accuracies.assign(epochs=epochs, value=epochs / 100) for epochs in (5, 20)])
    axes = figures.score_against("epochs", label_versions(lengths), "MUTAG").axes[0]
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert labels == [f"beta {beta}, tau_plus 0.1" for beta in (0, 1, 10)] + ["untrained encoder"]
    assert axes.lines[1].get_xdata().tolist() == [5, 20]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [5, 20])
    assert figures.score_against("epochs", accuracies, "MUTAG") is None


def test_training_curves(tmp_path):
    (tmp_path / "run").mkdir()
    lines = [{"epoch": 0, "svm_accuracy": 0.5}, {"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = figures.training_curves({"hard": tmp_path / "run", "gone": tmp_path / "gone"}, "MUTAG")
    [line] = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata().tolist() == [2.0, 1.0]
    assert figures.training_curves({"gone": tmp_path / "gone"}, "MUTAG") is None


def a_sample():
    draw = np.random.default_rng(0)
    return {
        "representations": draw.normal(size=(30, 5)).astype(np.float32),
        "labels": np.arange(30) % 3,
        "positives": draw.uniform(0.5, 1, 20).astype(np.float32),
        "negatives": draw.uniform(-1, 0.5, 80).astype(np.float32),
    }


def test_histograms_and_map_have_a_panel_for_each_objective():
    samples = {"simclr": a_sample(), "hard": a_sample()}
    histograms = figures.similarity_histograms(samples, "shapes")
    assert [axes.get_title(loc="left") for axes in histograms.axes] == ["simclr", "hard"]
    heights = [patch.get_height() for patch in histograms.axes[0].patches]
    assert sum(heights) == pytest.approx(2)  # each of the two histograms adds up to one
    panels = figures.embedding_map(samples, "shapes").axes
    assert len(panels) == 2
    assert [len(points.get_offsets()) for points in panels[0].collections] == [10, 10, 10]
    without_labels = {name: value for name, value in a_sample().items() if name != "labels"}
    [points] = figures.embedding_map({"hard": without_labels}, "shapes").axes[0].collections
    assert len(points.get_offsets()) == 30
    assert figures.similarity_histograms({}, "shapes") is None
    assert figures.embedding_map({"hard": {"positives": np.ones(3)}}, "shapes") is None


def test_histograms_are_of_the_cosines_that_they_name():
    sample = a_sample()
    [axes] = figures.similarity_histograms({"hard": sample}, "shapes").axes
    _, labels = axes.get_legend_handles_labels()
    bars = dict(zip(labels, axes.containers, strict=True))
    assert bars.keys() == {"negatives", "positives"}
    for name, container in bars.items():
        counts, _ = np.histogram(sample[name], np.linspace(-1, 1, 61))
        heights = [bar.get_height() for bar in container]
        np.testing.assert_allclose(heights, counts / len(sample[name]), atol=1e-9)
    edges = [bar.get_x() for bar in bars["positives"]]
    np.testing.assert_allclose(edges, np.linspace(-1, 1, 61)[:-1], atol=1e-9)


def test_map_is_of_the_two_directions_of_most_variance():
    """By singular vectors, whose signs are free; the first two features vary least."""
    sample = a_sample()
    sample["representations"] = sample["representations"] * [0.01, 0.01, 1, 2, 3]
    centred = sample["representations"] - sample["representations"].mean(0)
    _, _, directions = np.linalg.svd(centred)
    expected = centred @ directions[:2].T
    [axes] = figures.embedding_map({"hard": sample}, "shapes").axes
    for class_, points in enumerate(axes.collections):
        offsets = np.asarray(points.get_offsets())
        np.testing.assert_allclose(abs(offsets), abs(expected[sample["labels"] == class_]), atol=1e-5)


def test_alignment_against_uniformity(records):
    axes = figures.alignment_against_uniformity(records, "MUTAG").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("uniformity", "alignment")
    points = {
        line.get_label(): [*zip(line.get_xdata(), line.get_ydata(), strict=True)] for line in axes.lines
    }
    assert points == {  # of three seeds each
        "debiased, tau_plus 0.1": [(-2.0, 0.5)] * 3,
        "hard, beta 1, tau_plus 0.1": [(-3.0, 0.51)] * 3,
        "hard, beta 10, tau_plus 0.1": [(-12.0, 0.6)] * 3,
    }
    assert figures.alignment_against_uniformity(records[records["metric"] == "svm_accuracy"], "MUTAG") is None


def test_figure_is_saved_as_png_and_svg(tmp_path, accuracies):
    paths = figures.save(figures.score_against("beta", accuracies, "MUTAG"), tmp_path / "figure")
    content = [path.read_bytes() for path in paths]
    figures.save(figures.score_against("beta", accuracies, "MUTAG"), tmp_path / "figure")
    assert [path.read_bytes() for path in paths] == content
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in paths[1].read_text()


def test_invalid_samples_are_not_read(tmp_path):
    assert figures.read_sample(tmp_path) is None
    (tmp_path / "sample.safetensors").write_bytes(b"cut")
    assert figures.read_sample(tmp_path) is None
    safetensors.numpy.save_file(a_sample(), tmp_path / "sample.safetensors")
    assert figures.read_sample(tmp_path).keys() == a_sample().keys()
    sample = a_sample()
    del sample["labels"]
    safetensors.numpy.save_file(sample, tmp_path / "sample.safetensors")
    assert figures.read_sample(tmp_path).keys() == sample.keys()
    sample = a_sample()
    for change in (
        {"representations": sample["representations"][0]},
        {"representations": sample["representations"][:, :1]},
        {"labels": sample["labels"][1:]},
        {"positives": sample["positives"].reshape(-1, 1)},
        {"negatives": np.full_like(sample["negatives"], np.nan)},
    ):
        safetensors.numpy.save_file(sample | change, tmp_path / "sample.safetensors")
        assert figures.read_sample(tmp_path) is None


def test_colours_and_marks_are_all_different():
    assert len(set(figures.COLOURS)) == len(set(figures.MARKS)) == 8
