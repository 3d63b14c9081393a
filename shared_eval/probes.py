"""Probes: what a simple classifier makes of frozen representations.

Shapes: N samples · D dim.
"""

import os

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from core.errors import InputError

SVM_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def svm_accuracy(
    features: np.ndarray, labels: np.ndarray, seed: int, folds: int = 10, jobs: int | None = None
) -> np.ndarray:
    """Test accuracy of each of ``folds`` stratified folds of an RBF SVM: [N, D], [N] -> [folds].

    The penalty C is chosen inside each training fold by 5-fold search over {0.001 ... 1000}; features are
    not scaled (InfoGraph's and HCL's protocol). Folds depend on labels and seed alone.

    Raises:
        InputError: A class has fewer samples than there are folds, or the features are not finite.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"the labels hold {len(classes)} class; at least 2 are needed to classify")
    if counts.min() < folds:
        raise InputError(
            f"class {classes[counts.argmin()]} has {counts.min()} samples; "
            f"{folds}-fold cross-validation needs at least {folds} of every class"
        )
    if not np.isfinite(features).all():
        raise InputError("the features to classify are not all finite")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)

    def score(train: np.ndarray, test: np.ndarray) -> float:
        search = GridSearchCV(SVC(), {"C": SVM_PENALTIES}, cv=5)
        return search.fit(features[train], labels[train]).score(features[test], labels[test])

    # libsvm works outside Python's global lock: threads use the cores, and cost no start.
    parallel = joblib.Parallel(n_jobs=jobs or os.cpu_count(), prefer="threads")
    return np.array(parallel(joblib.delayed(score)(*fold) for fold in splitter.split(features, labels)))
