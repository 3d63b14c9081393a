"""Probes compared with scikit-learn and with naive loops."""

import math
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from core.io.errors import InputError
from shared_eval import svm_folds
from shared_eval.probes import knn_accuracy, linear_probe, svm_accuracies, svm_accuracy
from shared_eval.svm_folds import SVM_PENALTIES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def samples():
    return make_classification(120, 8, n_informative=4, n_classes=3, random_state=0)


def test_svm_accuracy_equals_scikit_learn_on_every_fold(samples):
    features, labels = samples
    expected = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=7).split(features, labels):
        search = GridSearchCV(SVC(), {"C": [0.001, 0.01, 0.1, 1, 10, 100, 1000]}, cv=5)
        search.fit(features[train], labels[train])
        expected.append((search.predict(features[test]) == labels[test]).mean())
    for jobs in (1, 2):
        np.testing.assert_array_equal(svm_accuracy(features, labels, seed=7, jobs=jobs), expected)
    assert SVM_PENALTIES == (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_several_representations_score_as_each_does_alone(samples, jobs):
    """In this process, and in a pool with a process for each."""
    features, labels = samples
    several, seeds = [features, features[:, :3], features**2], [0, 0, 5]
    scores = svm_accuracies(several, labels, seeds, folds=5, jobs=jobs)
    for matrix, seed, accuracies in zip(several, seeds, scores, strict=True):
        np.testing.assert_array_equal(accuracies, svm_accuracy(matrix, labels, seed, folds=5, jobs=1))


def test_processes_of_a_pool_ignore_ctrl_c(samples, monkeypatch):
    """A terminal sends it to all of them; they would print tracebacks, even while they import."""
    features, labels = samples
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(svm_folds, "fold_accuracies", lambda *arguments: signal.getsignal(signal.SIGINT))
    assert svm_accuracies([features] * 2, labels, [0, 1], jobs=2) == [signal.SIG_IGN] * 2
    assert signal.getsignal(signal.SIGINT) == before


def test_processes_of_a_pool_import_no_torch():
    """Its import would take them longer than many fits."""
    code = "import sys, shared_eval.svm_folds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_pool_can_be_started_by_another_thread(samples):
    features, labels = samples
    with ThreadPoolExecutor(1) as thread:
        scores = thread.submit(svm_accuracies, [features] * 2, labels, [0, 0], folds=5, jobs=2).result()
    np.testing.assert_array_equal(scores[0], scores[1])


def test_folds_depend_only_on_the_seed(samples, monkeypatch):
    """Two encoders at one seed are tested on the same folds, whatever happened before."""
    features, labels = samples
    seen = []
    split = StratifiedKFold.split

    def spy(self, x, y, groups=None):
        folds = list(split(self, x, y))
        if self.n_splits == 10:
            seen.append(np.concatenate([test for _, test in folds]))
        return iter(folds)

    monkeypatch.setattr(StratifiedKFold, "split", spy)
    svm_accuracy(features, labels, seed=1)
    np.random.rand(5)
    svm_accuracy(features * 2 + 1, labels, seed=1)
    svm_accuracy(features, labels, seed=2)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()
    assert sorted(seen[0]) == list(range(120))


def test_random_labels_score_as_guessing(samples):
    """Labels of the test fold are never seen."""
    features, labels = samples
    shuffled = np.random.default_rng(0).permutation(labels)
    assert svm_accuracy(features, shuffled, seed=0).mean() < 0.5


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (np.ones((30, 2)), np.zeros(30), "1 class; at least 2"),
        (np.ones((30, 2)), np.array([0] * 25 + [4] * 5), "class 4 has 5 samples; 10-fold"),
        (np.full((30, 2), np.nan), np.array([0, 1] * 15), "not all finite"),
    ],
)
def test_invalid_samples_are_refused(features, labels, said):
    with pytest.raises(InputError, match=said):
        svm_accuracy(features, labels, seed=0)
    with pytest.raises(InputError, match=said):
        svm_accuracies([features, features], labels, seeds=[0, 1])


