"""``--tensorboard``: event files that TensorBoard reads, also of a run that was interrupted or prolonged."""

import importlib.util
import os
import shutil
import signal

import pytest
import torch
import torch.nn.functional as F

import core.training.loop
from core.training.records import read_record
from core.training.run_folder import Run
from core.training.tracking import pair_similarities
from tests.faults.tiny import TinyCommand, assert_same_run
from tests.runs import failure_of, interrupted_before_step, metrics_of

TRACKED = "--tensorboard"


@pytest.fixture
def events(monkeypatch):
    """A function from a run's folder to its scalars, (step, value) by tag, and its histograms' steps."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files of one second are read in the order of their numbers as text; numbers count in a process.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1000))

    def read(folder):
        everything = {"scalars": 0, "histograms": 0}
        accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance=everything)
        tags = accumulator.Reload().Tags()
        scalars = {
            tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]
        }
        histograms = {
            tag: [event.step for event in accumulator.Histograms(tag)] for tag in tags["histograms"]
        }
        return scalars, histograms

    return read


def assert_close(points, expected):
    assert [step for step, _ in points] == [step for step, _ in expected]
    assert [value for _, value in points] == pytest.approx([value for _, value in expected])


def without_rate(scalars):
    """Scalars that are the same in every run: how fast it trained is not."""
    return {tag: points for tag, points in scalars.items() if tag != "samples_per_second"}


def test_event_files_have_what_the_run_measured(tiny, finished_runs, events, tmp_path):
    """And the run is the same as without them, bit for bit."""
    folder = tmp_path / "run"
    tiny.run_inline(folder, TRACKED)
    scalars, histograms = events(folder)
    lines, record = metrics_of(folder), read_record(folder / "result.json")
    total = max(step for step, _ in scalars["loss"])
    steps = total // record["epochs"]
    assert [step for step, _ in scalars["loss"]] == list(range(1, total + 1))
    assert [step for step, _ in scalars["gradient_norm"]] == list(range(1, total + 1))
    assert all(norm > 0 for _, norm in scalars["gradient_norm"])
    for tag, name in (("epoch/loss", "loss"), ("learning_rate", "learning_rate")):
        expected = [(line["epoch"] * steps, line[name]) for line in lines[1:]]
        assert_close(scalars[tag], expected)
    for name, value in record["metrics"].items():
        expected = [(0, lines[0][name]), (total + 1, value)]
        assert_close(scalars[f"scores/{name}"], expected)
    epochs = [line["epoch"] * steps for line in lines[1:]]
    assert histograms["similarity/pairs"] == epochs
    assert histograms["similarity/positives"] == histograms["similarity/negatives"] == [total + 1]
    [points] = (folder / "tensorboard").rglob("tensors.tsv")
    assert len(points.read_text().splitlines()) > 1
    if tiny.modality != "sentence":  # whose sentences have no labels here
        labels = points.with_name("metadata.tsv").read_text().splitlines()
        assert len(points.read_text().splitlines()) == len(labels)
    assert points.parent.parent.name == f"{total + 1:05}"
    shutil.rmtree(folder / "tensorboard")
    assert_same_run(finished_runs(tiny.modality), tiny, folder)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_resumed_run_continues_its_curves(tiny, events, tmp_path, step):
    """Without doubled or lost points, also if the last checkpoint is behind what was written."""
    tiny.run_inline(tmp_path / "expected", TRACKED)
    folder = tmp_path / "run"
    with interrupted_before_step(step):
        tiny.run_inline(folder, TRACKED, "--checkpoint-seconds", "1000" if step == 4 else "0")
    tiny.run_inline(folder, TRACKED, "--resume")
    scalars, histograms = events(folder)
    expected, expected_histograms = events(tmp_path / "expected")
    assert without_rate(scalars) == without_rate(expected)
    assert histograms == expected_histograms


def test_end_that_was_interrupted_is_written_once(tiny_graph, events, tmp_path, monkeypatch, capsys):
    tiny_graph.run_inline(tmp_path / "expected", TRACKED)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            tiny_graph.run_inline(folder, TRACKED)
    tiny_graph.run_inline(folder, TRACKED, "--resume")
    assert without_rate(events(folder)[0]) == without_rate(events(tmp_path / "expected")[0])
    assert "Embedding dir exists" not in capsys.readouterr().out


def test_run_that_is_trained_longer_has_the_curves_of_one_from_the_start(tiny_graph, events, tmp_path):
    tiny_graph.run_inline(tmp_path / "expected", TRACKED, "--epochs", "5")
    folder = tmp_path / "run"
    tiny_graph.run_inline(folder, TRACKED)
    tiny_graph.run_inline(folder, TRACKED, "--epochs", "5", "--resume")
    assert without_rate(events(folder)[0]) == without_rate(events(tmp_path / "expected")[0])


def test_curves_that_are_asked_for_later_begin_with_the_first_epoch(tiny_graph, events, tmp_path):
    folder = tmp_path / "run"
    tiny_graph.run_inline(folder)
    tiny_graph.run_inline(folder, TRACKED, "--epochs", "5", "--resume")
    steps = [step for step, _ in events(folder)[0]["epoch/loss"]]
    assert len(steps) == 5
    assert steps[1] == 2 * steps[0]


def test_steps_can_be_watched_before_the_epoch_ends(tiny_data, events, tmp_path, monkeypatch):
    """What a checkpoint holds has been written."""
    tiny, folder, seen = TinyCommand("image", tiny_data), tmp_path / "run", []
    optimizer_step = core.training.loop.optimizer_step

    def watch(*arguments):
        if folder.joinpath("tensorboard").exists():
            seen.append(len(events(folder)[0].get("loss", [])))
        return optimizer_step(*arguments)

    monkeypatch.setattr(core.training.loop, "optimizer_step", watch)
    tiny.run_inline(folder, TRACKED)
    assert seen == list(range(len(seen)))


def test_several_seeds_have_curves_of_their_own(tiny_graph, events, tmp_path):
    tiny_graph.run_inline(tmp_path / "{seed}", TRACKED, "--seeds", "0,1")
    first, second = (events(tmp_path / seed)[0]["loss"] for seed in "01")
    assert len(first) == len(second)
    assert first != second


def test_without_tensorboard_one_line_says_what_to_install(tiny_graph, tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    message = failure_of(tiny_graph.main, capsys, [tmp_path / "run", TRACKED])[-1]
    assert message == "error: --tensorboard needs TensorBoard, which is missing: pip install tensorboard"
    assert not (tmp_path / "run").exists()


def test_similarities_are_those_of_different_samples():
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(first, second) for i, first in enumerate(embeddings) for second in embeddings[i + 1 :]]
    expected = [F.cosine_similarity(*pair, dim=0).item() for pair in pairs]
    assert pair_similarities(embeddings).tolist() == pytest.approx(expected)


def test_metrics_are_logged(tiny_graph, tmp_path, caplog, capsys):
    """For programs that train; the command prints none before the end."""
    caplog.set_level("INFO", logger="core")
    tiny_graph.run_inline(tmp_path / "run")
    lines = [record.getMessage() for record in caplog.records if record.name == "core.training.loop"]
    assert lines == [f"{tmp_path / 'run'}: {line}" for line in metrics_of(tmp_path / "run")[1:]]
    assert "loss" not in capsys.readouterr().err
