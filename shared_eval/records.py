"""Records: read the ``result.json`` of finished runs into one table: ``python -m shared_eval.records``."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from core.io.digests import checksum
from core.io.errors import InputError, reason_of
from core.io.files import check_regular, read_json, readable, walk
from core.training.cli import command, parse, with_flags
from core.training.config import TrainConfig
from core.training.records import objective_fields, read_record
from shared_eval.outputs import check_output, show, text_table, write_output

if TYPE_CHECKING:
    import pandas as pd

NUMBER = (int, float)
Types = dict[str, type | tuple[type, ...]]
RECORD_TYPES: Types = {
    "modality": str,
    "dataset": str,
    "seed": int,
    "epochs": int,
    "train_seconds": NUMBER,
    "eval_seconds": NUMBER,
    "evaluation": str,
    "metrics": dict,
    "untrained_metrics": dict,
}
OBJECTIVE_TYPES: Types = {
    "name": str,
    "beta": NUMBER,
    "tau_plus": NUMBER,
    "encoder": (str, type(None)),
    "label": str,
    "family": str,
    "plain_family": str,
}
COLUMNS = (
    *("modality", "dataset", "objective", "beta", "tau_plus", "encoder", "family", "plain_family", "label"),
    *("seed", "epochs", "metric", "value", "untrained", "train_seconds", "eval_seconds"),
    *("revision", "settings", "evaluation", "path"),
)
NUMBERS = {
    **dict.fromkeys(("seed", "epochs"), int),
    **dict.fromkeys(("beta", "tau_plus", "value", "untrained", "train_seconds", "eval_seconds"), float),
}
EXPORT = "records.csv"  # name of the file of a study that keeps its records in one file
LISTED = ("modality", "dataset", "label", "seed", "metric", "value", "untrained", "revision", "path")
# Settings that a table shows as rows, columns, seeds and versions, or that say where a run was made.
NOT_COMPARED = TrainConfig.not_identity | {
    *("dataset", "seed", "objective", "beta", "tau_plus", "epochs", "objective_fields")
}


def check_folders(roots: Iterable[Path]) -> None:
    """Raise InputError if one of the roots is not a folder."""
    for root in roots:
        if not os.path.isdir(root):
            raise InputError(f"{root} is not a folder; name one with runs in it")


def find_records(roots: Iterable[Path]) -> list[Path]:
    """The ``result.json`` files at or below ``roots``, sorted; links to folders are followed.

    Hidden folders below the roots are left out, and those that cannot be read, which a warning names.
    """
    return find_records_and_exports(roots)[0]


def find_records_and_exports(roots: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The ``result.json`` and the ``records.csv`` files, as ``find_records`` finds them, by one walk."""

    def warn(error: OSError) -> None:
        where, why = error.filename, error.strerror
        print(f"warning: {where} cannot be searched for runs and is skipped ({why})", file=sys.stderr)

    records, exports = _files_below(roots, ("result.json", EXPORT), warn)
    return records, exports


def _files_below(
    roots: Iterable[Path], names: Sequence[str], on_error: Callable[[OSError], None]
) -> list[list[Path]]:
    """The files of each name, sorted; ``on_error`` is called for each folder that cannot be read."""
    found: dict[str, set[Path]] = {name: set() for name in names}
    for root in roots:
        for file, hidden in walk(root, on_error) if os.path.isdir(root) else ():
            if not hidden and (name := os.path.basename(file)) in found:
                found[name].add(Path(file))
    return [sorted(found[name]) for name in names]


def read_records(paths: Iterable[Path]) -> "pd.DataFrame":
    """One row for each metric of each record; a warning names files that are not valid, or have no scores."""
    import pandas as pd  # slow to import, and help and errors do not need it

    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            found = _rows(read_record(path), path)
            if not found:
                print(f"warning: {path} has no scores and is left out", file=sys.stderr)
            rows.extend(found)
        except (OSError, ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
            why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else reason_of(error)
            print(f"warning: {path} is not a valid record and is skipped ({why})", file=sys.stderr)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_export(path: Path) -> "pd.DataFrame":
    """The rows that ``--csv`` wrote, with ``path`` as the path of them all. Raises InputError for others."""
    import pandas as pd  # slow to import, and help and errors do not need it

    missing = {"untrained": [""], "revision": [""]}  # all other columns may say "NA"
    try:
        check_regular(path)
        # Numbers are parsed after reading: read_csv of pandas below 3.1 rounds their last digit.
        texts = pd.read_csv(path, usecols=list(COLUMNS), dtype=str, keep_default_na=False, na_values=missing)
        rows = texts[list(COLUMNS)].astype(NUMBERS)
        _check_export(rows, path)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is not what python -m shared_eval.records --csv writes: {reason_of(error)}"
        ) from error
    return rows.assign(revision=rows["revision"].map(short_revision, na_action="ignore"), path=str(path))


def _check_export(rows: "pd.DataFrame", path: Path) -> None:
    """Raise ValueError if there are no rows, if a score is not finite, or if the path is not valid text."""
    if rows.empty:
        raise ValueError("it has no records")
    for scores in (rows["value"], rows["untrained"].dropna()):
        if not scores.map(math.isfinite).all():
            raise ValueError("its scores are not all finite")
    _check_text(path)


def warn_failed_runs(roots: Iterable[Path]) -> None:
    """Print a warning for each run at or below ``roots`` that failed, with the reason it recorded."""
    [failures] = _files_below(roots, ("failure.json",), lambda error: None)
    for path in failures:
        try:
            reason = with_flags(str(read_record(path)["message"]))
        except (OSError, ValueError, LookupError) as error:
            reason = f"{path.name} cannot be read ({error})"
        print(f"warning: {path.parent} has no record: {reason}", file=sys.stderr)


