"""Evaluation of frozen representations compared with the usual ways in scikit-learn and PyTorch."""

from collections.abc import Callable, Iterable
from statistics import mean

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Findings, interleaved, operator_seconds, seconds_of, summary
from benchmarks.settings import EvaluationSettings
from core.io.errors import InputError
from core.training.config import default_data_root
from core.training.seeding import epoch_order, seed_everything
from graph.batch import make_batches
from graph.data import GraphDataset, load_dataset
from graph.encoder import GIN
from graph.scoring import represent
from sentence.corpora import find_corpus
from sentence.data import encode_corpus
from sentence.encoder import TwoEncoders
from sentence.scoring import FOLDS, PENALTIES, embed
from sentence.tasks import load_task
from shared_eval.probes import knn_accuracy, linear_probe, nested_logistic_accuracy, svm_accuracy
from shared_eval.svm_folds import SVM_PENALTIES

TITLE = "Evaluation"
ABOUT = (
    "Each probe on frozen features: the SVM on those of an untrained GIN, the nested logistic regression on "
    "those of untrained GRUs, nearest neighbours and the linear probe on random ones around a centre for "
    "each class (their time does not depend on the features). scikit-learn one by one: the time of one "
    "LogisticRegression at each penalty, times the number of fits of the protocol. scikit-learn always runs "
    "on the CPU, and so does our SVM, which is scikit-learn's with one thread per fold."
)
NEIGHBOURS, TEMPERATURE = 200, 0.5
BATCH = 512  # of the linear probe


def measure(settings: EvaluationSettings, device: torch.device, findings: Findings) -> None:
    """Measure the SVM, the nested regression, nearest neighbours and the linear probe."""
    measure_svm(settings, device, findings)
    measure_logistic(settings, device, findings)
    measure_on_random_features(settings, device, findings)


def measure_svm(settings: EvaluationSettings, device: torch.device, findings: Findings) -> None:
    dataset = graphs_of(settings, findings)
    seed_everything(0)
    encoder = GIN(dataset.num_features).to(device)
    features = represent(encoder, make_batches(dataset, 128, [0], device))[0]
    labels = dataset.labels
    subjects = {
        "ours": lambda: svm_accuracy(features, labels, seed=0),
        "scikit-learn, a loop of GridSearchCV": lambda: svm_in_a_loop(features, labels),
    }
    findings.compare(f"SVM, 10 folds, on {dataset.name}", subjects, settings.rounds, "graphs", len(labels))


def graphs_of(settings: EvaluationSettings, findings: Findings) -> GraphDataset:
    try:
        return load_dataset(settings.graphs, default_data_root())
    except InputError as error:
        findings.notes.append(f"The SVM is measured on motifs instead: {error}.")
        return load_dataset("motifs", default_data_root())


