"""The alternatives that are timed compute the same as ours."""

import sys

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from benchmarks import alternatives
from benchmarks.evaluation import NEIGHBOURS, TEMPERATURE, sklearn_neighbours, svm_in_a_loop
from benchmarks.measure import Findings
from benchmarks.objective import ObjectiveSettings, make_views, same_loss
from benchmarks.released_graphs import ReleasedInfoGraph, released_objective
from core import InfoGraphLoss, NTXentLoss
from graph.batch import make_batches
from graph.data import load_dataset
from graph.encoder import make_models, state_of_run
from shared_eval.probes import knn_accuracy, svm_accuracy


@pytest.mark.parametrize(
    "name", ["pytorch-metric-learning NTXentLoss", "pytorch-metric-learning SupConLoss", "lightly NTXentLoss"]
)
def test_losses_of_other_libraries_equal_nt_xent(name):
    losses = alternatives.nt_xent_losses(0.3)
    if name not in losses:
        pytest.skip(f"{name.split()[0]} is not installed: make bench installs it")
    views = make_views(20, 16, "cpu")
    torch.testing.assert_close(losses[name](*views), NTXentLoss(0.3)(*views), rtol=1e-5, atol=0)
    assert not {"pytorch_lightning", "lightning"} & set(sys.modules)


def test_loss_with_another_definition_is_left_out_with_a_note(monkeypatch):
    def half(view1, view2):
        return NTXentLoss(0.5)(view1, view2) / 2

    monkeypatch.setattr(alternatives, "nt_xent_losses", lambda temperature: {"half": half})
    findings = Findings()
    assert "half" not in same_loss(ObjectiveSettings(), findings)
    assert "half is not NT-Xent as SimCLR defines it: it differs by 5.0e-01" in findings.notes[0]


def test_missing_libraries_are_noted(monkeypatch):
    monkeypatch.setattr(alternatives, "LIBRARIES", dict.fromkeys(alternatives.LIBRARIES))
    findings = Findings()
    assert all(name.startswith("ours") for name in same_loss(ObjectiveSettings(), findings))
    assert findings.notes == ["pytorch-metric-learning: not installed.", "lightly: not installed."]


def test_released_infograph_equals_ours():
    dataset = load_dataset("motifs", None)
    batch = make_batches(dataset, 16, [0], torch.device("cpu"))[0]
    model = make_models(dataset.num_features, 32, 3, seeds=[0])
    reference = ReleasedInfoGraph(dataset.num_features)
    state = {name: x for name, x in state_of_run(model, 0).items() if not name.startswith("prior")}
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    graphs = Batch.from_data_list([Data(**vars(dataset.graphs[i])) for i in batch.positions[0].tolist()])
    local, global_, _ = model(batch)
    ours = InfoGraphLoss(0.0, 0.0)(local, global_, batch.graph, batch.node, batch.weight)
    theirs = released_objective(*reference(graphs), graphs.batch)
    torch.testing.assert_close(theirs, ours.squeeze(0), rtol=1e-4, atol=1e-5)


def test_scikit_learn_scores_equal_ours():
    draw = np.random.default_rng(0)
    labels = np.arange(240) % 3
    features = draw.normal(size=(3, 8))[labels] + 0.8 * draw.normal(size=(240, 8))
    np.testing.assert_array_equal(
        svm_in_a_loop(features[:90], labels[:90]), svm_accuracy(features[:90], labels[:90], seed=0)
    )
    parts = [
        torch.from_numpy(array) for array in (features[:200], labels[:200], features[200:], labels[200:])
    ]
    ours = knn_accuracy(*parts, neighbours=NEIGHBOURS, temperature=TEMPERATURE)
    assert sklearn_neighbours(*parts)() == pytest.approx(ours, abs=1e-9)
    assert 1 / 3 < ours < 1
