"""Graphs without labels: the same vectors as with them, and scores that need none."""

import pytest
import torch
import torch.nn.functional as F

from graph.batch import make_batches
from graph.data import GraphDataset, load_dataset
from graph.encoder import GIN, InfoGraph
from graph.evaluate import main as evaluate_main
from graph.graphs import Graph
from graph.scoring import evaluate_without_labels
from graph.train import main as train_main
from shared_eval.metrics import effective_rank
from shared_eval.records import read_records
from shared_eval.tables import scores, summarise
from tests.graph.conftest import copy_without_labels
from tests.graph.test_graph_train import FAST, train
from tests.runs import as_printed, failure_of, metrics_of, printed_scores, result_of

CPU = torch.device("cpu")
SCORES = [
    "effective_rank",
    "positive_similarity",
    "negative_similarity",
    "hardest_negative_similarity",
    "own_graph_accuracy",
]


@pytest.fixture
def bare_root(tiny_root, tmp_path):
    """A data root with TINY without its labels."""
    copy_without_labels(tiny_root, tmp_path / "bare", "TINY")
    return tmp_path / "bare"


def test_run_without_labels_has_the_same_encoder_and_says_so(tiny_root, bare_root, tmp_path, capsys):
    train(tiny_root, tmp_path / "labelled")
    capsys.readouterr()
    result = train(bare_root, tmp_path / "bare-run")
    assert "TINY has no labels: scores are those that need none" in capsys.readouterr().err
    encoders = [tmp_path / name / "encoder.safetensors" for name in ("labelled", "bare-run")]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    assert result["labels"] == "none"
    assert "labels" not in result_of(tmp_path / "labelled")
    assert list(result["metrics"]) == list(result["untrained_metrics"]) == SCORES
    assert {name: metrics_of(tmp_path / "bare-run")[0][name] for name in SCORES} == result[
        "untrained_metrics"
    ]
    assert 0 < result["metrics"]["own_graph_accuracy"] <= 1
    assert result["files"].keys() == {
        "encoder.safetensors",
        "heads.safetensors",
        "sample.safetensors",
    }


def test_scores_without_labels_equal_a_loop_over_nodes(tiny_root):
    """In double precision, with one score after the other."""
    dataset = load_dataset("TINY", tiny_root)
    torch.manual_seed(0)
    models = InfoGraph(GIN(dataset.num_features, 8))
    for value in models.state_dict().values():
        value.copy_(torch.rand_like(value) - 0.4)
    for value in models.buffers():
        value.copy_(torch.rand_like(value) + 0.5)
    batches = make_batches(dataset, 10, [3], CPU)
    [found] = evaluate_without_labels(models, batches)

    models.eval()
    sums = dict.fromkeys(SCORES[1:], 0.0)
    nodes, representations = 0, []
    for batch in batches:
        with torch.no_grad():
            local, global_, graphs = (value[0].double() for value in models(batch))
        representations.append(graphs)
        for row, own, weight in zip(batch.node[0], batch.graph[0], batch.weight[0], strict=True):
            copies = round(weight.item() * batch.count.item())
            products = [local[row] @ other for other in global_]
            cosines = [F.cosine_similarity(local[row], other, dim=0).item() for other in global_]
            others = cosines[:own] + cosines[own + 1 :]
            best = max(products)
            ties = [i for i, product in enumerate(products) if abs(product - best) <= 1e-5 * abs(best)]
            nodes += copies
            sums["positive_similarity"] += copies * cosines[own]
            sums["negative_similarity"] += copies * sum(others) / len(others)
            sums["hardest_negative_similarity"] += copies * max(others)
            sums["own_graph_accuracy"] += copies * (1 / len(ties) if own in ties else 0)
    assert nodes == 120
    expected = {name: total / nodes for name, total in sums.items()}
    expected["effective_rank"] = effective_rank(torch.cat(representations))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_equal_graphs_share_the_credit():
    """Of four equal graphs none can be found: each node is right by chance, in a quarter of all draws."""
    ring = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])
    dataset = GraphDataset("rings", [Graph(ring, 3, x=torch.ones(3, 2)) for _ in range(4)], None)
    torch.manual_seed(0)
    [found] = evaluate_without_labels(InfoGraph(GIN(2, 8)), make_batches(dataset, 4, [0], CPU))
    assert found["own_graph_accuracy"] == pytest.approx(0.25)
    assert found["positive_similarity"] == pytest.approx(found["hardest_negative_similarity"], abs=1e-5)
    assert found["effective_rank"] == pytest.approx(1, abs=1e-4)