def svm_in_a_loop(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute ``svm_accuracy`` one fold after the other: [N, D], [N] -> [folds]."""
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(features, labels)
    search = GridSearchCV(SVC(), {"C": SVM_PENALTIES}, cv=5)
    return np.array(
        [
            search.fit(features[train], labels[train]).score(features[test], labels[test])
            for train, test in folds
        ]
    )


def measure_logistic(settings: EvaluationSettings, device: torch.device, findings: Findings) -> None:
    features, labels, name = task_of(settings, device, findings)
    penalties = PENALTIES["senteval"]

    def ours() -> np.ndarray:
        return nested_logistic_accuracy(features, labels, penalties, FOLDS)

    one_by_one = seconds_one_by_one(features.numpy(force=True), labels.numpy(force=True), penalties)
    subjects = {
        "ours": summary(interleaved({"ours": ours}, settings.rounds)["ours"]),
        "scikit-learn, one by one": summary([one_by_one]),
    }
    fits = FOLDS * FOLDS * len(penalties) + FOLDS
    findings.add_comparison(f"nested logistic regression on {name}", subjects, "regressions", fits)
    findings.share("nested logistic regression, by operator", operator_seconds(ours, device, steps=1))


def task_of(
    settings: EvaluationSettings, device: torch.device, findings: Findings
) -> tuple[Tensor, Tensor, str]:
    """Features [N, D] of a task's sentences by untrained GRUs, their labels [N], and a description."""
    name, task = settings.task, load_task(settings.task, default_data_root())
    if task is None:
        findings.notes.append(f"The regression is measured on topic instead: no data for {name}.")
        name, task = "topic", load_task("topic", default_data_root())
    tokenizer = encode_corpus(find_corpus("pydoc", default_data_root()), 50_000).tokenizer
    seed_everything(0)
    hidden = settings.task_dim // 4  # two encoders, two directions
    module = TwoEncoders(tokenizer, "gru", 64, hidden, bidirectional=True, longest=30).to(device)
    every = -(-len(task.sentences) // settings.task_samples)
    sentences, labels = task.sentences[::every], task.labels[::every]
    features = embed(module, sentences, device, "float32")
    name = f"{name}, {len(sentences):,} sentences of {features.shape[1]}"
    return features, torch.from_numpy(labels).to(device), name


def seconds_one_by_one(features: np.ndarray, labels: np.ndarray, penalties: tuple[float, ...]) -> float:
    """Seconds of all fits of the protocol by scikit-learn, from one fit at each penalty on nine tenths."""
    kept = np.arange(len(features)) % FOLDS > 0
    seconds = [
        seconds_of(lambda c=c: LogisticRegression(C=c).fit(features[kept], labels[kept])) for c in penalties
    ]
    return FOLDS * FOLDS * sum(seconds) + FOLDS * mean(seconds)


def measure_on_random_features(
    settings: EvaluationSettings, device: torch.device, findings: Findings
) -> None:
    seed_everything(0)
    centres = torch.randn(settings.classes, settings.dim)
    labels = torch.arange(settings.train + settings.test) % settings.classes
    features = (centres[labels] + 4 * torch.randn(len(labels), settings.dim)).to(device)
    labels = labels.to(device)
    train, test = features[: settings.train], features[settings.train :]
    train_labels, test_labels = labels[: settings.train], labels[settings.train :]
    size = f"{len(train):,} x {settings.dim}"

    neighbours = {
        "ours": lambda: knn_accuracy(train, train_labels, test, test_labels, NEIGHBOURS, TEMPERATURE),
        "scikit-learn KNeighborsClassifier": sklearn_neighbours(train, train_labels, test, test_labels),
    }
    findings.compare(f"nearest neighbours in {size}", neighbours, settings.rounds, "test samples", len(test))

    def batches(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        for chosen in epoch_order(len(train), 0, epoch).to(device).split(BATCH):
            yield train[chosen], train_labels[chosen]

    loader = DataLoader(TensorDataset(train.cpu(), train_labels.cpu()), batch_size=BATCH, shuffle=True)

    def loaded(epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        for features, of_features in loader:
            yield features.to(device), of_features.to(device)

    probes = {
        name: lambda of_epoch=of_epoch: linear_probe(
            of_epoch, test, test_labels, settings.classes, seed=0, epochs=settings.epochs
        )
        for name, of_epoch in (("ours", batches), ("DataLoader of a TensorDataset", loaded))
    }
    samples = settings.epochs * len(train)
    findings.compare(f"linear probe on {size}", probes, settings.rounds, "samples", samples)


def sklearn_neighbours(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> Callable[[], float]:
    """The accuracy of ``knn_accuracy`` by scikit-learn, on the CPU."""
    arrays = [part.numpy(force=True) for part in (train, train_labels, test, test_labels)]

    def score() -> float:
        classifier = KNeighborsClassifier(
            NEIGHBOURS,
            weights=lambda distances: np.exp((1 - distances) / TEMPERATURE),
            algorithm="brute",
            metric="cosine",
        )
        return classifier.fit(*arrays[:2]).score(*arrays[2:])

    return score
