"""Training, resuming and evaluating graph runs, through the commands that users type."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch_geometric.data import Batch, Data

from core.training.cli import parse_config
from graph import scoring
from graph.batch import make_batches
from graph.config import GraphConfig, defaults_for
from graph.data import load_dataset
from graph.encoder import GIN, make_models
from graph.evaluate import main as evaluate_main
from graph.loading import load_encoder
from graph.scoring import evaluate
from graph.train import main as train_main
from shared_eval.probes import svm_accuracy
from tests.graph.conftest import write_tu_dataset
from tests.runs import (
    as_command,
    counted_steps,
    epochs_and_losses,
    failure_of,
    interrupted_before_step,
    losses_of,
    metrics_of,
    result_of,
)

FAST = ["--dataset", "TINY", "--epochs", "4", "--batch-size", "10", "--hidden", "8", "--device", "cpu"]


def train_group(tiny_root, folder, *flags):
    train_main([*FAST, "--data-root", str(tiny_root), "--output-dir", str(folder), *flags])


def train(tiny_root, folder, *flags):
    train_group(tiny_root, folder, *flags)
    return result_of(folder)


def failure(capsys, *flags):
    """The one line that a command with bad input prints."""
    [line] = failure_of(train_main, capsys, flags)
    return line


def train_failure(capsys, tiny_root, folder, *flags):
    """The same for training on TINY in ``folder``."""
    return failure(capsys, *FAST, "--data-root", str(tiny_root), "--output-dir", str(folder), *flags)


def files_of(folder):
    """The content of each file of a run."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finished_run_folder_has_every_file_and_a_full_record(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    result = train(tiny_root, folder, "--objective", "hard", "--beta", "2", "--seed", "3")
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "README.md",
        "checkpoint",
        "config.json",
        "encoder.safetensors",
        "heads.safetensors",
        "metrics.jsonl",
        "result.json",
        "sample.safetensors",
    }
    sample = load_file(folder / "sample.safetensors")
    assert len(sample["representations"]) == len(sample["labels"]) > 0
    assert sample["positives"].abs().max() <= 1.001
    assert len(sample["negatives"]) > len(sample["positives"]) > 0
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
    for name in ("train_seconds", "eval_seconds", "samples_per_second", "peak_memory_bytes"):
        assert result[name] > 0
    assert result["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    settings = json.loads((folder / "config.json").read_text())
    assert settings["lr"] == 1e-3
    assert settings["hidden"] == 8
    lines = metrics_of(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["svm_accuracy"] == result["untrained_metrics"]["svm_accuracy"]
    assert lines[4]["learning_rate"] == 1e-3
    assert f"svm_accuracy {result['metrics']['svm_accuracy']:.4f}" in capsys.readouterr().out


def test_recorded_scores_are_the_svm_s_of_both_encoders(tiny_root, tmp_path):
    """Of the encoder in the folder, and of the one that the seed begins with; some graphs are misjudged."""
    labels = torch.arange(24) // 2 % 2  # not the shapes
    path = tiny_root / "TUDataset" / "TINY" / "raw" / "TINY_graph_labels.txt"
    path.write_text("".join(f"{label}\n" for label in labels))
    result = train(tiny_root, tmp_path / "run", "--seed", "3")
    dataset = load_dataset("TINY", tiny_root)
    graphs = Batch.from_data_list([Data(x=item.x, edge_index=item.edge_index) for item in dataset.graphs])
    with torch.no_grad():
        trained = load_encoder(tmp_path / "run")(graphs).numpy()
    batches = make_batches(dataset, 10, [3], torch.device("cpu"))
    untrained = scoring.represent(make_models(3, hidden=8, layers=3, seeds=[3]).encoder, batches)[0]
    for vectors, name in ((trained, "metrics"), (untrained, "untrained_metrics")):
        expected = svm_accuracy(vectors, labels.numpy(), seed=3).mean()
        assert 0 < expected < 1
        assert result[name] == {"svm_accuracy": pytest.approx(expected, abs=1e-9)}


def test_each_run_has_the_folds_of_its_own_seed(tiny_root):
    """Of two equal encoders."""
    dataset, seeds = load_dataset("TINY", tiny_root), [0, 3]
    encoder = make_models(3, hidden=8, layers=3, seeds=[3, 3]).encoder
    batches = make_batches(dataset, 10, seeds, torch.device("cpu"))
    expected = [
        svm_accuracy(vectors, dataset.labels, seed).mean()
        for vectors, seed in zip(scoring.represent(encoder, batches), seeds, strict=True)
    ]
    found = [scores["svm_accuracy"] for scores in evaluate(encoder, batches, dataset.labels, seeds)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert expected[0] != expected[1]


def test_evaluate_prints_the_recorded_score(tiny_root, tmp_path, capsys):
    result = train(tiny_root, tmp_path / "run", "--seed", "3")
    scores = [result[name]["svm_accuracy"] for name in ("untrained_metrics", "metrics")]
    assert 0 < scores[0] < scores[1] < 1
    capsys.readouterr()
    evaluate_main([str(tmp_path / "run"), "--data-root", str(tiny_root), "--device", "cpu"])
    assert capsys.readouterr().out == f"svm_accuracy {result['metrics']['svm_accuracy']:.4f}\n"


def test_evaluation_computes_with_as_many_threads_as_training(tiny_root, tmp_path, monkeypatch):
    """Sums that are split among threads are rounded in another order."""
    seen, represent = [], scoring.represent
    monkeypatch.setattr(
        scoring, "represent", lambda *a: seen.append(torch.get_num_threads()) or represent(*a)
    )
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(tiny_root, tmp_path / "run", "--seed", "1")
        evaluate_main([str(tmp_path / "run"), "--data-root", str(tiny_root), "--device", "cpu"])
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_evaluation_changes_neither_encoder_nor_random_states(tiny_root):
    """Neither weights and statistics of batch norm, nor the mode, nor the random states."""
    dataset = load_dataset("TINY", tiny_root)
    batches = make_batches(dataset, 10, [0], torch.device("cpu"))
    encoder = GIN(dataset.num_features)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    evaluate(encoder, batches, dataset.labels, [0])
    assert torch.rand(1) == expected
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "flags",
    [(), ("--objective", "infograph"), ("--prior-weight", "0.1")],
    ids=["hard", "infograph", "prior"],
)
def test_resumed_run_has_the_same_weights(tiny_root, tmp_path, flags):
    """Interrupted in its third epoch, with a checkpoint after each step: bit-identical at the end."""
    expected, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    train(tiny_root, expected, *flags)
    with interrupted_before_step(8):  # an epoch has three steps
        train(tiny_root, resumed, "--checkpoint-seconds", "0", *flags)
    assert not (resumed / "result.json").exists()
    with open(resumed / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # as a kill in the middle of a write leaves it
    torch.rand(7)  # a new process has other random states
    with counted_steps() as steps:
        train(tiny_root, resumed, "--resume", *flags)
    assert steps.call_count == 12 - 7  # no step is repeated
    encoders = [(folder / "encoder.safetensors").read_bytes() for folder in (expected, resumed)]
    assert encoders[0] == encoders[1]
    assert epochs_and_losses(resumed) == epochs_and_losses(expected)


def test_bfloat16_changes_the_loss_a_little(tiny_root, tmp_path):
    """Heads and MLPs are in bfloat16, sums over nodes and the objective in float32."""
    train(tiny_root, tmp_path / "bfloat16", "--precision", "bfloat16")
    train(tiny_root, tmp_path / "float32")
    bfloat16, float32 = (losses_of(tmp_path / name)[-1] for name in ("bfloat16", "float32"))
    assert bfloat16 != float32
    assert bfloat16 == pytest.approx(float32, rel=0.2)


def test_resume_of_a_new_folder_trains_from_the_start(tiny_root, tmp_path):
    assert train(tiny_root, tmp_path / "run", "--resume")["epochs"] == 4


def test_finished_run_is_not_trained_again(tiny_root, tmp_path):
    train(tiny_root, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    train(tiny_root, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_finished_run_is_reported_where_its_data_were_removed(tiny_root, tmp_path, capsys):
    """The same command says what it did; with another setting or seed it needs the data."""
    train(tiny_root, tmp_path / "seed-0")
    printed = capsys.readouterr().out
    before = files_of(tmp_path / "seed-0")
    (tiny_root / "TUDataset").rename(tmp_path / "removed")
    printed = f"{printed.rstrip()} (finished before: nothing was trained)\n"
    train(tiny_root, tmp_path / "seed-0")
    assert capsys.readouterr().out == printed
    train_group(tiny_root, tmp_path / "seed-{seed}", "--seeds", "0")
    assert capsys.readouterr().out == printed
    assert files_of(tmp_path / "seed-0") == before
    for flags in (["--lr", "0.5"], ["--seed", "1"]):
        message = train_failure(capsys, tiny_root, tmp_path / "seed-0", *flags)
        assert "--dataset is 'TINY', which is unknown" in message
    message = train_failure(capsys, tiny_root, tmp_path / "seed-{seed}", "--seeds", "0-1")
    assert "--dataset is 'TINY', which is unknown" in message


def test_setting_missing_in_an_older_config_counts_as_its_default(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["variant"], settings["betas"]
    (folder / "config.json").write_text(json.dumps(settings))
    train(tiny_root, folder)
    message = train_failure(capsys, tiny_root, folder, "--variant", "released")
    assert 'variant "corrected" there, "released" now' in message


def test_folder_of_another_run_is_refused_and_unchanged(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    before = files_of(folder)
    message = train_failure(capsys, tiny_root, folder, "--lr", "0.01")
    assert "holds a run of other settings (lr 0.001 there, 0.01 now)" in message
    assert files_of(folder) == before


def test_unfinished_run_without_resume_is_refused(tiny_root, tmp_path, capsys):
    folder = tmp_path / "run"
    train(tiny_root, folder)
    (folder / "result.json").unlink()
    message = train_failure(capsys, tiny_root, folder)
    assert "unfinished, 4 of 4 epochs done; add --resume" in message


def test_folder_with_other_files_is_refused(tiny_root, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds files that are not a run's" in train_failure(capsys, tiny_root, tmp_path)


def test_non_finite_loss_ends_the_command_with_advice(tiny_root, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        train(tiny_root, tmp_path / "run", "--lr", "1e30")
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert "the loss became" in message
    assert "epoch" in message
    assert "try a smaller --lr than 1e+30" in message
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset MUTAGG", "did you mean MUTAG?"),
        (
            "--dataset MUTAG --no-download --data-root nowhere",
            "nowhere/TUDataset/MUTAG/raw has no MUTAG_A.txt",
        ),
        ("--objective simclr", "invalid choice 'simclr'"),
        ("--objective infograph --beta 1", "--objective infograph has beta 0"),
        ("--objective debiased --beta 1", "--objective debiased has beta 0"),
        ("--beta -1", "--beta is -1.0; it must be at least 0"),
        ("--tau-plus 1", "--tau-plus is 1.0; it must be at least 0 and below 1"),
        ("--temperature 0.5", "has none"),
        ("--epochs 0", "--epochs is 0"),
        ("--batch-size 1", "--batch-size is 1; at least 2 graphs"),
        ("--lr 0", "--lr is 0.0"),
        ("--lr fast", "could not convert string to float: 'fast'"),
        ("--device cuda:99", "--device cuda:99 cannot be used"),
        ("--device toaster", "--device toaster cannot be used"),
        ("--layers 0", "--layers is 0"),
        ("--prior-weight -1", "--prior-weight is -1.0"),
        ("--seed -1", "--seed is -1"),
        ("--dataset", "Missing value"),
        ("--betta 1", "Unrecognized options: --betta"),
        ("--seeds 9-0", "--seeds has the range 9-0, which counts down; write 0-9"),
        ("--seeds 0-1000", "and 1000 at most"),
        ("--seeds 0-99999999999999999999", "must be different numbers"),
        ("--seeds 1,1", "--seeds is 1,1; it must be different numbers"),
        ("--seeds 1.5", "--seeds is 1.5"),
        ("--betas 0,x", "--betas is 0,x; it must be different numbers, as 0,1,2,10"),
        ("--betas 0,-1", "--beta is -1.0"),
        ("--seed 1 --seeds 0-3", "--seed is 1 and --seeds 0-3; leave one"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, *flags.split())
    assert not list(tmp_path.rglob("result.json"))


def test_class_with_fewer_graphs_than_folds_is_refused(tmp_path, capsys):
    write_tu_dataset(tmp_path / "data", graphs=12)
    message = train_failure(capsys, tmp_path / "data", tmp_path / "run")
    assert "class 0 has 6 samples; 10-fold cross-validation needs at least 10 of every class" in message


def test_command_line_reports_bad_input_without_a_traceback(tmp_path, capsys):
    [line] = failure_of(as_command("graph.train"), capsys, ["--dataset", "MUTAGG"])
    assert line.startswith("error: --dataset is 'MUTAGG', which is unknown")
    [line] = failure_of(as_command("graph.evaluate"), capsys, [str(tmp_path)])
    assert "is not a run folder" in line


def test_help_shows_the_defaults_of_the_objective(capsys):
    for flags, expected in (
        ([], ("(default: motifs)", "(default: 200)", "(default: 1.0)")),
        (["--objective", "debiased"], ("--beta FLOAT", "(default: 0.0)")),
    ):
        with pytest.raises(SystemExit) as exit_:
            train_main([*flags, "--help"])
        assert not exit_.value.code
        # One line: versions of tyro break lines differently.
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert all(part in text for part in expected)


def test_dataset_of_the_paper_is_trained_with_the_published_settings():
    config = parse_config(GraphConfig, defaults_for, ["--dataset", "MUTAG"], "test")
    published = {"epochs": 200, "batch_size": 128, "lr": 1e-3, "hidden": 32, "layers": 3, "prior_weight": 0.0}
    assert {name: getattr(config, name) for name in published} == published


def test_slug_names_numbers_and_changed_options():
    def slug(**settings):
        return GraphConfig(**settings).checked().objective_slug()

    assert slug(beta=1.0, tau_plus=0.1) == "hard-beta1-tau0.1"
    assert slug(beta=0.0, tau_plus=0.1) == "debiased-tau0.1"
    assert slug(beta=0.0, tau_plus=0.0) == "infograph"
    assert slug(beta=2.5, tau_plus=0.5, variant="released") == "hard-beta2.5-tau0.5-released"
    assert slug(beta=1.0, tau_plus=0.1, stop_gradient=True) == "hard-beta1-tau0.1-stopgradient"
    assert defaults_for("hard", "released").tau_plus == 0.5
    assert defaults_for("debiased").beta == 0
    assert defaults_for("infograph").tau_plus == 0


def test_training_beats_the_untrained_encoder_on_motifs(tmp_path):
    """The untrained score is neither at chance nor near 1, so that training can improve it."""
    train_main(["--epochs", "60", "--output-dir", str(tmp_path), "--device", "cpu"])
    result = result_of(tmp_path)
    untrained = result["untrained_metrics"]["svm_accuracy"]
    assert 0.4 < untrained < 0.8
    assert result["metrics"]["svm_accuracy"] > untrained + 0.03


@pytest.mark.data("TUDataset/MUTAG/raw/MUTAG_graph_labels.txt")
def test_mutag_trains_and_records(data_root, tmp_path):
    flags = ["--dataset", "MUTAG", "--objective", "hard", "--beta", "1", "--epochs", "20"]
    train_main([*flags, "--data-root", str(data_root), "--output-dir", str(tmp_path)])
    result = result_of(tmp_path)
    assert result["metrics"]["svm_accuracy"] > 0.75
