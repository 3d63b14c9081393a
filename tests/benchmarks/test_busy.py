"""Work beside a busy process: the process runs when it should, and the ratio is held against its bound."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import busy
from benchmarks.measure import Findings
from core.training.threads import WAIT_VARIABLES

STATE = 2  # the field of /proc/PID/stat


def state_of(process: busy.BusyProcess, expected: str) -> str:
    """R runs, T is stopped; signals take a moment."""
    path = Path(f"/proc/{process.process.pid}/stat")
    for _ in range(200):
        state = path.read_text().split()[STATE]
        if state == expected:
            break
        time.sleep(0.01)
    return state


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_busy_process_runs_only_while_it_is_resumed():
    with busy.BusyProcess() as process:
        assert state_of(process, "T") == "T"
        with process.resumed():
            time.sleep(0.2)  # past the start of Python
            assert state_of(process, "R") == "R"
        assert state_of(process, "T") == "T"
    assert process.process.returncode is not None


@pytest.mark.parametrize(("ratio", "verdict"), [(2.5, "at most 2.5"), (2.51, "more than 2.5")])
def test_ratio_above_the_bound_is_marked(ratio, verdict, monkeypatch, capsys):
    def compare(self, case, subjects, rounds):
        assert list(subjects) == ["alone", "busy"]
        return {"ratios": {"busy": ratio}}

    findings = Findings()
    monkeypatch.setattr(Findings, "compare", compare)
    busy.compare("motifs", lambda: None, None, 3, findings)
    assert capsys.readouterr().out == f"motifs: {ratio:g} times as long beside a busy process, {verdict}\n"
    [goal] = findings.goals
    assert (goal["goal"], goal["measured"], goal["at_most"]) == ("motifs, busy relative to alone", ratio, 2.5)


@pytest.mark.parametrize("modality", busy.TASKS)
def test_dataset_that_is_named_is_measured(modality):
    """Not that of the modality's defaults, which other arguments choose."""
    defaults_for, _ = busy.TASKS[modality]
    assert (defaults_for("another").dataset, defaults_for("another").modality) == ("another", modality)


def test_waiting_threads_sleep_as_in_the_commands():
    """OpenMP reads this when torch is imported, which the parts do at module level."""
    code = "import benchmarks, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["PASSIVE", "False"], done.stderr
