"""The folds of the cross-validated RBF SVM.

Outside the package ``probes``, whose import brings torch: the processes of a pool import only this module and
start quickly.

Shapes: N samples · D features.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn import config_context
from sklearn.metrics import euclidean_distances
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

SVM_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


class CrossValidation:
    """Stratified folds of one set of features, each scored on its own: [N, D], [N].

    Distances are computed once for all SVMs of all folds; a test compares the accuracies with those of
    scikit-learn's GridSearchCV.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, seed: int, folds: int) -> None:
        self.features, self.labels = features.astype(np.float64), labels
        self.distances = euclidean_distances(self.features, squared=True)
        self.splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices of the training and the test samples of each fold."""
        return self.splitter.split(self.features, self.labels)

    def accuracy(self, train: np.ndarray, test: np.ndarray) -> float:
        """Test accuracy on one fold, the penalty chosen by 5-fold search inside its training samples."""
        # scikit-learn's checks of its input would take as long as these small fits themselves.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            inner = StratifiedKFold(5).split(train, self.labels[train])
            means = np.mean([self._accuracies(train[a], train[b], SVM_PENALTIES) for a, b in inner], axis=0)
            return self._accuracies(train, test, [SVM_PENALTIES[means.argmax()]])[0]

    def _accuracies(self, train: np.ndarray, test: np.ndarray, penalties: Sequence[float]) -> list[float]:
        """Test accuracy for each penalty; gamma is scikit-learn's default, computed on the training part."""
        variance = self.features[train].var()
        gamma = 1 / (self.features.shape[1] * variance) if variance > 0 else 1.0
        of_train, of_test = self._kernel(train, train, gamma), self._kernel(test, train, gamma)
        labels = self.labels[train]
        svms = [SVC(C=penalty, kernel="precomputed").fit(of_train, labels) for penalty in penalties]
        return [float((svm.predict(of_test) == self.labels[test]).mean()) for svm in svms]

    def _kernel(self, rows: np.ndarray, columns: np.ndarray, gamma: float) -> np.ndarray:
        """The RBF kernel of some samples with others, computed in one copy of their distances."""
        kernel = self.distances[np.ix_(rows, columns)]
        kernel *= -gamma
        return np.exp(kernel, out=kernel)


def fold_accuracies(features: np.ndarray, labels: np.ndarray, seed: int, folds: int) -> np.ndarray:
    """Test accuracy of every fold, one after the other: [N, D], [N] -> [folds]."""
    validation = CrossValidation(features, labels, seed, folds)
    return np.array([validation.accuracy(*fold) for fold in validation.folds()])
