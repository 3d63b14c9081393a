"""Two runs, or two folders of runs, side by side: ``python -m shared_eval.compare A B``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from rich.table import Table

from core.io.errors import InputError
from core.io.files import read_json
from core.training.cli import command, parse
from shared_eval.outputs import show
from shared_eval.records import find_records, read_records, settings_of
from shared_eval.statistics import holm, paired_difference


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare the scores of two runs, or of two folders of runs, and the settings in which they differ."""

    first: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or a folder of runs."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another."""


def compare_scores(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row for each dataset and metric that both have: means, and the difference at the same seeds.

    Objectives that both have are compared each with itself; where they share none, the one that each holds.
    p is corrected for the number of rows. Raises InputError where a seed has several runs: what is counted
    more than once would make any difference look sure.
    """
    shared = set(first["label"]) & set(second["label"])
    keys = ["dataset", "metric", *(["label"] if shared else [])]
    for name, side in (("first", first), ("second", second)):
        repeated = side[side.duplicated([*keys, "seed"])]
        if len(repeated):
            paths = side[side["seed"] == repeated["seed"].iloc[0]]["path"].unique()
            raise InputError(
                f"the {name} folder has several runs of one seed ({', '.join(paths[:2])}); "
                "name folders with one run a seed, such as an objective's"
            )
    rows = []
    for key, of_first in first.groupby(keys, sort=False):
        of_second = second[(second[keys] == pd.Series(dict(zip(keys, key, strict=True)))).all(axis=1)]
        pairs = of_first.merge(of_second, on=[*keys, "seed"], suffixes=("_first", "_second"))
        if of_second.empty:
            continue
        row = dict(zip(keys, key, strict=True))
        row |= {
            "first": of_first["value"].mean(),
            "second": of_second["value"].mean(),
            "seeds": pairs["seed"].nunique(),
        }
        if len(pairs):
            difference = paired_difference(pairs["value_second"], pairs["value_first"])
            row |= {name: getattr(difference, name) for name in ("mean", "low", "high", "p")}
        rows.append(row)
    table = pd.DataFrame(rows)
    if "p" in table:
        tested = table["p"].notna()
        table.loc[tested, "p"] = holm(table.loc[tested, "p"])
    return table


def different_settings(first: Sequence[Path], second: Sequence[Path]) -> dict[str, tuple[list, list]]:
    """The settings that are not the same in both, with the values that each has."""

    def values(paths: Sequence[Path]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path in paths:
            for name, value in _facts(path.parent).items():
                found.setdefault(name, set()).add(json.dumps(value))
        return found

    ours, theirs = values(first), values(second)
    return {
        name: (sorted(ours.get(name, ())), sorted(theirs.get(name, ())))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def _facts(folder: Path) -> dict:
    """A run's settings, and what of its environment bears on figures."""
    environment = read_json(folder / "result.json")["environment"]
    kept = ("revision", "torch", "device", "device_name")
    return settings_of(folder) | {name: environment[name] for name in kept if name in environment}


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(CompareConfig, argv, "python -m shared_eval.compare")
    paths = []
    for folder in (config.first, config.second):
        found = find_records([folder])
        if not found:
            raise InputError(f"no result.json at or below {folder}; name a finished run, or a folder of runs")
        paths.append(found)
    records = [read_records(of_folder) for of_folder in paths]
    paths = [[Path(path) for path in of_folder["path"].unique()] for of_folder in records]
    scores = compare_scores(*records)
    if scores.empty:
        raise InputError(f"{config.first} and {config.second} share no dataset and metric")
    names = [name for name in ("dataset", "label", "metric") if name in scores]
    drawn = Table(*names, "first", "second", "difference", "95 % interval", "p (Holm)", "seeds")
    for _, row in scores.iterrows():
        numbers = [f"{row['first']:.4f}", f"{row['second']:.4f}"]
        paired = "mean" in row and not pd.isna(row["mean"])
        numbers.append(f"{row['mean']:+.4f}" if paired else "")
        sure = paired and not pd.isna(row["low"])
        numbers += [f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['p']:.3f}"] if sure else ["", ""]
        drawn.add_row(*(str(row[name]) for name in names), *numbers, str(row["seeds"]))
    show(drawn)
    settings = Table("setting", "first", "second", title="what differs", title_justify="left")
    for name, values in different_settings(*paths).items():
        settings.add_row(name, *(", ".join(of_folder) for of_folder in values))
    if settings.row_count:
        show(settings)


if __name__ == "__main__":
    main()