def test_evaluate_prints_the_recorded_scores(bare_root, tmp_path, capsys):
    result = train(bare_root, tmp_path / "run", "--seed", "1")
    flags = [tmp_path / "run", "--data-root", bare_root, "--device", "cpu"]
    assert printed_scores(evaluate_main, capsys, flags) == as_printed(result["metrics"])


def test_evaluate_scores_with_the_labels_that_are_there(tiny_root, bare_root, tmp_path, capsys):
    """A run without labels where there are some now, and the other way round, which needs the heads."""
    train(bare_root, tmp_path / "run")
    expected = train(tiny_root, tmp_path / "labelled")["metrics"]
    flags = [tmp_path / "run", "--data-root", tiny_root, "--device", "cpu"]
    assert printed_scores(evaluate_main, capsys, flags) == as_printed(expected)
    flags = [str(tmp_path / "labelled"), "--data-root", str(bare_root), "--device", "cpu"]
    expected = train(bare_root, tmp_path / "bare-run")["metrics"]
    assert printed_scores(evaluate_main, capsys, flags) == as_printed(expected)
    (tmp_path / "labelled" / "heads.safetensors").unlink()  # as an older version left the folder
    line = failure_of(evaluate_main, capsys, flags)[-1]
    assert "TINY has no labels, and the run in" in line
    assert "put the file with the labels back" in line


def test_runs_trained_together_have_the_scores_of_single_runs(bare_root, tmp_path):
    train_main(
        [*FAST, "--data-root", str(bare_root), "--output-dir", str(tmp_path / "{seed}"), "--seeds", "0,1"]
    )
    for seed in (0, 1):
        single = train(bare_root, tmp_path / f"single-{seed}", "--seed", str(seed))
        together = result_of(tmp_path / str(seed))
        assert together["untrained_metrics"] == pytest.approx(single["untrained_metrics"], rel=1e-3)
        assert together["labels"] == "none"


def test_table_shows_what_describes_runs_without_labels(bare_root, tmp_path):
    result = train(bare_root, tmp_path / "run")
    table = summarise(scores(read_records([tmp_path / "run" / "result.json"])))
    shown = {f"TINY {name}": name for name in ("own_graph_accuracy", "effective_rank", "positive_similarity")}
    assert shown.keys() <= set(table.columns)
    untrained, trained = table.rows
    for row, part in ((untrained, "untrained_metrics"), (trained, "metrics")):
        for column, name in shown.items():
            assert row.cells[column].mean == result[part][name]
            assert not row.cells[column].is_score


def test_changed_labels_are_other_data(tiny_root, bare_root, tmp_path, capsys):
    """A run that began with labels does not resume without them."""
    train(tiny_root, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    flags = [*FAST, "--data-root", bare_root, "--output-dir", tmp_path / "run", "--resume"]
    assert "the data are not those that the run in" in failure_of(train_main, capsys, map(str, flags))[-1]


@pytest.mark.data("TUDataset/MUTAG/raw/MUTAG_graph_labels.txt")
def test_mutag_without_labels_has_the_vectors_of_the_labelled_run(mutag_runs):
    encoders = [mutag_runs / name / "encoder.safetensors" for name in ("labelled", "bare")]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    metrics, untrained = (result_of(mutag_runs / "bare")[name] for name in ("metrics", "untrained_metrics"))
    assert metrics["own_graph_accuracy"] > untrained["own_graph_accuracy"]
