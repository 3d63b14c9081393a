"""Probes: how well a simple classifier separates frozen representations."""

from shared_eval.probes.cross_validation import (
    SENTEVAL_SEED,
    Solver,
    best_accuracies,
    choose_penalties,
    fold_masks,
    logistic_accuracies,
    logistic_predictions,
    nested_logistic_accuracy,
)
from shared_eval.probes.knn import knn_accuracy
from shared_eval.probes.linear import linear_probe
from shared_eval.probes.logistic import fit_logistic, predict_logistic
from shared_eval.probes.relatedness import predict_relatedness
from shared_eval.probes.svm import svm_accuracies, svm_accuracy

__all__ = [
    "SENTEVAL_SEED",
    "Solver",
    "best_accuracies",
    "choose_penalties",
    "fit_logistic",
    "fold_masks",
    "knn_accuracy",
    "linear_probe",
    "logistic_accuracies",
    "logistic_predictions",
    "nested_logistic_accuracy",
    "predict_logistic",
    "predict_relatedness",
    "svm_accuracies",
    "svm_accuracy",
]
