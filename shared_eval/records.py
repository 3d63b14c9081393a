"""Records: the ``result.json`` of finished runs, read into one table: ``python -m shared_eval.records``."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro
from rich.table import Table

from core.io.errors import InputError
from core.io.files import read_json, readable, write_atomically
from core.training.cli import command, parse
from core.training.config import TrainConfig
from core.training.records import read_record
from shared_eval.outputs import show, writing

NUMBER = int | float
COLUMNS = (
    "modality",
    "dataset",
    "objective",
    "beta",
    "tau_plus",
    "encoder",
    "family",
    "label",
    "seed",
    "epochs",
    "metric",
    "value",
    "untrained",
    "train_seconds",
    "eval_seconds",
    "revision",
    "settings",
    "path",
)

LISTED = ("modality", "dataset", "label", "seed", "metric", "value", "untrained", "revision", "path")
# Settings that rows, columns and seeds of a table stand for, and those that say where a run ran.
NOT_COMPARED = TrainConfig.not_identity | {
    *("dataset", "seed", "objective", "beta", "tau_plus", "variant", "stop_gradient"),
    *("anneal_beta", "positives", "normalize", "denominator", "window", "encoder"),
}


def find_records(roots: Iterable[Path]) -> list[Path]:
    """The ``result.json`` files at or below ``roots``, sorted."""
    return _files_below(roots, "result.json")


def _files_below(roots: Iterable[Path], name: str) -> list[Path]:
    return sorted({path for root in roots if os.path.isdir(root) for path in Path(root).rglob(name)})


def read_records(paths: Iterable[Path]) -> pd.DataFrame:
    """One row for each metric of each record; what is damaged or of another schema is named and left out."""
    rows = []
    for path in paths:
        try:
            rows.extend(_rows(read_record(path), path))
        except (OSError, ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
            print(f"warning: {path} is no whole record ({error!r}) and is left out", file=sys.stderr)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def name_failures(roots: Iterable[Path]) -> None:
    """Say on stderr which runs at or below ``roots`` could not go on, and why."""
    for path in _files_below(roots, "failure.json"):
        try:
            why = read_record(path)["message"]
        except (OSError, ValueError, LookupError) as error:
            why = f"{path.name} cannot be read ({error})"
        print(f"warning: {path.parent} has no record: {why}", file=sys.stderr)


def _rows(record: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    objective = record["objective"]
    _check_kinds(record, modality=str, dataset=str, seed=int, epochs=int)
    _check_kinds(record, train_seconds=NUMBER, eval_seconds=NUMBER, metrics=dict, untrained_metrics=dict)
    _check_kinds(objective, name=str)
    _check_kinds({"beta": None, "tau_plus": None} | objective, beta=NUMBER | None, tau_plus=NUMBER | None)
    _check_kinds({"encoder": None} | objective, encoder=str | None)
    _check_kinds(record["environment"], revision=str | None)
    for metrics in (record["metrics"], record["untrained_metrics"]):
        _check_kinds(metrics, **dict.fromkeys(metrics, NUMBER))
    common = {name: record[name] for name in ("modality", "dataset", "seed", "epochs")}
    common |= {name: record[name] for name in ("train_seconds", "eval_seconds")}
    common |= {name: objective.get(name) for name in ("beta", "tau_plus")}
    common |= {"encoder": objective.get("encoder") or "", "family": ", ".join(objective_details(objective))}
    common |= {"objective": objective["name"], "label": objective_label(objective), "path": str(path)}
    common |= {"revision": record["environment"]["revision"], "settings": settings_fingerprint(path.parent)}
    common = {name: readable(held) if isinstance(held, str) else held for name, held in common.items()}
    if common["path"] != str(path):  # whoever has the row must find its files again
        raise ValueError("the folder's name is no text; rename it")
    return [
        common
        | {
            "metric": readable(metric),
            "value": value,
            "untrained": record["untrained_metrics"].get(metric),
        }
        for metric, value in record["metrics"].items()
    ]


def _check_kinds(holder: dict[str, Any], **kinds: Any) -> None:
    """Raise TypeError where a value is of another kind, or a number that no float holds."""
    for name, kind in kinds.items():
        value = holder[name]
        if not isinstance(value, kind):
            raise TypeError(f"its {name} is {value!r}")
        if isinstance(value, int):
            float(value)


def settings_of(folder: Path) -> dict[str, Any]:
    """A run's settings; none where the folder has a record and no settings that can be read beside it."""
    try:
        settings = read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def settings_fingerprint(folder: Path) -> str:
    """Eight digits that differ where two runs' settings do, beside dataset, objective and seed.

    Empty for a record whose run folder has no settings beside it.
    """
    settings = settings_of(folder)
    if not settings:
        return ""
    kept = {name: value for name, value in settings.items() if name not in NOT_COMPARED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def objective_label(objective: dict[str, Any]) -> str:
    """An objective as a table's row names it, as ``hard, beta 1, tau_plus 0.1``."""
    numbers = [f"{name} {objective[name]:g}" for name in ("beta", "tau_plus") if objective.get(name)]
    return ", ".join([objective["name"], *numbers, *objective_details(objective)])


def objective_details(objective: dict[str, Any]) -> list[str]:
    """What sets an objective apart beside its name and numbers; objectives that share it are a family."""
    details = [
        objective.get("variant") == "released" and bool(objective.get("tau_plus")) and "released",
        objective.get("stop_gradient") and "weights constant",
        objective.get("anneal_beta") == "down" and "annealed",
        objective.get("positives") == "label" and "true positives",
        objective.get("normalize") and "normalized",
        objective.get("denominator") == "all" and "denominator all",
        objective.get("window", 1) > 1 and f"window {objective['window']}",
        objective.get("encoder"),
    ]
    return [detail for detail in details if detail]


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    """List, filter and export the records of finished runs."""

    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Folders to look in."""
    modality: str | None = None
    """image, graph or sentence."""
    dataset: str | None = None
    """Name of the dataset."""
    objective: str | None = None
    """Name of the objective: simclr, infograph, quickthought, debiased, hard."""
    metric: str | None = None
    """Name of the metric."""
    seed: int | None = None
    """Seed."""
    revision: str | None = None
    """Commit that the run was made with, -dirty where the work tree was not clean."""
    clean: bool = False
    """Leave out what was made with an unclean work tree, or outside a checkout."""
    csv: Path | None = None
    """Export as CSV."""
    parquet: Path | None = None
    """Export as Parquet."""


def select(records: pd.DataFrame, config: RecordsConfig) -> pd.DataFrame:
    """The rows that ``config`` asks for."""
    for name in ("modality", "dataset", "objective", "metric", "seed", "revision"):
        wanted = getattr(config, name)
        if wanted is not None:
            records = records[records[name] == wanted]
    if config.clean:
        records = records[~records["revision"].fillna("-dirty").str.endswith("-dirty")]
    return records


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(RecordsConfig, argv, "python -m shared_eval.records")
    for root in config.roots:
        if not os.path.exists(root):
            raise InputError(f"{root} is no folder; name one that holds runs")
    records = select(read_records(find_records(config.roots)), config)
    name_failures(config.roots)
    for path, write in ((config.csv, records.to_csv), (config.parquet, records.to_parquet)):
        if path is not None:
            with writing(path):
                write_atomically(path, lambda file, write=write: write(file, index=False))
    drawn = Table(*LISTED)
    for _, row in records.iterrows():
        drawn.add_row(*(_shown(row[name]) for name in LISTED))
    show(drawn)
    show(f"{records['path'].nunique()} records")


def _shown(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
