"""The benchmark command: every part measures and writes its record; the page has all records."""

import json

import pytest
import torch

from benchmarks import alternatives, evaluation, graphs, objective, ranks
from benchmarks.__main__ import PARTS, main, parse_suite
from benchmarks.measure import ROOT, Findings, summary
from benchmarks.page import duration, memory
from core.io.errors import TrainingError
from tests.processes import in_processes
from tests.runs import failure_of

TINY = {
    "ranks": "--ranks.batch 16 --ranks.dim 8 --ranks.tile-size 4 --ranks.encoder-batch 8 --ranks.chunks 4",
    "objective": "--objective.batches 16 --objective.large-batches 32 --objective.tile-size 8",
    "images": "--images.batch-size 8 --images.width 4",
    "graphs": "--graphs.batch-size 20",
    "sentences": "--sentences.embedding-dim 8 --sentences.hidden 6 --sentences.batch-size 20 "
    "--sentences.sentences 20",
    "evaluation": "--evaluation.task-dim 8 --evaluation.train 300 "
    "--evaluation.test 60 --evaluation.dim 8 --evaluation.epochs 1",
    "startup": "--startup.commands graph.train",
    "busy": "--busy.batch-size 20 --busy.steps 1",
    "revisions": "--revisions.commands help",
    "references": "--references.batch-size 20 --references.pairs 16 --references.sentence-batch 8 "
    "--references.hidden 8 --references.images 8 --references.task-samples 60 "
    "--references.folds 3",
}


# Both start fresh processes.
SLOW = {"ranks": [pytest.mark.slow, pytest.mark.distributed], "startup": [pytest.mark.slow]}


@pytest.mark.parametrize("part", [pytest.param(part, marks=SLOW.get(part, ())) for part in PARTS])
def test_part_writes_its_record_and_the_page(part, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "FOLDS", 3)
    flags = [*TINY[part].split(), f"--{part}.rounds", "1"]
    main(["--quick", "--only", part, "--device", "cpu", "--output", str(tmp_path), *flags])
    record = json.loads((tmp_path / f"{part}.json").read_text())
    assert (record["schema"], record["part"], record["quick"]) == (1, part, True)
    assert record["environment"]["device"] == "cpu"
    assert record["settings"]["rounds"] == 1
    assert record["comparisons"]
    for comparison in record["comparisons"]:
        for subject in comparison["subjects"].values():
            assert subject["fastest_seconds"] <= subject["median_seconds"] <= subject["slowest_seconds"]
            assert subject["fastest_seconds"] > 0
        assert set(comparison["ratios"]) == set(list(comparison["subjects"])[1:])
    for share in record["shares"]:
        assert sum(share["parts"].values()) == pytest.approx(1, abs=0.01)
    page = (tmp_path / "README.md").read_text()
    for comparison in record["comparisons"]:
        for name, ratio in comparison["ratios"].items():
            assert f"| {comparison['case']} | {name} |" in page
            assert f"| {ratio:g} |" in page
    figures = {path.name for path in tmp_path.iterdir()} - {f"{part}.json", "README.md"}
    assert figures == ({"objective.png", "objective.svg"} if part == "objective" else set())


def measure_on_rank():
    settings = ranks.RankSettings(batch=16, dim=8, tile_size=4, rounds=2)
    return ranks.work(settings, torch.device("cpu"), list(ranks.objectives(settings)))


@pytest.mark.distributed
def test_every_rank_measures_every_objective():
    first, second = in_processes(2, measure_on_rank)
    assert len(first) == 3
    for name, measured in first.items():
        assert len(measured["seconds"]) == len(second[name]["seconds"]) == 2
        assert measured["peak_bytes"] == second[name]["peak_bytes"] >= 0


