"""Each example runs as a newcomer would run it, on data that comes with its libraries, and learns."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.sentence.conftest import WORDS, write_tiny_bert

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *flags: str) -> None:
    before, sys.argv = sys.argv, [name, *flags]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


@pytest.mark.parametrize(
    ("name", "flags"), [("simclr_minimal.py", ["--epochs", "3"]), ("clip_pairs.py", ["--epochs", "10"])]
)
def test_score_is_better_after_training(name, flags, capsys):
    run(name, *flags)
    before, after = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert after > before


def test_infograph_on_pyg_graphs(capsys):
    run("infograph_pyg.py", "--epochs", "1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["untrained", "InfoGraphLoss,", "DeepGraphInfomax"]
    assert all(25 < float(line.split()[-1]) <= 100 for line in lines)  # four classes


def test_finetuned_sentence_transformer_is_saved(capsys, tmp_path):
    model = write_tiny_bert(tmp_path / "model")
    lines = [f"{first} {second}\t{second} {first}\n" for first in WORDS[:5] for second in WORDS[5:9]]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    flags = [str(tmp_path / "pairs.tsv"), "--output", str(tmp_path / "tuned"), "--batch-size", "9"]
    run("finetune_sentence_transformer.py", str(model), *flags)
    assert "after training" in capsys.readouterr().out
    assert (tmp_path / "tuned" / "model.safetensors").exists()
