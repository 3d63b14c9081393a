"""SentEval's protocol in parts: encoding, our fits, and the fits as its harness takes them."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from benchmarks.measure import Findings, seconds_of, summary
from benchmarks.settings import ReferenceSettings
from core.training.config import default_data_root
from core.training.seeding import seed_everything
from sentence.corpora import find_corpus
from sentence.data import encode_corpus
from sentence.encoder import TwoEncoders
from sentence.scoring import FOLDS, PENALTIES, embed
from sentence.tasks import load_task
from shared_eval.probes import SENTEVAL_SEED, nested_logistic_accuracy

# The harness itself, with its own encoders and data, is not run.
NOTE = (
    "Reported for SentEval's own harness, on another day: 40 minutes of one core for eight tasks of 600 fits "
    "each; for ours 13 minutes, encoding included."
)


def measure_senteval(settings: ReferenceSettings, device: torch.device, findings: Findings) -> None:
    """Seconds of encoding a task's sentences, and of the fits on them, ours and scikit-learn's one by one."""
    task, name = load_task(settings.task, default_data_root()), settings.task
    if task is None:
        findings.notes.append(f"SentEval's protocol is measured on topic instead: no data for {name}.")
        task, name = load_task("topic", default_data_root()), "topic"
    every = -(-len(task.sentences) // settings.task_samples)
    sentences, labels = task.sentences[::every], torch.from_numpy(task.labels[::every]).to(device)
    tokenizer = encode_corpus(find_corpus("pydoc", default_data_root()), 50_000).tokenizer
    seed_everything(0)
    encoder = TwoEncoders(tokenizer, "gru", 64, settings.hidden, bidirectional=True, longest=30).to(device)
    features = embed(encoder, sentences, device, "float32")
    arrays = features.numpy(force=True), labels.numpy(force=True)
    penalties, folds = PENALTIES["senteval"], settings.folds
    parts = {
        "encoding": lambda: embed(encoder, sentences, device, "float32"),
        "our fits": lambda: nested_logistic_accuracy(features, labels, penalties, folds),
        "scikit-learn's fits": lambda: fits_one_by_one(*arrays, penalties, folds),
    }
    subjects = {part: summary([seconds_of(call)]) for part, call in parts.items()}
    fits = f"{folds * folds * len(penalties)} fits to choose C"
    case = f"SentEval's protocol on {name}, {len(sentences):,} sentences of {features.shape[1]}, {fits}"
    findings.add_comparison(case, subjects)
    findings.notes.append(NOTE)


def fits_one_by_one(
    features: np.ndarray, labels: np.ndarray, penalties: tuple[float, ...], folds: int = FOLDS
) -> np.ndarray:
    """Test accuracy on each fold by scikit-learn, one fit after the other: [N, D], [N] -> [folds].

    As SentEval's inner cross-validation: in each outer training part, inner folds score every C, and the best
    one is fitted to the whole part.
    """

    def accuracy(c: float, training: np.ndarray, test: np.ndarray) -> float:
        model = LogisticRegression(C=c, random_state=SENTEVAL_SEED).fit(features[training], labels[training])
        return model.score(features[test], labels[test])

    split = StratifiedKFold(folds, shuffle=True, random_state=SENTEVAL_SEED).split
    accuracies = []
    for training, test in split(features, labels):
        inner = [(training[fit], training[held]) for fit, held in split(training, labels[training])]
        means = [np.mean([accuracy(c, *fold) for fold in inner]) for c in penalties]
        accuracies.append(accuracy(penalties[int(np.argmax(means))], training, test))
    return np.array(accuracies)
