"""Close sentences among the hardest negatives: hand-made scores, a naive loop, and finished runs."""

import json
import math

import pytest
import torch

from benchmarks.false_negatives import main, shares_of, table_of
from benchmarks.measure import ROOT
from core.io.errors import InputError
from sentence.train import main as train
from shared_eval.table_formats import markdown
from tests.sentence.conftest import write_books, write_tiny_bert

# Three books of six sentences. The first and last of a book have one neighbour and four close negatives of
# sixteen, the four in between two neighbours and three close negatives of fifteen.
POSITIONS, BOOK = torch.arange(18), torch.arange(3).repeat_interleave(6)
EDGES, OTHERS = 6 / 18, 12 / 18  # shares of the anchors


def scores_with(close, far):
    """One score for the anchor's book, one for other books; the highest for positives and the anchor."""
    same_book = BOOK[:, None] == BOOK
    is_positive_or_self = same_book & ((POSITIONS - POSITIONS[:, None]).abs() <= 1)
    return torch.where(same_book, close, far).masked_fill(is_positive_or_self, 100.0)


def test_recorded_page_has_the_table_of_its_runs():
    folder = ROOT / "benchmarks" / "results" / "false-negatives"
    runs = json.loads((folder / "runs.json").read_text())["runs"]
    assert markdown(*table_of(runs)) in (folder / "README.md").read_text()


def test_easy_close_negatives_are_rarer_than_by_chance():
    shares = shares_of(scores_with(0.0, math.log(4)), POSITIONS, BOOK, window=1, distance=5)
    assert shares == {
        "all": pytest.approx(EDGES * 4 / 16 + OTHERS * 3 / 15),
        "top 1": 0.0,
        "top 10": 0.0,
        "beta 0.5": pytest.approx(EDGES * 4 / (4 + 12 * 2) + OTHERS * 3 / (3 + 12 * 2)),
        "beta 1": pytest.approx(EDGES * 4 / (4 + 12 * 4) + OTHERS * 3 / (3 + 12 * 4)),
        "beta 2": pytest.approx(EDGES * 4 / (4 + 12 * 16) + OTHERS * 3 / (3 + 12 * 16)),
    }


def test_hard_close_negatives_lead():
    shares = shares_of(scores_with(math.log(4), 0.0), POSITIONS, BOOK, window=1, distance=5)
    assert shares["top 1"] == 1
    assert shares["top 10"] == pytest.approx(EDGES * 4 / 10 + OTHERS * 3 / 10)
    assert shares["beta 1"] == pytest.approx(EDGES * 16 / (16 + 12) + OTHERS * 12 / (12 + 12))


def test_shares_equal_a_loop_over_pairs():
    """Sentences of two books in one batch, some of them missing; window 2, distance 4."""
    torch.manual_seed(0)
    positions = torch.tensor([3, 4, 5, 6, 7, 9, 10, 11, 14, 15, 16, 17, 18, 30, 31, 32])
    book = torch.tensor([0] * 8 + [1] * 8)
    scores = torch.randn(16, 16, dtype=torch.float64)
    sums, anchors = dict.fromkeys(("all", "top 1", "top 10", "beta 0.5", "beta 1", "beta 2"), 0.0), 0
    for i in range(16):
        away = [abs(int(positions[j] - positions[i])) if book[j] == book[i] else 99 for j in range(16)]
        negatives = sorted((j for j in range(16) if away[j] > 2), key=lambda j: -scores[i, j])
        close = [away[j] <= 4 for j in negatives]
        if len(negatives) < 10:
            continue
        anchors += 1
        sums["all"] += sum(close) / len(close)
        sums["top 1"] += close[0]
        sums["top 10"] += sum(close[:10]) / 10
        for beta in (0.5, 1, 2):
            weights = [math.exp(beta * scores[i, j]) for j in negatives]
            sums[f"beta {beta}"] += sum(w for w, c in zip(weights, close, strict=True) if c) / sum(weights)
    assert anchors > 10
    shares = shares_of(scores, positions, book, window=2, distance=4)
    assert shares == {name: pytest.approx(total / anchors) for name, total in sums.items()}


def test_too_few_negatives_are_an_error():
    with pytest.raises(InputError, match="no sentence of a batch of 6 has 10 negatives"):
        shares_of(torch.zeros(6, 6), POSITIONS[:6], BOOK[:6], window=1, distance=5)


@pytest.fixture
def runs(tmp_path):
    """A function that trains a run with some flags, and returns the folder of all runs."""
    books = write_books(tmp_path / "books")

    def run(name, *flags):
        flags = ["--batch-size", "20", "--lr", "0.05", "--tasks", "none", *flags]
        train(["--dataset", f"folder:{books}", "--output-dir", str(tmp_path / "runs" / name), *flags])
        return tmp_path / "runs"

    return run


def test_runs_of_several_seeds_are_measured_before_and_after(runs, tmp_path, capsys):
    small = ["--objective", "hard", "--encoder", "bow", "--embedding-dim", "8"]
    runs("a", *small, "--seed", "0")
    folder = runs("b", *small, "--seed", "1")
    capsys.readouterr()
    main([str(folder), "--output", str(tmp_path / "shares.json"), "--data-root", str(tmp_path)])
    shares = json.loads((tmp_path / "shares.json").read_text())["runs"]
    assert [run["seed"] for run in shares] == [0, 1]
    for run in shares:
        assert run["before"]["all"] == run["after"]["all"]
        assert run["before"]["beta 2"] != run["after"]["beta 2"]
        assert all(0 <= share <= 1 for when in ("before", "after") for share in run[when].values())
    assert shares[0]["before"]["beta 2"] != shares[1]["before"]["beta 2"]
    table = [line for line in capsys.readouterr().out.splitlines() if "hard, beta 1" in line]
    mean = 50 * sum(run["after"]["top 10"] for run in shares)
    assert f"{mean:.2f} ± " in table[1]


def test_fine_tuned_transformer_is_measured(runs, tmp_path, capsys):
    model = str(write_tiny_bert(tmp_path / "bert"))
    folder = runs("a", "--encoder", "transformer", "--model", model, "--normalize", "--max-steps", "2")
    main([str(folder), "--output", str(tmp_path / "shares.json")])
    [run] = json.loads((tmp_path / "shares.json").read_text())["runs"]
    assert run["objective"] == "hard, beta 1, tau_plus 0.1, bert, normalized"
    assert run["before"]["beta 2"] != run["after"]["beta 2"]


def test_folder_without_runs_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "has no finished run" in capsys.readouterr().err
