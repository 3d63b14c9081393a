"""Compare two runs, or two folders of runs: ``python -m shared_eval.compare A B``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from core.io.errors import InputError
from core.training.cli import command, parse
from shared_eval.outputs import show
from shared_eval.records import find_records, read_records, warn_failed_runs


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare the scores of two runs, or of two folders of runs, and list the settings that differ.

    A difference is the second's score less the first's. p is corrected by Holm over all metrics shown."""

    first: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or a folder of runs."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(CompareConfig, argv, "python -m shared_eval.compare")
    sides = []
    for folder in (config.first, config.second):
        paths = find_records([folder])
        if not paths:
            raise InputError(f"no result.json at or below {folder}; name a finished run, or a folder of runs")
        sides.append(read_records(paths))
    warn_failed_runs((config.first, config.second))
    # Imported here because SciPy is slow, and help and errors do not need it.
    from shared_eval.comparison import (
        compare_scores,
        different_settings,
        mixed_in,
        scores_table,
        settings_table,
    )

    scores = compare_scores(*sides)
    if scores.empty:
        raise InputError(f"{config.first} and {config.second} share no dataset and metric")
    for name, side in zip(("first", "second"), sides, strict=True):
        for what, values in mixed_in(side).items():
            print(f"warning: the {name} has runs of several {what} ({values})", file=sys.stderr)
    rules = [", ".join(sorted(set(side["evaluation"]))) or "not recorded" for side in sides]
    if rules[0] != rules[1]:
        print(
            f"warning: the first was evaluated by other rules ({rules[0]}) than the second ({rules[1]}); "
            "their scores do not compare",
            file=sys.stderr,
        )
    if (scores["seeds"] == 0).any():
        print("warning: where seeds is 0, both means are of different seeds", file=sys.stderr)
    show(scores_table(scores))
    first, second = ([Path(path) for path in side["path"].unique()] for side in sides)
    differences = different_settings(first, second)
    if differences:
        show(settings_table(differences))


if __name__ == "__main__":
    main()