@pytest.fixture
def results(tmp_path):
    """Records of two parts, as the suite writes them."""
    for part in ("objective", "graphs"):
        subjects = {
            "ours": {"median_seconds": 0.5, "fastest_seconds": 0.4, "slowest_seconds": 0.6, "rounds": 3},
            "theirs": {"failed": "needs more than 5.0 GiB"},
        }
        findings = Findings(notes=["lightly: not installed."] if part == "objective" else [])
        comparison = findings.add_comparison(f"a case of {part}", subjects)
        if part == "objective":
            comparison["batch"] = 64
        findings.goal("little memory", 0.1, 0.125)
        findings.goal("little time", 2.0, 1.3)
        environment = {"device_name": "a processor", "device": "cpu", "threads": 2, "python": "3.11"}
        environment |= {"torch": "2.14", "revision": f"of-{part}", "packages": {"numpy": "2.4"}}
        environment |= {"cores": 4, "memory_bytes": 2**34}
        record = {"schema": 1, "part": part, "title": part.title(), "about": f"About {part}.", "seconds": 90}
        record |= vars(findings) | {"quick": False, "environment": environment}
        (tmp_path / f"{part}.json").write_text(json.dumps(record))
    return tmp_path


SPEED_OF_THE_README = (
    *(
        ("objective", "batch 4,096", name)
        for name in ("ours, tiled", "lightly NTXentLoss", "pytorch-metric-learning SupConLoss")
    ),
    ("references", "REDDIT-BINARY, epoch", "ours, InfoGraph"),
    ("references", "REDDIT-BINARY, epoch", "PyG, InfoGraph"),
)


@pytest.mark.parametrize(("part", "case", "name"), SPEED_OF_THE_README)
def test_speed_section_of_the_readme_has_the_recorded_figures(part, case, name):
    record = json.loads((ROOT / "benchmarks" / "results" / "speed" / f"{part}.json").read_text())
    [comparison] = (each for each in record["comparisons"] if each["case"] == case)
    subject = comparison["subjects"][name]
    text = duration(subject["median_seconds"])
    text += f" and {memory(subject['peak_bytes'])}" if "peak_bytes" in subject else ""
    section = (ROOT / "README.md").read_text().split("\n## Speed\n")[1].split("\n## ")[0]
    assert f" {text}" in section


def test_page_is_written_without_measuring(results, monkeypatch):
    monkeypatch.setattr(graphs, "measure", pytest.fail)
    main(["--page", "--output", str(results)])
    page = (results / "README.md").read_text()
    assert page.index("## Objective") < page.index("## Graphs")
    for part in ("objective", "graphs"):
        assert f"of-{part}" in page
    assert "| a case of graphs | theirs | needs more than 5.0 GiB |" in page
    assert "| a processor (cpu), 2 of 4 cores, 16.0 GiB |" in page
    assert "lightly: not installed." in page
    assert "| little memory | 0.1 times | 0.125 times | yes |" in page
    assert "| little time | 2 times | 1.3 times | no |" in page
    assert "![Objective](objective.png)" in page
    assert (results / "objective.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (results / "objective.svg").read_text()


def test_part_measured_again_keeps_the_others(results, monkeypatch):
    def measure(settings, device, findings):
        findings.notes.append("Measured again.")

    monkeypatch.setattr(graphs, "measure", measure)
    before = (results / "objective.json").read_bytes()
    main(["--only", "graphs", "--device", "cpu", "--output", str(results)])
    assert (results / "objective.json").read_bytes() == before
    page = (results / "README.md").read_text()
    assert "a case of objective" in page
    assert "Measured again." in page
    assert "a case of graphs" not in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"schema": 2}', "is not of schema 1"),
        ('{"schema": 1}', "has no 'environment'"),
        (None, "holds no results"),
    ],
)
def test_unreadable_results_are_refused(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "graphs.json").write_text(content)
    lines = failure_of(main, capsys, ["--page", "--output", str(tmp_path)])
    assert message in lines[-1]
    assert not (tmp_path / "README.md").exists()


def test_quick_changes_only_defaults():
    config = parse_suite(["--quick", "--graphs.rounds", "7"])
    assert config.graphs.datasets == ("motifs",)
    assert config.graphs.rounds == 7
    assert str(config.folder()) == "runs/speed"
    assert parse_suite(["--only", "graphs"]).graphs.datasets[-1] == "DD"


