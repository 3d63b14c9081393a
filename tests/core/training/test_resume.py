"""What the loop saves and continues from, on a toy task of four steps an epoch."""

import contextlib
import io
from unittest import mock

import pytest
import torch

from core.io.errors import DivergedError
from core.training import checkpoints
from core.training.checkpointer import Stopwatch
from tests.core.training.toy import ToyTask, saved, stop_before, toy_config, train, train_until_stopped
from tests.processes import in_processes
from tests.runs import epochs_and_losses, metrics_of


def constant_from(*first):
    """A ``before_step`` that makes all embeddings constant from an epoch and a step on."""

    def collapse(model, *now):
        if now >= first:
            with torch.no_grad():
                model.weight.zero_()

    return collapse


@pytest.mark.parametrize("step", [3, 4])
def test_nothing_collapsed_is_saved_also_at_the_end_of_an_epoch(tmp_path, step):
    collapsed, good = toy_config(tmp_path / "collapsed"), toy_config(tmp_path / "good")
    train_until_stopped(ToyTask(before_step=stop_before(1, step)), [good])
    with pytest.raises(DivergedError, match="embeddings became constant"):
        train(ToyTask(before_step=constant_from(1, step)), [collapsed])
    epoch, steps, weight = saved(collapsed.output_dir)
    assert (epoch, steps) == (1, step - 1)
    assert torch.equal(weight, saved(good.output_dir)[2])
    assert weight.any()


def test_constant_steps_are_counted_on_across_epochs(tmp_path):
    """Eight at the end of the first epoch and two of the second are ten."""
    with pytest.raises(DivergedError) as error:
        train(ToyTask(steps=12, before_step=constant_from(1, 5)), [toy_config(tmp_path / "run")])
    assert error.value.epoch == 2
    assert saved(tmp_path / "run")[:2] == (1, 4)


class EqualAtTheEnd(ToyTask):
    """The samples of the last batch of the second epoch are equal."""

    def batches(self, epoch):
        for _, step, inputs in super().batches(epoch):
            yield epoch, step, inputs[:1].expand_as(inputs) if (epoch, step) == (2, 4) else inputs


def test_state_after_the_last_epoch_is_saved_although_the_last_batch_was_constant(tmp_path):
    train(EqualAtTheEnd(), [toy_config(tmp_path / "run")])
    assert saved(tmp_path / "run")[:2] == (3, 0)
    train(EqualAtTheEnd(), [toy_config(tmp_path / "longer", epochs=3)])
    assert saved(tmp_path / "longer")[:2] == (4, 0)


def train_with_and_without_a_stop(folder):
    """Of two processes the second one's inputs are three times as large, so their losses differ."""
    train(ToyTask(), [toy_config(folder / "expected")])
    stopped = toy_config(folder / "stopped", resume=True)
    train_until_stopped(ToyTask(before_step=stop_before(1, 4)), [stopped])
    train(ToyTask(), [stopped])


@pytest.mark.distributed
def test_losses_of_two_processes_are_the_same_after_a_stop_inside_an_epoch(tmp_path):
    in_processes(2, train_with_and_without_a_stop, tmp_path)
    assert epochs_and_losses(tmp_path / "stopped") == epochs_and_losses(tmp_path / "expected")
    assert torch.equal(saved(tmp_path / "stopped")[2], saved(tmp_path / "expected")[2])


def damage_newest(folder):
    path = max((folder / "checkpoint").glob("*.pt"), key=lambda path: checkpoints.read_checkpoint(path)[1])
    path.write_bytes(path.read_bytes()[:-1])
    return path


def resume(config):
    """What resuming prints on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        train(ToyTask(), [config])
    return printed.getvalue()


def test_checkpoints_are_read_and_warned_of_once(tmp_path):
    config = toy_config(tmp_path / "run", resume=True)
    train_until_stopped(ToyTask(before_step=stop_before(2, 2)), [config])
    path = damage_newest(config.output_dir)
    with mock.patch.object(checkpoints, "read_checkpoint", wraps=checkpoints.read_checkpoint) as reads:
        assert resume(config).count(f"{path} cannot be used") == 1
    assert reads.call_count == 2  # the damaged one and the one before it
    assert saved(config.output_dir)[:2] == (3, 0)


@pytest.mark.distributed
def test_one_of_two_processes_warns_of_a_damaged_checkpoint(tmp_path):
    config = toy_config(tmp_path / "run", resume=True)
    train_until_stopped(ToyTask(before_step=stop_before(2, 2)), [config])
    path = damage_newest(config.output_dir)
    printed = in_processes(2, resume, config)
    assert [text.count(f"{path} cannot be used") for text in printed] == [1, 0]


def test_times_are_shares_of_a_run_also_if_it_is_resumed_alone(tmp_path, monkeypatch):
    """Four runs take 8 s for each of four steps and for the end of an epoch."""
    monkeypatch.setattr(Stopwatch, "lap", lambda stopwatch: 8.0)
    configs = [toy_config(tmp_path / str(number), resume=True) for number in range(4)]
    train_until_stopped(ToyTask(runs=4, before_step=stop_before(2, 3)), configs)
    alone, together = train(ToyTask(), configs[:1]), train(ToyTask(runs=3), configs[1:])
    first, half = 5 * 8 / 4, 2 * 8 / 4  # seconds of the first epoch and of half of the second
    for result, number, runs in ((alone, 0, 1), (together, 3, 3)):
        second = half + 3 * 8 / runs
        assert result.seconds == pytest.approx(runs * [first + second])
        speeds = [line["samples_per_second"] for line in metrics_of(tmp_path / str(number))[1:]]
        assert speeds == pytest.approx([4 * 8 / first, 4 * 8 / second], abs=0.05)
    longer = [toy_config(tmp_path / str(number), resume=True, epochs=3) for number in range(4)]
    expected = [before + first for before in alone.seconds + together.seconds]
    assert train(ToyTask(runs=4), longer).seconds == pytest.approx(expected)
