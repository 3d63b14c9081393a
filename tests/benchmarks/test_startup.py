"""The start-up part: which processes it starts, and what it says of them."""

import pytest
import torch

from benchmarks import measure, startup
from benchmarks.measure import Findings
from benchmarks.startup import StartupSettings
from core.io.errors import InputError, TrainingError

CPU = torch.device("cpu")


def test_processes_of_a_command(monkeypatch):
    started = set()
    monkeypatch.setattr(startup, "run", lambda arguments, code: started.add((" ".join(arguments), code)))
    monkeypatch.setattr(measure, "MIN_ROUND_SECONDS", 0.0)
    findings = Findings()
    startup.measure(StartupSettings(commands=("graph.train",), rounds=2), CPU, findings)
    assert started == {
        ("-c import torch", 0),
        ("-m graph.train --help", 0),
        ("-m graph.train --dataset no-such-dataset --no-such-flag", 2),
        ("-m graph.train --dataset no-such-dataset", 2),
        ("-c import graph.train, core.training.launch, graph.task", 0),
    }
    assert [comparison["case"] for comparison in findings.comparisons] == list(startup.CASES)
    for comparison in findings.comparisons:
        assert list(comparison["subjects"]) == ["import torch", "graph.train"]
        assert comparison["subjects"]["graph.train"]["rounds"] == 2


def test_goals_are_those_of_the_slowest_beside_torch():
    findings = Findings()
    for case, seconds in (("--help", (0.3, 0.6)), ("imports", (6.0, 2.1))):
        subjects = dict(zip(("image.evaluate", "image.train"), seconds, strict=True))
        subjects = {"import torch": 1.5, **subjects}
        findings.add_comparison(case, {name: {"median_seconds": x} for name, x in subjects.items()})
    startup.state_goals(findings)
    help_, imports = findings.goals
    assert help_["goal"] == "--help, the slowest (image.train) beside import torch"
    assert (help_["measured"], help_["at_most"]) == (0.4, 0.47)
    assert imports["goal"] == "imports, the slowest (image.train) beside import torch"  # evaluation has none
    assert (imports["measured"], imports["at_most"]) == (1.4, 1.47)


def test_other_exit_code_is_an_error():
    with pytest.raises(TrainingError, match=r"^python -c raise SystemExit\(3\) ended with 3, not 0"):
        startup.run(["-c", "raise SystemExit(3)"], code=0)


def test_unknown_command_is_refused():
    with pytest.raises(InputError, match=r"^--startup.commands has 'image.trian'; it may have graph.train,"):
        startup.measure(StartupSettings(commands=("image.trian",)), CPU, Findings())
