"""Training, resuming and evaluating graph runs, through the commands that users type."""

import json

import pytest
import torch
from safetensors.torch import load_file

import core.training.loop
import core.training.run_folder
import graph.config
import graph.encoder
import graph.train
from core import InfoGraphLoss
from graph.batch import make_batches
from graph.config import GraphConfig, defaults_for
from graph.data import load_dataset
from graph.evaluate import main as evaluate_main
from graph.scoring import evaluate
from graph.train import main as train_main
from tests.runs import as_command, failure_of, metrics_of

FAST = ["--dataset", "TINY", "--epochs", "4", "--batch-size", "10", "--hidden", "8", "--device", "cpu"]


def train(tiny_root, folder, *flags):
    train_main([*FAST, "--data-root", str(tiny_root), "--output-dir", str(folder), *flags])
    return json.loads((folder / "result.json").read_text())


def failure(capsys, *flags):
    """The one line that a command with bad input prints."""
    [line] = failure_of(train_main, capsys, flags)
    return line


def test_a_run_folder(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(tiny_root, folder, "--objective", "hard", "--beta", "2", "--seed", "3")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "checkpoint",
        "config.json",
        "encoder.safetensors",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    kept = load_file(folder / "sample.safetensors")
    assert len(kept["representations"]) == len(kept["labels"]) > 0
    assert kept["positives"].abs().max() <= 1.001
    assert len(kept["negatives"]) > len(kept["positives"]) > 0
    assert result["schema"] == 1
    assert result["modality"] == "graph"
    assert result["dataset"] == "TINY"
    assert result["objective"] == {
        "name": "hard",
        "beta": 2.0,
        "tau_plus": 0.1,
        "temperature": None,
        "variant": "corrected",
        "stop_gradient": False,
        "encoder": None,
        "slug": "hard-beta2-tau0.1",
        "label": "hard, beta 2, tau_plus 0.1",
        "family": "",
        "plain_family": "",
    }
    assert (result["seed"], result["epochs"]) == (3, 4)
    for scores in (result["metrics"], result["untrained_metrics"]):
        assert 0 <= scores["svm_accuracy"] <= 1
    for name in ("train_seconds", "eval_seconds", "samples_per_second", "peak_memory_bytes"):
        assert result[name] > 0
    assert result["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    settings = json.loads((folder / "config.json").read_text())
    assert settings["lr"] == 1e-3
    assert settings["hidden"] == 8
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["svm_accuracy"] == result["untrained_metrics"]["svm_accuracy"]
    assert lines[4]["learning_rate"] == 1e-3
    assert f"svm_accuracy {result['metrics']['svm_accuracy']:.4f}" in capsys.readouterr().out


def test_evaluate_repeats_the_number(tiny_root, tmp_path, capsys):
    result = train(tiny_root, tmp_path / "run", "--seed", "1")
    capsys.readouterr()
    evaluate_main([str(tmp_path / "run"), "--data-root", str(tiny_root), "--device", "cpu"])
    assert capsys.readouterr().out == f"svm_accuracy {result['metrics']['svm_accuracy']:.4f}\n"


def test_evaluation_leaves_the_encoder_as_it_is(tiny_root):
    """Batch norm's statistics, the mode and the random states do not move."""
    dataset = load_dataset("TINY", tiny_root)
    batches = make_batches(dataset, 10, [0], torch.device("cpu"))
    encoder = graph.encoder.GIN(dataset.num_features)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    evaluate(encoder, batches, dataset.labels, [0])
    assert torch.rand(1) == expected
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("flags", [(), ("--objective", "infograph"), ("--prior-weight", "0.1")])
def test_a_resumed_run_ends_in_the_same_weights(tiny_root, tmp_path, monkeypatch, flags):
    """Stopped in its third epoch, with a checkpoint after each: bit-identical to the end."""
    train(tiny_root, tmp_path / "whole", *flags)
    optimizer_step, taken = core.training.loop.optimizer_step, []

    def stop_in_the_third(*arguments):
        taken.append(1)
        if len(taken) == 8:  # an epoch has three steps
            raise KeyboardInterrupt
        return optimizer_step(*arguments)

    monkeypatch.setattr(core.training.loop, "optimizer_step", stop_in_the_third)
    with pytest.raises(SystemExit):
        train(tiny_root, tmp_path / "stopped", "--checkpoint-seconds", "0", *flags)
    assert not (tmp_path / "stopped" / "result.json").exists()
    with open(tmp_path / "stopped" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # as a kill in the middle of a write would leave it
    torch.rand(7)  # another process would have other random states
    train(tiny_root, tmp_path / "stopped", "--resume", *flags)
    whole, stopped = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    metrics = [
        [
            (line["epoch"], line.get("loss"))
            for line in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        ]
        for name in ("whole", "stopped")
    ]
    assert metrics[0] == metrics[1]


TOGETHER = ["--seeds", "0-1", "--betas", "0,2"]


def losses_of(folder):
    return [line["loss"] for line in metrics_of(folder)[1:]]


def test_runs_together_are_the_runs_one_by_one(tiny_root, tmp_path):
    """The same folders, and the same numbers but for rounding."""
    train_main([*FAST, "--data-root", str(tiny_root), "--output-dir", str(tmp_path / "together"), *TOGETHER])
    folders = sorted(path.parent for path in (tmp_path / "together").rglob("result.json"))
    assert [str(folder.relative_to(tmp_path / "together")) for folder in folders] == [
        f"{objective}/seed-{seed}"
        for objective in ("debiased-tau0.1", "hard-beta2-tau0.1")
        for seed in (0, 1)
    ]
    for folder in folders:
        settings = json.loads((folder / "config.json").read_text())
        flags = [f"--{name}={settings[name]}" for name in ("objective", "beta", "seed")]
        alone = tmp_path / "alone" / folder.relative_to(tmp_path / "together")
        result = train(tiny_root, alone, *flags)
        together = json.loads((folder / "result.json").read_text())
        assert together["trained_together"] == 4
        assert together["objective"] == result["objective"]
        assert together["untrained_metrics"] == result["untrained_metrics"]
        assert losses_of(folder) == pytest.approx(losses_of(alone), rel=1e-3)
        states = [load_file(of / "encoder.safetensors") for of in (folder, alone)]
        for name, value in states[0].items():
            torch.testing.assert_close(value, states[1][name], rtol=0.02, atol=0.02)
        config = json.loads((alone / "config.json").read_text())
        assert settings | {"output_dir": ""} == config | {"output_dir": ""}


def test_runs_stopped_between_their_checkpoints_go_on(tiny_root, tmp_path, monkeypatch):
    """Killed while the checkpoints of a group were written: some runs stand an epoch before the others."""
    where = ["--data-root", str(tiny_root), "--output-dir"]
    train_main([*FAST, *where, str(tmp_path / "whole"), *TOGETHER])
    save_checkpoint, saved = core.training.run_folder.Run.save_checkpoint, []

    def stop_after_ten(run, state):
        saved.append(1)
        if len(saved) == 11:
            raise KeyboardInterrupt
        save_checkpoint(run, state)

    monkeypatch.setattr(core.training.run_folder.Run, "save_checkpoint", stop_after_ten)
    often = ["--checkpoint-seconds", "0"]
    with pytest.raises(SystemExit):
        train_main([*FAST, *where, str(tmp_path / "stopped"), *TOGETHER, *often])
    train_main([*FAST, *where, str(tmp_path / "stopped"), *TOGETHER, "--resume"])
    for whole in (tmp_path / "whole").rglob("metrics.jsonl"):
        stopped = tmp_path / "stopped" / whole.relative_to(tmp_path / "whole")
        assert losses_of(stopped.parent) == pytest.approx(losses_of(whole.parent), rel=1e-3)
        assert (stopped.parent / "result.json").exists()


def test_one_that_diverges_does_not_stop_the_others(tiny_root, tmp_path, monkeypatch, capsys):
    """Its folder says why, the others are finished, and the exit code tells of it."""
    forward = InfoGraphLoss.forward

    def not_a_number_at_beta_2(loss, *arguments):
        astray = torch.tensor([float("nan") if beta == 2 else 0.0 for beta in loss.beta])
        return forward(loss, *arguments) + astray

    monkeypatch.setattr(InfoGraphLoss, "forward", not_a_number_at_beta_2)
    with pytest.raises(SystemExit) as exit_:
        train_main([*FAST, "--data-root", str(tiny_root), "--output-dir", str(tmp_path / "runs"), *TOGETHER])
    assert exit_.value.code == 1
    assert "the loss became nan in epoch 1, step 1" in capsys.readouterr().err
    for seed in (0, 1):
        debiased, hard = (
            tmp_path / "runs" / of / f"seed-{seed}" for of in ("debiased-tau0.1", "hard-beta2-tau0.1")
        )
        assert json.loads((debiased / "result.json").read_text())["metrics"]
        assert json.loads((hard / "failure.json").read_text())["reason"] == "non-finite loss"
        assert not (hard / "result.json").exists()


def test_half_precision_trains(tiny_root, tmp_path):
    """Heads and MLPs in bfloat16, sums over nodes and the objective in float32."""
    train(tiny_root, tmp_path / "half", "--precision", "bfloat16")
    train(tiny_root, tmp_path / "full")
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("half", "full")]
    half, full = (json.loads(text[-1])["loss"] for text in lines)
    assert half != full
    assert half == pytest.approx(full, rel=0.2)


def test_resume_starts_anew_where_there_is_nothing(tiny_root, tmp_path):
    assert train(tiny_root, tmp_path / "run", "--resume")["epochs"] == 4


def test_a_finished_run_is_not_run_again(tiny_root, tmp_path):
    train(tiny_root, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    train(tiny_root, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_a_setting_that_came_later_was_at_its_default_before(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["variant"], settings["betas"]
    (folder / "config.json").write_text(json.dumps(settings))
    train(tiny_root, folder)
    where = ["--data-root", str(tiny_root), "--output-dir", str(folder)]
    assert 'variant "corrected" there, "released" now' in failure(
        capsys, *FAST, *where, "--variant", "released"
    )


def test_a_folder_with_another_run_is_left_alone(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    where = ["--data-root", str(tiny_root), "--output-dir", str(folder)]
    said = failure(capsys, *FAST, *where, "--lr", "0.01")
    assert "holds a run of other settings (lr 0.001 there, 0.01 now)" in said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_unfinished_run_asks_for_resume(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    (folder / "result.json").unlink()
    said = failure(capsys, *FAST, "--data-root", str(tiny_root), "--output-dir", str(folder))
    assert "unfinished, 4 of 4 epochs done; add --resume" in said


def test_a_folder_of_something_else(tiny_root, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    said = failure(capsys, *FAST, "--data-root", str(tiny_root), "--output-dir", str(tmp_path))
    assert "holds files that are not a run's" in said


def test_a_loss_that_is_no_number(tiny_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        train(tiny_root, tmp_path / "run", "--lr", "1e30")
    assert exit_.value.code == 1
    said = capsys.readouterr().err
    assert "the loss became" in said
    assert "epoch" in said
    assert "try a smaller --lr than 1e+30" in said
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "MUTAGG"], "did you mean MUTAG?"),
        (
            ["--dataset", "MUTAG", "--data-root", "nowhere"],
            "nowhere/TUDataset/MUTAG/raw has no MUTAG_A.txt",
        ),
        (["--objective", "simclr"], "invalid choice 'simclr'"),
        (["--objective", "infograph", "--beta", "1"], "--objective infograph has beta 0"),
        (["--objective", "debiased", "--beta", "1"], "--objective debiased has beta 0"),
        (["--beta", "-1"], "--beta is -1.0; it must be at least 0"),
        (["--tau-plus", "1"], "--tau-plus is 1.0; it must be at least 0 and below 1"),
        (["--temperature", "0.5"], "has none"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--batch-size", "1"], "--batch-size is 1; at least 2 graphs"),
        (["--lr", "0"], "--lr is 0.0"),
        (["--lr", "fast"], "could not convert string to float: 'fast'"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used"),
        (["--device", "toaster"], "--device toaster cannot be used"),
        (["--layers", "0"], "--layers is 0"),
        (["--prior-weight", "-1"], "--prior-weight is -1.0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--dataset"], "Missing value"),
        (["--betta", "1"], "Unrecognized options: --betta"),
        (["--seeds", "9-0"], "--seeds is 9-0; it must be different numbers, as 0-9 or 0,3,5"),
        (["--seeds", "0-1000"], "and 1000 at most"),
        (["--seeds", "0-99999999999999999999"], "must be different numbers"),
        (["--seeds", "1,1"], "--seeds is 1,1; it must be different numbers"),
        (["--seeds", "1.5"], "--seeds is 1.5"),
        (["--betas", "0,x"], "--betas is 0,x; it must be different numbers, as 0,1,2,10"),
        (["--betas", "0,-1"], "--beta is -1.0"),
        (["--seed", "1", "--seeds", "0-3"], "--seed is 1 and --seeds 0-3; leave one"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    assert said in failure(capsys, *flags)
    assert not list(tmp_path.rglob("result.json"))


def test_too_few_graphs_of_a_class(tmp_path, capsys):
    from tests.graph.conftest import write_tu_dataset

    write_tu_dataset(tmp_path / "data", graphs=12)
    said = failure(
        capsys, *FAST, "--data-root", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")
    )
    assert "class 0 has 6 samples; 10-fold cross-validation needs at least 10 of every class" in said


def test_as_a_command_without_a_traceback(tmp_path, capsys):
    [line] = failure_of(as_command("graph.train"), capsys, ["--dataset", "MUTAGG"])
    assert line.startswith("error: --dataset is 'MUTAGG', which is unknown")
    [line] = failure_of(as_command("graph.evaluate"), capsys, [str(tmp_path)])
    assert "is not a run folder" in line


def test_help_shows_the_defaults_of_what_is_named(capsys):
    for flags, shown in (
        ([], ("(default: motifs)", "(default: 200)", "(default: 1.0)")),
        (["--objective", "debiased"], ("--beta FLOAT", "(default: 0.0)")),
    ):
        with pytest.raises(SystemExit) as exit_:
            train_main([*flags, "--help"])
        assert not exit_.value.code
        text = capsys.readouterr().out
        assert all(part in text for part in shown)


def test_objectives_are_named_by_their_numbers():
    def named(**settings):
        return GraphConfig(**settings).checked().objective_slug()

    assert named(beta=1.0, tau_plus=0.1) == "hard-beta1-tau0.1"
    assert named(beta=0.0, tau_plus=0.1) == "debiased-tau0.1"
    assert named(beta=0.0, tau_plus=0.0) == "infograph"
    assert named(beta=2.5, tau_plus=0.5, variant="released") == "hard-beta2.5-tau0.5-released"
    assert named(beta=1.0, tau_plus=0.1, stop_gradient=True) == "hard-beta1-tau0.1-stopgradient"
    assert defaults_for("hard", "released").tau_plus == 0.5
    assert defaults_for("debiased").beta == 0
    assert defaults_for("infograph").tau_plus == 0


def test_training_beats_the_untrained_encoder_on_motifs(tmp_path):
    """The embedded dataset leaves room, and training uses some of it."""
    train_main(["--epochs", "60", "--output-dir", str(tmp_path), "--device", "cpu"])
    result = json.loads((tmp_path / "result.json").read_text())
    untrained = result["untrained_metrics"]["svm_accuracy"]
    assert 0.4 < untrained < 0.8
    assert result["metrics"]["svm_accuracy"] > untrained + 0.03


@pytest.mark.data("TUDataset/MUTAG")
def test_mutag_trains_and_records(data_root, tmp_path):
    flags = ["--dataset", "MUTAG", "--objective", "hard", "--beta", "1", "--epochs", "20"]
    train_main([*flags, "--data-root", str(data_root), "--output-dir", str(tmp_path)])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["svm_accuracy"] > 0.75
    assert result["eval_seconds"] < 5