def warn_repeated_seeds(records: "pd.DataFrame") -> None:
    """Print a warning if a seed has several runs of the same code and settings: they count as their mean."""
    keys = ["modality", "dataset", "label", "settings", "epochs", "revision", "evaluation", "seed"]
    repeated = records[records.duplicated([*keys, "metric"], keep=False)]
    if len(repeated):
        count, paths = len(repeated.drop_duplicates(keys)), repeated["path"].unique()
        print(
            f"warning: {count} seed{'s' * (count > 1)} with several runs, which count as their mean: "
            f"{', '.join(paths[:2])}{', ...' * (len(paths) > 2)}",
            file=sys.stderr,
        )


def _rows(record: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    record = {"evaluation": ""} | record
    objective = {"encoder": None} | record["objective"]
    _check_types(record, RECORD_TYPES)
    _check_types(objective, OBJECTIVE_TYPES)
    _check_types(record["environment"], {"revision": (str, type(None))})
    for metrics in (record["metrics"], record["untrained_metrics"]):
        _check_types(metrics, dict.fromkeys(metrics, NUMBER))
        if not all(map(math.isfinite, metrics.values())):
            raise ValueError(f"its scores are not all finite: {metrics}")
    row = record | {name: objective[name] for name in OBJECTIVE_TYPES}
    row |= {"objective": objective["name"], "encoder": objective["encoder"] or ""}
    revision = short_revision(record["environment"]["revision"])
    row |= {"revision": revision, "settings": settings_fingerprint(path.parent)}
    row = {name: readable(value) if isinstance(value, str) else value for name, value in row.items()}
    _check_text(path)
    untrained = record["untrained_metrics"]
    return [
        row | {"metric": readable(name), "value": value, "untrained": untrained.get(name), "path": str(path)}
        for name, value in record["metrics"].items()
    ]


def short_revision(revision: str | None) -> str | None:
    """A commit with seven digits, and its ``-dirty``: git gives it more in a clone with more objects."""
    if revision is None:
        return None
    commit, dirty, _ = revision.partition("-dirty")
    return commit[:7] + dirty


def _check_text(path: Path) -> None:
    """Raise ValueError if the path cannot be written as text: that of a row must open its file."""
    if readable(str(path)) != str(path):
        raise ValueError("the folder's name is not valid text; rename it")


def _check_types(values: Mapping[str, Any], types: Types) -> None:
    """Raise TypeError where a value has another type, OverflowError where a float cannot hold an integer."""
    for name, expected in types.items():
        value = values[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise TypeError(f"its {name} is {value!r}")
        if isinstance(value, int):
            float(value)


def settings_of(folder: Path) -> dict[str, Any]:
    """A run's settings; empty if ``config.json`` is missing or cannot be read."""
    try:
        settings = read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def settings_fingerprint(folder: Path) -> str:
    """Eight digits that differ where two runs' settings do, apart from dataset, objective and seed.

    Empty for a record without settings beside it. Raises ValueError if they cannot be read.
    """
    settings = settings_of(folder)
    if not settings:
        if (folder / "config.json").exists():
            raise ValueError("its config.json is damaged")
        return ""
    not_compared = NOT_COMPARED | objective_fields(settings)
    compared = {name: value for name, value in settings.items() if name not in not_compared}
    return checksum([json.dumps(compared, sort_keys=True)])[:8]


@dataclass(frozen=True, kw_only=True)
class RecordsConfig:
    """List, filter and export the records of finished runs."""

    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Folders to search."""
    modality: str | None = None
    """image, graph or sentence."""
    dataset: str | None = None
    """Name of the dataset."""
    objective: str | None = None
    """Name of the objective, such as debiased."""
    metric: str | None = None
    """Name of the metric."""
    seed: int | None = None
    """Seed."""
    revision: str | None = None
    """Commit that the run was made with; it ends in -dirty if the work tree was not clean."""
    clean: bool = False
    """Leave out runs made with an unclean work tree, or outside a checkout."""
    csv: Path | None = None
    """Export as CSV."""
    parquet: Path | None = None
    """Export as Parquet."""


def select(records: "pd.DataFrame", config: RecordsConfig) -> "pd.DataFrame":
    """The rows that ``config`` asks for; raises InputError, with those that are there, if there are none."""
    config = replace(config, revision=short_revision(config.revision))
    for name in ("modality", "dataset", "objective", "metric", "seed", "revision"):
        wanted = getattr(config, name)
        if wanted is not None:
            known = sorted(map(str, records[name].dropna().unique()))
            records = records[records[name] == wanted]
            if known and records.empty:
                raise InputError(f"no record has `{name}` {wanted}; there are {', '.join(known)}")
    if config.clean:
        records = records[~records["revision"].fillna("-dirty").str.endswith("-dirty")]
    return records


@command
def main(argv: Sequence[str] | None = None) -> None:
    config = parse(RecordsConfig, argv, "python -m shared_eval.records")
    for name in ("csv", "parquet"):
        path = getattr(config, name)
        if path is not None:
            check_output(path, overwrite=True, suffixes=(f".{name}",), name=name)
    check_folders(config.roots)
    records = select(read_records(find_records(config.roots)), config)
    warn_failed_runs(config.roots)
    if config.csv is not None:
        write_output(config.csv, records.to_csv(index=False))
    if config.parquet is not None:
        write_output(config.parquet, records.to_parquet(index=False))
    rows = records[list(LISTED)].to_dict("records")
    show(text_table(LISTED, ([_shown(value) for value in row.values()] for row in rows)))
    show(f"{records['path'].nunique()} records")


def _shown(value: Any) -> str:
    if value is None or value != value:  # nan
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
