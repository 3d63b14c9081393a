"""Tasks in SentEval's layout, each protocol against scikit-learn, and a pretrained model."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

import sentence.tasks
from core.io.errors import InputError
from sentence.corpora import embedded_topics
from sentence.evaluate import main as evaluate_main
from sentence.scoring import PENALTIES, TREC_PENALTIES, encoder_of, evaluate, load_tasks, unit_norm_parts
from sentence.tasks import EMBEDDED, SENTEVAL, Choice, load_task
from tests.sentence.conftest import real_model, write_senteval

CPU = torch.device("cpu")


@pytest.fixture
def data_folder(tmp_path):
    write_senteval(tmp_path)
    return tmp_path


def encode(sentences):
    """Embed sentences [N] as counts of their letters [N, 26]."""
    counts = [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in sentences]
    return torch.tensor(counts, dtype=torch.float32)


def test_every_senteval_task_is_read(data_folder):
    loaded = {name: load_task(name, data_folder) for name in SENTEVAL}
    for name in ("mr", "cr", "subj", "mpqa"):
        assert len(loaded[name].sentences) == 40
        assert np.bincount(loaded[name].labels).tolist() == [20, 20]
    trec = loaded["trec"]
    assert np.bincount(trec.labels[trec.parts == "train"]).tolist() == [20, 20, 20]
    assert (trec.parts == "test").sum() == 12
    assert all("dreadful" in text or "lovely" in text or "plain" in text for text in trec.sentences)
    assert [(loaded["sst2"].parts == part).sum() for part in ("train", "dev", "test")] == [20, 6, 6]
    msrp = loaded["msrp"]
    assert len(msrp.pairs) == 40
    assert [first == second for first, second in msrp.pairs] == msrp.labels.astype(bool).tolist()
    assert len(loaded["stsb"].pairs) == 12
    assert loaded["stsb"].scores.max() == 5


def test_embedded_tasks_share_almost_no_sentence_with_the_embedded_corpus():
    corpus = "\n".join(embedded_topics().values())
    topic, neighbours = (EMBEDDED[name]() for name in ("topic", "neighbours"))
    assert np.bincount(topic.labels).min() >= 30
    assert len(neighbours.triples) > 200
    for sentences in (topic.sentences, [text for triple in neighbours.triples for text in triple]):
        shared = sum(text in corpus for text in sentences)
        assert shared < 0.05 * len(sentences)
    assert neighbours.triples == EMBEDDED["neighbours"]().triples


def test_choice_counts_triples_whose_second_sentence_is_nearer():
    triples = [("aaa", "aab", "zzz"), ("aaa", "zzz", "aab"), ("bbb", "bbz", "qqq"), ("q", "a", "b")]
    assert evaluate(encode, {"neighbours": Choice(triples)}) == {"neighbours_accuracy": 0.5}


def best_of_penalties(features, labels, penalties, seed=1111):
    """scikit-learn's regression with the penalty of the best mean accuracy over 10 folds."""
    folds = StratifiedKFold(10, shuffle=True, random_state=seed)
    models = [LogisticRegression(C=penalty, tol=1e-8, max_iter=5000) for penalty in penalties]
    means = [cross_val_score(model, features, labels, cv=folds).mean() for model in models]
    return models[int(np.argmax(means))]