class TestInterruptedPart:
    """A part that fails or is interrupted."""

    def run(self, folder, monkeypatch, error):
        def measure(settings, device, findings):
            findings.add_comparison("first case", {"ours": summary([0.5])})
            raise error

        monkeypatch.setattr(graphs, "measure", measure)
        flags = ["--only", "graphs", "objective", "--device", "cpu", "--output", str(folder)]
        monkeypatch.setattr(objective, "measure", pytest.fail)  # is not measured then
        with pytest.raises((SystemExit, RuntimeError)):
            main(flags)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (KeyboardInterrupt(), "interrupted"),
            (RuntimeError("CUDA error: misaligned address"), "CUDA error"),
        ],
    )
    def test_writes_what_was_measured(self, error, reason, tmp_path, monkeypatch):
        self.run(tmp_path, monkeypatch, error)
        record = json.loads((tmp_path / "graphs.json").read_text())
        assert [comparison["case"] for comparison in record["comparisons"]] == ["first case"]
        assert reason in record["notes"][-1]
        main(["--page", "--output", str(tmp_path)])
        assert "Not everything was measured" in (tmp_path / "README.md").read_text()

    def test_keeps_an_earlier_record(self, results, monkeypatch):
        before = (results / "graphs.json").read_bytes()
        self.run(results, monkeypatch, KeyboardInterrupt())
        assert (results / "graphs.json").read_bytes() == before


@pytest.mark.parametrize(("dense_rounds", "goals"), [(5, 2), (1, 1)])
def test_goals_of_tiles_compare_times_measured_alike(dense_rounds, goals):
    """Peak memory always; time only if both were timed in rounds."""
    findings = Findings()
    tiled = {"peak_bytes": 2**20, "median_seconds": 2.2, "rounds": 5}
    dense = {"peak_bytes": 2**24, "median_seconds": 2.0, "rounds": dense_rounds}
    subjects = {objective.HARD_DENSE: dense, objective.HARD_TILED: tiled}
    findings.add_comparison("batch 4,096", subjects)["batch"] = 4096
    large = {objective.HARD_TILED: {"peak_bytes": 3 * 2**30, "median_seconds": 9.0, "rounds": 1}}
    findings.add_comparison("batch 65,536", large)["batch"] = 65_536
    objective.state_goals(findings, torch.device("cpu"))
    *tiles, gib = [goal["measured"] for goal in findings.goals]
    assert tiles == [0.062, 1.1][:goals]
    assert (gib, findings.goals[-1]["unit"]) == (3.0, "GiB")


class TestCommands:
    """Complete commands of graph.train, with one seed or many."""

    def measured(self, monkeypatch, train):
        monkeypatch.setattr(graphs, "train", train)
        findings = Findings()
        settings = graphs.GraphSettings(command_rounds=1)
        graphs.measure_commands(settings, "cpu", findings)
        return findings

    def test_one_seed_ten_seeds_and_a_table_row(self, monkeypatch):
        lines = []
        findings = self.measured(monkeypatch, lambda *flags: lines.append(" ".join(flags[:-1])))
        common = "--dataset MUTAG --device cpu"
        assert set(lines) == {
            f"{common} --seed 0 --output-dir",
            f"{common} --seeds 0-9 --output-dir",
            f"{common} --seeds 0-9 --betas 0,1,2,10 --output-dir",
        }
        assert [goal["at_most"] for goal in findings.goals] == [3.0, 60.0]

    def test_failed_command_is_noted(self, monkeypatch):
        def train(*flags):
            raise TrainingError("graph.train ended with 2: no such thing")

        findings = self.measured(monkeypatch, train)
        assert findings.notes[-1].endswith("not measured, graph.train ended with 2: no such thing.")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (duration(0.0123456), "12.3 ms"),
        (duration(1.5), "1.50 s"),
        (duration(90), "1.50 min"),
        (duration(3e-7), "0.30 µs"),
        (memory(3 * 2**30), "3.00 GiB"),
        (memory(160 * 2**20), "160 MiB"),
        (memory(0), "0.00 B"),
    ],
)
def test_quantities_have_three_digits_and_a_unit(written, expected):
    assert written == expected


def test_versions_cover_every_library():
    assert set(alternatives.versions()) == {"pytorch-metric-learning", "lightly"}


def test_share_of_peak_counts_the_products_of_a_step(monkeypatch):
    monkeypatch.setattr(graphs, "interleaved", lambda subjects, rounds: {"step": [1e-3], "product": [2.0]})
    a = torch.ones(100, 50)
    note = graphs.share_of_peak("MUTAG", lambda: a @ a.T, 1, torch.device("cpu"))
    assert "0.001 GFLOP of matrix products: 1 GFLOP/s" in note  # 2 x 100 x 50 x 100 in a millisecond
    assert "12% of the 8.59 GFLOP/s" in note  # 2 x 2048^3 in two seconds
