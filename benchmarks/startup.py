"""How long people wait before a command works: help, bad input, and the imports of each command."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks.commands import COMMANDS
from benchmarks.measure import Findings, interleaved, summary
from benchmarks.memory import ROOT
from benchmarks.settings import StartupSettings
from core.io.errors import InputError, TrainingError

TITLE = "Start-up"
ABOUT = (
    "Each command in a fresh process, from its start to its end, compared with a process that only imports "
    "torch. An unknown name is that of a dataset, run, model, folder or table. Imports are those of the "
    "modules that a command needs for its work, which it imports once its command line is checked. The call "
    "that warms up leaves bytecode and libraries in the system's cache."
)
TORCH = "import torch"
WRONG_FLAG = "--no-such-flag"
# Relative to the import of torch: 0.7 and 2.2 seconds where that takes 1.5.
MAX_HELP = 0.47  # of help and bad input
MAX_IMPORT = 1.47  # of what trains


def measure(settings: StartupSettings, device: torch.device, findings: Findings) -> None:
    """Measure help, a wrong flag, an unknown name and the imports of each command; the device is not used."""
    unknown = [name for name in settings.commands if name not in COMMANDS]
    if unknown:
        raise InputError(f"--startup.commands has {unknown[0]!r}; it may have {', '.join(COMMANDS)}")
    subjects = {f"{case}: {name}": make(name) for case, make in CASES.items() for name in settings.commands}
    seconds = interleaved({TORCH: lambda: run_code(TORCH), **subjects}, settings.rounds)
    for case in CASES:
        summaries = {name: summary(seconds[f"{case}: {name}"]) for name in settings.commands}
        findings.add_comparison(case, {TORCH: summary(seconds[TORCH]), **summaries})
    state_goals(findings)


def state_goals(findings: Findings) -> None:
    """The slowest command of each case beside the import of torch; of imports, the slowest that trains."""
    for comparison in findings.comparisons:
        case = comparison["case"]
        ratios = {
            name: ratio
            for name, ratio in comparison["ratios"].items()
            if case != IMPORTS or name.endswith(".train")
        }
        if ratios:
            slowest = max(ratios, key=ratios.__getitem__)
            at_most = MAX_IMPORT if case == IMPORTS else MAX_HELP
            findings.goal(f"{case}, the slowest ({slowest}) beside {TORCH}", ratios[slowest], at_most)


def help_of(name: str) -> Callable[[], None]:
    return lambda: run(["-m", name, "--help"], code=0)


def wrong_flag_of(name: str) -> Callable[[], None]:
    return lambda: run(["-m", name, *COMMANDS[name].unknown, WRONG_FLAG], code=2)


def unknown_name_of(name: str) -> Callable[[], None]:
    return lambda: run(["-m", name, *COMMANDS[name].unknown], code=2)


def imports_of(name: str) -> Callable[[], None]:
    return lambda: run_code(f"import {', '.join((name, *COMMANDS[name].works_with))}")


IMPORTS = "imports"
CASES = {
    "--help": help_of,
    "a wrong flag": wrong_flag_of,
    "an unknown name": unknown_name_of,
    IMPORTS: imports_of,
}


def run_code(code: str) -> None:
    run(["-c", code], code=0)


def run(arguments: Sequence[str], code: int) -> None:
    """Run Python and wait for its end; raises TrainingError if the exit code is another one."""
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode != code:
        line = " ".join(["python", *arguments])
        raise TrainingError(f"{line} ended with {ended.returncode}, not {code}:\n{ended.stderr}")
