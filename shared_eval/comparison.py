"""What two sets of runs have in common and where they differ: scores and settings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from core.io.errors import InputError
from core.io.files import read_json
from core.training.config import TrainConfig
from shared_eval.outputs import text_table
from shared_eval.records import settings_of, short_revision
from shared_eval.statistics import holm, paired_difference

# Settings that change no score, and a list that describes the others; the device is in the environment.
NOT_SHOWN = TrainConfig.not_identity - {"deterministic"} | {"objective_fields"}
# What one objective's runs on a dataset should have in common, and its plural.
MIXED = {"revision": "revisions", "evaluation": "rules of evaluation", "settings": "settings"}


def compare_scores(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row for each dataset and metric that both have: means and their difference at the same seeds.

    Where they share no seed, the means are over all of each and there is no difference.

    Objectives that both have are each compared with themselves; if they share none, the only one of each is
    compared. p is corrected for the number of rows that have one.

    Raises:
        InputError: They share no objective and one has several, or a seed has several runs; counted more than
            once, it would make any difference significant.
    """
    shares_labels = bool(set(first["label"]) & set(second["label"]))
    keys = ["modality", "dataset", "metric", *(["label"] if shares_labels else [])]
    for name, side in (("first", first), ("second", second)):
        repeated = side[side.duplicated([*keys, "seed"])]
        if len(repeated):
            is_same = (side[[*keys, "seed"]] == repeated[[*keys, "seed"]].iloc[0]).all(axis=1)
            paths = side[is_same]["path"].unique()
            raise InputError(
                f"the {name} folder has several runs of one seed ({', '.join(paths[:2])}); "
                "name folders with one run for each seed, such as an objective's"
            )
        if not shares_labels and side["label"].nunique() > 1:
            labels = "; ".join(side["label"].unique())
            raise InputError(
                f"the folders share no objective, and the {name} has several ({labels}); "
                "name the folder of one of them"
            )
    rows = []
    groups = dict(iter(second.groupby(keys)))
    for key, group in first.groupby(keys, sort=False):
        if key not in groups:
            continue
        other = groups[key]
        pairs = group.merge(other, on=[*keys, "seed"], suffixes=("_first", "_second"))
        row: dict[str, Any] = {name: group[name].iloc[0] for name in keys}
        first_values, second_values = group["value"], other["value"]
        if len(pairs):
            first_values, second_values = pairs["value_first"], pairs["value_second"]
            difference = paired_difference(second_values, first_values)
            row |= {name: getattr(difference, name) for name in ("mean", "low", "high", "p")}
        row |= {"first": first_values.mean(), "second": second_values.mean(), "seeds": len(pairs)}
        rows.append(row)
    table = pd.DataFrame(rows)
    if "p" in table:
        tested = table["p"].notna()
        table["p"] = pd.Series(holm(table["p"][tested]), index=table.index[tested])
    return table


def mixed_in(side: pd.DataFrame) -> dict[str, str]:
    """What differs among a side's runs of one objective on one dataset, though only the seed should."""
    groups = side.fillna(dict.fromkeys(MIXED, "not recorded")).groupby(["modality", "dataset", "label"])
    found = {}
    for name, what in MIXED.items():
        several = [values for values in groups[name].unique() if len(values) > 1]
        if several:
            found[what] = ", ".join(str(value) or "not recorded" for value in several[0])
    return found


def different_settings(
    first: Sequence[Path], second: Sequence[Path]
) -> dict[str, tuple[list[str], list[str]]]:
    """The settings that differ between two sets of records, each with its values in both."""

    def values(paths: Sequence[Path]) -> dict[str, set[str]]:
        by_name: dict[str, set[str]] = {}
        for path in paths:
            for name, value in _settings_and_environment(path.parent).items():
                by_name.setdefault(name, set()).add(json.dumps(value))
        return by_name

    ours, theirs = values(first), values(second)
    return {
        name: (sorted(ours.get(name, ())), sorted(theirs.get(name, ())))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def _settings_and_environment(folder: Path) -> dict[str, Any]:
    """A run's settings, and what else can change its scores: of its environment, and how they are made."""
    record = read_json(folder / "result.json")
    settings, environment = settings_of(folder), record["environment"]
    if "evaluation" in record:
        settings["evaluation"] = record["evaluation"]
    for name in NOT_SHOWN:
        settings.pop(name, None)
    environment["revision"] = short_revision(environment["revision"])
    names = ("revision", "torch", "device", "device_name")
    return settings | {name: environment[name] for name in names if name in environment}


def scores_table(scores: pd.DataFrame) -> Table:
    """What ``compare_scores`` returns, as a table for a terminal."""
    names = [name for name in ("dataset", "label", "metric") if name in scores]
    head = [*names, "first", "second", "difference", "95 % interval", "p (Holm)", "seeds"]
    rows = []
    for row in scores.to_dict("records"):
        difference = interval = p = ""
        if not pd.isna(row.get("mean")):
            difference = f"{row['mean']:+.4f}"
        if not pd.isna(row.get("low")):
            interval, p = f"{row['low']:+.4f} to {row['high']:+.4f}", f"{row['p']:.3f}"
        means = [f"{row['first']:.4f}", f"{row['second']:.4f}"]
        rows.append([*(str(row[name]) for name in names), *means, difference, interval, p, str(row["seeds"])])
    return text_table(head, rows)


def settings_table(differences: dict[str, tuple[list[str], list[str]]]) -> Table:
    """What ``different_settings`` returns, as a table for a terminal."""
    rows = ([name, *map(", ".join, values)] for name, values in differences.items())
    return text_table(["setting", "first", "second"], rows, "different settings")
