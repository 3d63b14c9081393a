"""The SVM probe against scikit-learn used by hand."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from core.errors import InputError
from shared_eval.probes import SVM_PENALTIES, svm_accuracy


@pytest.fixture(scope="module")
def samples():
    return make_classification(120, 8, n_informative=4, n_classes=3, random_state=0)


def test_equals_scikit_learn_fold_by_fold(samples):
    features, labels = samples
    expected = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=7).split(features, labels):
        search = GridSearchCV(SVC(), {"C": [0.001, 0.01, 0.1, 1, 10, 100, 1000]}, cv=5)
        search.fit(features[train], labels[train])
        expected.append((search.predict(features[test]) == labels[test]).mean())
    for jobs in (1, 2):
        np.testing.assert_array_equal(svm_accuracy(features, labels, seed=7, jobs=jobs), expected)
    assert SVM_PENALTIES == (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def test_folds_depend_on_the_seed_alone(samples, monkeypatch):
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


def test_labels_of_the_test_fold_are_never_seen(samples):
    """With labels that have nothing to do with the features, accuracy is that of guessing."""
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
def test_what_cannot_be_scored(features, labels, said):
    with pytest.raises(InputError, match=said):
        svm_accuracy(features, labels, seed=0)
