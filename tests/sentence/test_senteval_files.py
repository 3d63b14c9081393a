"""Files of tasks in SentEval's layout: read, missing, damaged, downloaded."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import sentence.tasks
from core.io.errors import InputError
from sentence.config import SENTEVAL_TASKS
from sentence.corpora import built_in_topics
from sentence.tasks import BUILT_IN, SENTEVAL, load_task, load_tasks
from tests.sentence.conftest import write_senteval


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
    corpus = "\n".join(built_in_topics().values())
    topic, neighbours = (BUILT_IN[name]() for name in ("topic", "neighbours"))
    assert np.bincount(topic.labels).min() >= 30
    assert len(neighbours.triples) > 200
    for sentences in (topic.sentences, [text for triple in neighbours.triples for text in triple]):
        shared = sum(text in corpus for text in sentences)
        assert shared < 0.05 * len(sentences)
    assert neighbours.triples == BUILT_IN["neighbours"]().triples


def test_missing_task_is_named_and_the_others_are_loaded(data_folder, capsys):
    for path in (data_folder / "SentEval" / "downstream" / "CR").iterdir():
        path.unlink()
    (data_folder / "SentEval" / "downstream" / "CR").rmdir()
    tasks, missing = load_tasks(("mr", "cr"), data_folder, download=False)
    assert list(tasks) == ["mr"]
    assert missing == ["cr"]
    warning = f"warning: no data for cr under {data_folder / 'SentEval' / 'downstream'} (in CR); the other"
    assert warning in capsys.readouterr().err


def test_all_names_every_task_of_senteval(data_folder):
    tasks, missing = load_tasks(("topic", "all", "mr"), data_folder, download=False)
    assert list(tasks) == ["topic", *SENTEVAL]
    assert missing == []
    assert set(SENTEVAL) - set(SENTEVAL_TASKS) == {
        *("sst5", "sickr", "sicke", "sts12", "sts13", "sts14", "sts15", "sts16")
    }


def test_missing_files_of_a_task_are_named_in_one_line(data_folder):
    """Its folder, if the others are there: a download would leave them as they are."""
    shutil.rmtree(data_folder / "SentEval" / "downstream" / "SST" / "fine")
    with pytest.raises(InputError, match=r"no data for sst5 under .* \(in SST/fine\); add them there, or"):
        load_tasks(("sst5",), data_folder, download=True)
    (data_folder / "SentEval" / "downstream" / "SICK" / "SICK_trial.txt").unlink()
    with pytest.raises(InputError, match=r"SICK_trial.txt cannot be read: .*No such file"):
        load_tasks(("sicke",), data_folder, download=False)


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
            "STSBenchmark has no samples for testing: is one of its files truncated",
        ),
        (
            "SST/binary/sentiment-train",
            "good\t2\n",
            "sentiment-train: line 1 has '2'; it must be 0 or 1",
        ),
        ("SST/binary/sentiment-test", "", "binary has no samples for testing"),
        ("MR/rt-polarity.pos", None, "rt-polarity.pos cannot be read"),
        ("SST/binary/sentiment-dev", "", "binary has no samples for validation"),
        ("SST/fine/sentiment-dev", "good\n", "sentiment-dev: line 1 is not 'LABEL sentence'"),
        ("SST/fine/sentiment-dev", "5 good\n", "line 1 has '5'; it must be 0 or 1 or 2 or 3 or 4"),
        ("SICK/SICK_trial.txt", "", "SICK has no samples for validation"),
        (
            "SICK/SICK_train.txt",
            "header\n1\ta\tb\t3\tNEUTRAL\n",
            r"SICK \(train\) has fewer than 2 different scores",
        ),
        ("SICK/SICK_trial.txt", "header\na\n", "SICK_trial.txt: line 2 has 1 columns; it must have 5"),
        (
            "STS/STS12-en-test/STS.gs.MSRpar.txt",
            "1\n2\n",
            "STS.gs.MSRpar.txt has 2 lines, and STS.input.MSRpar.txt 5: is one of them truncated",
        ),
        ("STS/STS12-en-test/STS.gs.MSRvid.txt", "\n" * 6, "STS.gs.MSRvid.txt has no scores: is it"),
        (
            "STS/STS12-en-test/STS.gs.MSRvid.txt",
            "\n2\n2\n2\n2\n2\n",
            r"STS12-en-test \(MSRvid\) has fewer than 2 different scores",
        ),
        ("STS/STS12-en-test/STS.gs.MSRvid.txt", "x\n1\n2\n3\n4\n5\n", "MSRvid.txt: line 1 has 'x'; it must"),
        (
            "MR/rt-polarity.neg",
            "",
            "MR has 1 classes for training, with 20 samples or more; 2 with 12",
        ),
    ],
    ids=[
        "line without a label",
        "line without a column",
        "score that is not a number",
        "score nan",
        "no pairs for testing",
        "label out of range",
        "no test samples",
        "missing file",
        "no samples for validation",
        "fine label without a sentence",
        "fine label out of range",
        "no pairs for validation",
        "one pair for training",
        "pairs without columns",
        "fewer scores than pairs",
        "no scores of a set",
        "equal scores of a set",
        "set's score that is not a number",
        "missing class",
    ],
)
def test_damaged_task_is_refused(data_folder, path, text, message):
    file = data_folder / "SentEval" / "downstream" / path
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    folder = path.rpartition("/")[0]
    name = next(name for name, (subfolder, _) in SENTEVAL.items() if subfolder == folder)
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
    assert (len(tasks), missing) == (16, [])
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