@pytest.mark.parametrize("protocol", ["senteval", pytest.param("quickthoughts", marks=pytest.mark.slow)])
def test_scores_equal_those_of_scikit_learn(data_folder, protocol):
    tasks, missing = load_tasks(tuple(SENTEVAL), data_folder, download=False)
    assert missing == []
    metrics = evaluate(encode, tasks, protocol, parts=2)

    def embedded(sentences):
        features = encode(sentences)
        return (unit_norm_parts(features, 2) if protocol == "quickthoughts" else features).numpy()

    task = tasks["mr"]
    features, accuracies = embedded(task.sentences), []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=1111).split(features, task.labels):
        model = best_of_penalties(features[train], task.labels[train], PENALTIES[protocol])
        accuracies.append(
            model.fit(features[train], task.labels[train]).score(features[test], task.labels[test])
        )
    assert metrics["mr_accuracy"] == pytest.approx(np.mean(accuracies))

    task = tasks["trec"]
    features, train = embedded(task.sentences), task.parts == "train"
    model = best_of_penalties(features[train], task.labels[train], TREC_PENALTIES[protocol])
    model.fit(features[train], task.labels[train])
    assert metrics["trec_accuracy"] == pytest.approx(model.score(features[~train], task.labels[~train]))

    task = tasks["sst2"]
    features = embedded(task.sentences)
    train, dev, test = (task.parts == part for part in ("train", "dev", "test"))
    models = [
        LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(features[train], task.labels[train])
        for penalty in PENALTIES[protocol]
    ]
    best = models[int(np.argmax([model.score(features[dev], task.labels[dev]) for model in models]))]
    assert metrics["sst2_accuracy"] == pytest.approx(best.score(features[test], task.labels[test]))

    task = tasks["msrp"]
    first, second = (embedded([pair[i] for pair in task.pairs]) for i in range(2))
    features, train = np.concatenate([abs(first - second), first * second], axis=1), task.parts == "train"
    model = best_of_penalties(features[train], task.labels[train], PENALTIES[protocol])
    model.fit(features[train], task.labels[train])
    assert metrics["msrp_accuracy"] == pytest.approx(model.score(features[~train], task.labels[~train]))
    predicted = model.predict(features[~train])
    assert metrics["msrp_f1"] == pytest.approx(f1_score(task.labels[~train], predicted))

    task = tasks["stsb"]
    first, second = (embedded([pair[i] for pair in task.pairs]) for i in range(2))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    expected = spearmanr((first * second).sum(axis=1) / norms, task.scores).statistic
    assert metrics["stsb_spearman"] == pytest.approx(expected, abs=1e-5)


def test_penalties_are_those_of_the_papers():
    assert PENALTIES["senteval"] == (0.25, 0.5, 1, 2, 4, 8)
    assert TREC_PENALTIES["senteval"] == (0.5, 1, 2, 4, 8, 16, 32)
    assert PENALTIES["quickthoughts"] == (1, 2, 4, 8, 16, 32, 64, 128, 256)


def test_unit_norm_parts_have_norm_1_each():
    parts = unit_norm_parts(torch.randn(5, 8), 2)
    torch.testing.assert_close(parts[:, :4].norm(dim=1), torch.ones(5))
    torch.testing.assert_close(parts[:, 4:].norm(dim=1), torch.ones(5))


