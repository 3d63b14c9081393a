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
from benchmarks.references_images import lightly_pairs, our_pairs
from benchmarks.references_senteval import fits_one_by_one
from benchmarks.released_graphs import ReleasedInfoGraph, released_objective
from benchmarks.settings import ReferenceSettings
from core import InfoGraphLoss, NTXentLoss
from graph.batch import make_batches
from graph.data import load_dataset
from graph.encoder import make_models, state_of_run
from image.data import Images
from image.shapes import make_shapes
from shared_eval.probes import knn_accuracy, nested_logistic_accuracy, svm_accuracy


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


def test_fits_one_by_one_score_as_ours_do():
    draw = np.random.default_rng(1)
    labels = np.arange(200) % 2
    features = draw.normal(size=(2, 6))[labels] + 2 * draw.normal(size=(200, 6))
    penalties = (0.25, 1.0, 4.0)
    theirs = fits_one_by_one(features, labels, penalties, folds=4)
    ours = nested_logistic_accuracy(torch.from_numpy(features), torch.from_numpy(labels), penalties, folds=4)
    np.testing.assert_allclose(theirs, ours, atol=0.021)  # a sample of the fifty in a fold
    assert 0.5 < ours.mean() < 1


def test_views_of_a_data_loader_are_spread_as_ours():
    settings = ReferenceSettings(images=64, image_steps=2, workers=0)
    images, labels = map(torch.from_numpy, make_shapes(128, 0))
    theirs = list(lightly_pairs(images, settings, torch.device("cpu"))())
    ours = list(our_pairs(Images(images, labels), settings, torch.device("cpu"))())
    for pairs in (theirs, ours):
        assert [[view.shape for view in pair] for pair in pairs] == [[(64, 3, 32, 32)] * 2] * 2
    stds = [torch.cat([view for pair in pairs for view in pair]).std() for pairs in (theirs, ours)]
    assert stds[0].item() == pytest.approx(stds[1].item(), rel=0.1)
    assert not torch.equal(*theirs[0])