def naive_knn(train, train_labels, test, test_labels, neighbours, temperature):
    """One test sample at a time, in float64."""
    correct = 0
    for sample, label in zip(test.double(), test_labels.tolist(), strict=True):
        votes = {}
        similarity = [
            (float(sample @ other / sample.norm() / other.norm()), int(class_))
            for other, class_ in zip(train.double(), train_labels, strict=True)
        ]
        for cosine, class_ in sorted(similarity, reverse=True)[:neighbours]:
            votes[class_] = votes.get(class_, 0) + math.exp(cosine / temperature)
        correct += max(votes, key=votes.get) == label
    return correct / len(test)


@pytest.mark.parametrize("neighbours", [1, 5, 200])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_nearest_neighbours_equal_a_loop(neighbours, chunk):
    torch.manual_seed(0)
    centres = torch.randn(4, 6)
    labels = torch.arange(80) % 4
    features = centres[labels] + 1.5 * torch.randn(80, 6)
    parts = features[:60], labels[:60], features[60:], labels[60:]
    ours = knn_accuracy(*parts, neighbours=neighbours, temperature=0.5, chunk=chunk)
    assert ours == pytest.approx(naive_knn(*parts, min(neighbours, 60), 0.5))
    assert 0.3 < ours <= 1


def test_nearest_neighbours_are_200_at_temperature_a_half_by_default():
    torch.manual_seed(0)
    labels = torch.arange(400) % 10
    features = torch.randn(10, 6)[labels] + 1.5 * torch.randn(400, 6)
    parts = features[:300], labels[:300], features[300:], labels[300:]
    others = [knn_accuracy(*parts, neighbours=n, temperature=t) for n, t in ((20, 0.5), (200, 5.0))]
    assert knn_accuracy(*parts) == pytest.approx(naive_knn(*parts, 200, 0.5))
    assert knn_accuracy(*parts) not in others


def probe_of(train, labels, test, test_labels, classes, **options):
    def batches(epoch):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(32):
            yield train[chosen], labels[chosen]

    return linear_probe(batches, test, test_labels, classes, seed=0, **options)


def test_linear_probe_reaches_scikit_learn():
    features, labels = make_classification(
        600, 10, n_informative=6, n_classes=3, class_sep=1.5, random_state=0
    )
    train, test = (torch.tensor(part, dtype=torch.float32) for part in (features[:400], features[400:]))
    reference = LogisticRegression(C=1e6, max_iter=1000).fit(features[:400], labels[:400])
    parts = (train, torch.tensor(labels[:400]), test, torch.tensor(labels[400:]))
    scores = probe_of(*parts, classes=3, epochs=100)
    assert scores["linear_accuracy"] == pytest.approx(
        reference.score(features[400:], labels[400:]), abs=0.035
    )
    assert scores["linear_top5_accuracy"] == 1
    assert scores == probe_of(*parts, classes=3, epochs=100)


def test_top_five_accuracy_counts_five_ranks(monkeypatch):
    """By a layer that passes the logits on, the sample's class has rank 1, 4, 5 and 6."""

    linear = torch.nn.Linear

    def identity(inputs, outputs):
        layer = linear(inputs, outputs)
        layer.weight.data.copy_(torch.eye(inputs))
        layer.bias.data.zero_()
        return layer

    monkeypatch.setattr("shared_eval.probes.linear.nn.Linear", identity)
    logits = torch.arange(8.0, 0, -1).repeat(4, 1)  # class i has rank i + 1
    scores = probe_of(logits, torch.zeros(4).long(), logits, torch.tensor([0, 3, 4, 5]), classes=8, epochs=0)
    assert scores == {"linear_accuracy": 0.25, "linear_top5_accuracy": 0.75}