def test_missing_task_is_named_and_the_others_are_loaded(data_folder, capsys):
    for path in (data_folder / "SentEval" / "downstream" / "CR").iterdir():
        path.unlink()
    (data_folder / "SentEval" / "downstream" / "CR").rmdir()
    tasks, missing = load_tasks(("mr", "cr"), data_folder, download=False)
    assert list(tasks) == ["mr"]
    assert missing == ["cr"]
    assert "warning: no data for cr under" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("mr", "cola"), "`tasks` is 'cola', which is unknown. Known: mr, cr"),
        (("mr", "cr"), "no data for mr, cr under .*; set `download` to fetch them"),
    ],
    ids=["unknown", "missing"],
)
def test_tasks_that_are_unknown_or_all_missing_are_refused(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        load_tasks(names, tmp_path, download=False)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("TREC/train_5500.label", "NUM what\n", "train_5500.label: line 1 is not 'LABEL:detail question'"),
        (
            "SST/binary/sentiment-dev",
            "only a sentence\n",
            "sentiment-dev: line 1 has 1 columns; it must have 2",
        ),
        (
            "STS/STSBenchmark/sts-test.csv",
            "a\tb\tc\td\tfive\tx\ty\n",
            "sts-test.csv: line 1 has 'five'; it must be a finite number",
        ),
        (
            "STS/STSBenchmark/sts-test.csv",
            "a\tb\tc\td\tnan\tx\ty\n",
            "line 1 has 'nan'; it must be",
        ),
        (
            "STS/STSBenchmark/sts-test.csv",
            "",
            "has fewer than 2 different scores: is one of its files",
        ),
        (
            "SST/binary/sentiment-train",
            "good\t2\n",
            "sentiment-train: line 1 has '2'; it must be 0 or 1",
        ),
        ("SST/binary/sentiment-test", "", "binary has no samples for testing"),
        ("MR/rt-polarity.pos", None, "rt-polarity.pos cannot be read"),
        (
            "MR/rt-polarity.neg",
            "",
            "MR has 1 classes for training, with 20 samples or more; 2 with 10",
        ),
    ],
    ids=[
        "line without a label",
        "line without a column",
        "score that is not a number",
        "score nan",
        "no scores",
        "label out of range",
        "no test samples",
        "missing file",
        "missing class",
    ],
)
def test_damaged_task_is_refused(data_folder, path, text, message):
    file = data_folder / "SentEval" / "downstream" / path
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    name = {"TREC": "trec", "SST": "sst2", "STS": "stsb", "MR": "mr"}[path.split("/")[0]]
    with pytest.raises(InputError, match=message):
        load_task(name, data_folder)


def tar_of(folder: Path, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            tar.add(folder / name, name)
    return buffer.getvalue()


def test_senteval_download_has_every_task_and_nothing_else(served, tmp_path, monkeypatch):
    folder, address = served
    source = write_senteval(tmp_path / "made")
    (folder / "senteval.tar").write_bytes(tar_of(source, os.listdir(source)))
    monkeypatch.setattr(sentence.tasks, "SENTEVAL_URL", f"{address}/senteval.tar")
    tasks, missing = load_tasks(tuple(SENTEVAL), tmp_path / "data", download=True)
    assert (len(tasks), missing) == (8, [])
    assert {path.name for path in (tmp_path / "data" / "SentEval").iterdir()} == {"downstream"}


def test_senteval_archive_truncated_between_two_files_is_refused(served, tmp_path, monkeypatch):
    """Python's tarfile reads such a file without an error, but its last files are missing."""
    folder, address = served
    source = write_senteval(tmp_path / "made")
    archive = tar_of(source, sorted(os.listdir(source)))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        last = tar.getmembers()[-1]
    (folder / "senteval.tar").write_bytes(archive[: last.offset])
    monkeypatch.setattr(sentence.tasks, "SENTEVAL_URL", f"{address}/senteval.tar")
    with pytest.raises(InputError, match=rf"{address}/senteval.tar cannot be used: .* cannot be read"):
        load_tasks(tuple(SENTEVAL), tmp_path / "data", download=True)
    assert not list((tmp_path / "data" / "SentEval").iterdir())


def test_evaluate_refuses_a_folder_without_a_sentence_model(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "config.json").write_text('{"modality": "graph"}')
    for name, message in (
        ("nowhere", "nowhere is not a folder; set --download"),
        ("thesis", "cannot be loaded as a SentenceTransformer"),
        ("graph", "holds a run of modality graph; a run of sentence is needed"),
    ):
        with pytest.raises(SystemExit) as exit_:
            evaluate_main([str(tmp_path / name), "--device", "cpu"])
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.data("SentEval")
def test_pretrained_model_reaches_its_published_correlation(data_root):
    """all-MiniLM-L6-v2 has 82.03 on STS-B, according to its model card on the Hugging Face hub."""
    model = SentenceTransformer(str(real_model()), device="cpu")
    task = {"stsb": load_task("stsb", data_root)}
    assert evaluate(encoder_of(model), task)["stsb_spearman"] == pytest.approx(0.8203, abs=5e-4)
