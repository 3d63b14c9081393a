"""The cross-validated RBF SVM, InfoGraph's and HCL's protocol for graphs.

scikit-learn and joblib are imported when an SVM is fitted: they take as long as torch.

Shapes: N samples · D features.
"""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from core.training.threads import available_cores, given_threads
from shared_eval.probes.checks import check_counts, check_finite


def svm_accuracy(
    features: np.ndarray, labels: np.ndarray, seed: int, folds: int = 10, jobs: int | None = None
) -> np.ndarray:
    """Test accuracy of an RBF SVM on each of ``folds`` stratified folds: [N, D], [N] -> [folds].

    The penalty C is chosen inside each training fold by 5-fold search over {0.001 ... 1000}; features are
    not scaled (InfoGraph's and HCL's protocol). Folds depend only on labels and seed.

    Raises:
        InputError: A class has fewer samples than there are folds, or the features are not finite.
    """
    import joblib

    from shared_eval.svm_folds import CrossValidation

    _check_classifiable(features, labels, folds)
    validation = CrossValidation(features, labels, seed, folds)
    # libsvm releases Python's global lock: threads use all cores and cost nothing to start.
    parallel = joblib.Parallel(jobs or given_threads() or available_cores(), prefer="threads")
    return np.array(parallel(joblib.delayed(validation.accuracy)(*fold) for fold in validation.folds()))


def svm_accuracies(
    features: Sequence[np.ndarray],
    labels: np.ndarray,
    seeds: Sequence[int],
    folds: int = 10,
    jobs: int | None = None,
) -> list[np.ndarray]:
    """``svm_accuracy`` of several representations of the same samples, with a seed for the folds of each.

    Each representation gets a process if ``jobs`` allows several: around small SVMs most of the time goes to
    scikit-learn's Python code, where threads would wait for the global lock.
    """
    processes = min(jobs or given_threads() or available_cores(), len(features))
    pairs = list(zip(features, seeds, strict=True))
    if processes < 2:
        return [svm_accuracy(matrix, labels, seed, folds, jobs) for matrix, seed in pairs]
    for matrix, _ in pairs:
        _check_classifiable(matrix, labels, folds)
    import joblib

    from shared_eval.svm_folds import fold_accuracies

    # A generator: the processes are started here, and waited for outside, where Ctrl-C works again.
    parallel = joblib.Parallel(processes, return_as="generator")
    with _sigint_ignored():
        accuracies = parallel(
            joblib.delayed(fold_accuracies)(matrix, labels, seed, folds) for matrix, seed in pairs
        )
    return list(accuracies)


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all of them; their parent ends them.

    An initializer of the pool would come too late: a process would print a traceback while it still imports.
    """
    if threading.current_thread() is not threading.main_thread():  # only that may set handlers
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _check_classifiable(features: np.ndarray, labels: np.ndarray, folds: int) -> None:
    check_counts(labels, folds, f"{folds}-fold cross-validation")
    check_finite(features)
