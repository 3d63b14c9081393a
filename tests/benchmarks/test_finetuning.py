"""The benchmark of fine-tuning: every objective and seed is trained, saved, loaded and in the table."""

import json
import re

import pytest

from benchmarks.finetuning import OBJECTIVES, main
from tests.sentence.conftest import write_senteval, write_tiny_bert


@pytest.mark.slow
def test_every_objective_and_seed_is_in_the_table(tmp_path, capsys):
    folder = write_senteval(tmp_path / "data") / "STS" / "STSBenchmark"
    pairs = [f"the {word} held\tthe {word} kept" for word in ("river", "house", "stone", "letter", "road")]
    rows = [f"a\tb\tc\t{i}\t{score}\t{pair}" for i, pair in enumerate(pairs) for score in (5, 1)]
    (folder / "sts-train.csv").write_text("".join(f"{row}\n" for row in rows))
    model = write_tiny_bert(tmp_path / "bert")
    where = ["--output", str(tmp_path / "out"), "--data-root", str(tmp_path / "data")]
    main([str(model), *where, "--seeds", "0", "1", "--batch-size", "4", "--lr", "0.01"])
    content = json.loads((tmp_path / "out" / "runs.json").read_text())
    assert content["environment"]["revision"]
    untrained, *runs = content["runs"]
    assert [(run["objective"], run["seed"]) for run in runs] == [(o, s) for s in (0, 1) for o in OBJECTIVES]
    assert {run["pairs"] for run in runs} == {5}
    assert all(run["stsb"] != untrained["stsb"] for run in runs)
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert lines[2] == f"| untrained | {untrained['stsb']:.2f} |  |"
    score, gain = r"-?[\d.]+ ± [\d.]+ \(2\)", r"[+-][\d.]+ \[-?[\d.]+, -?[\d.]+\]"
    assert re.fullmatch(rf"\| beta 0 .* \| {score} \|  \|", lines[3])
    assert all(re.fullmatch(rf"\| .* \| {score} \| {gain} \|", line) for line in lines[4:])
    assert len(lines) == 3 + len(OBJECTIVES)
