"""Results on disk: a JSON file per part, and one page made from all of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.io.errors import InputError
from core.io.files import read_json, write_atomically

SCHEMA = 1
COLUMNS = ("case", "subject", "median", "fastest to slowest", "rounds", "rate", "relative time")
COLUMNS += ("peak memory", "relative memory")
INTRODUCTION = (
    "# Speed and memory\n\n"
    "Made by `python -m benchmarks`; `--page` makes it again from the JSON files in this folder, one per "
    "part. The subjects of a case are warmed up and then alternate. Times are medians of the rounds, with "
    "the fastest and the slowest. Relative time and memory are multiples of the first subject of the case.\n"
)


def write_part(folder: Path, record: dict[str, Any]) -> Path:
    """Write a part's record as ``PART.json``; raises InputError if that cannot be done."""
    path = folder / f"{record['part']}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"schema": SCHEMA} | record, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written: {error.strerror}") from error
    return path


def read_parts(folder: Path, names: Iterable[str]) -> dict[Path, dict[str, Any]]:
    """Read the existing records in the order of ``names``; raises InputError if one cannot be read."""
    records = {}
    for path in (folder / f"{name}.json" for name in names):
        if not path.exists():
            continue
        try:
            record = read_json(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); measure it again, or remove it") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise InputError(f"{path} is not of schema {SCHEMA}; measure it again, or remove it")
        records[path] = record
    return records


def write_page(folder: Path, names: Iterable[str]) -> Path:
    """Write ``README.md`` and its figures from the records in ``folder``."""
    records = read_parts(folder, names)
    if not records:
        raise InputError(f"{folder} holds no results; measure some with python -m benchmarks")
    from benchmarks.figure import write_figure

    rows, sections = [], []
    for path, record in records.items():
        try:
            rows.append(machine(record))
            sections += section(record, write_figure(folder, record))
        except KeyError as error:
            raise InputError(f"{path} has no {error}; measure it again, or remove it") from error
    head = ("part", "machine", "versions", "revision", "mode", "took")
    path = folder / "README.md"
    write_atomically(path, "\n".join([INTRODUCTION, *table(head, rows), *sections]) + "\n")
    return path


def machine(record: dict[str, Any]) -> tuple[str, ...]:
    """Where and how a part was measured."""
    here = record["environment"]
    cores, size = here["cores"], memory(here["memory_bytes"])
    where = f"{here['device_name']} ({here['device']}), {here['threads']} of {cores} cores, {size}"
    versions = f"Python {here['python']}, torch {here['torch']}"
    mode = "quick" if record["quick"] else "full"
    return record["title"], where, versions, here["revision"], mode, duration(record["seconds"])


def section(record: dict[str, Any], figure: str | None) -> list[str]:
    """One part of the page."""
    lines = [f"\n## {record['title']}", "", record["about"], ""]
    if figure:
        lines += [f"![{record['title']}]({figure}.png)", "", f"([as SVG]({figure}.svg))", ""]
    lines += comparisons(record["comparisons"])
    if record["goals"]:
        rows = map(goal_row, record["goals"])
        lines += ["", *table(("goal", "measured", "at most", "met"), rows)]
    if record["shares"]:
        rows = [(share["what"], shares(share["parts"])) for share in record["shares"]]
        lines += ["", *table(("where the time goes", "largest first"), rows)]
    for note in record["notes"]:
        lines += ["", note]
    packages = ", ".join(f"{name} {version}" for name, version in record["environment"]["packages"].items())
    settings = f"settings `{json.dumps(record['settings'])}`; packages: {packages}"
    return [*lines, "", f"<details><summary>Settings and versions</summary>\n\n{settings}\n\n</details>"]


def comparisons(records: list[dict[str, Any]]) -> list[str]:
    """All comparisons of a part in one table, without empty columns."""
    rows = [subject_row(comparison, name) for comparison in records for name in comparison["subjects"]]
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    return table(columns, [[row[name] for name in columns] for row in rows]) if rows else []


def subject_row(comparison: dict[str, Any], name: str) -> dict[str, str]:
    """The results of one subject, or why there are none."""
    subject = comparison["subjects"][name]
    row = dict.fromkeys(COLUMNS, "") | {"case": comparison["case"], "subject": name}
    if "peak_bytes" in subject:
        row["peak memory"] = memory(subject["peak_bytes"])
        row["relative memory"] = number(comparison["memory_ratios"].get(name))
    if "median_seconds" not in subject:
        return row | {"median": subject["failed"]}
    fastest, slowest = (duration(subject[f"{which}_seconds"]) for which in ("fastest", "slowest"))
    row["median"] = duration(subject["median_seconds"])
    row["fastest to slowest"] = f"{fastest} to {slowest}" if subject["rounds"] > 1 else ""
    row["rounds"] = str(subject["rounds"])
    row["relative time"] = number(comparison["ratios"].get(name))
    if "per_second" in subject:
        row["rate"] = f"{subject['per_second']:,.0f} {comparison['unit']} a second"
    return row


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of a Markdown table."""
    head = list(head)
    return ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]


def shares(parts: dict[str, float]) -> str:
    """The fractions of at least one percent."""
    return ", ".join(f"{name} {part:.0%}" for name, part in parts.items() if part >= 0.01)


def goal_row(goal: dict[str, Any]) -> tuple[str, str, str, str]:
    """A goal, what was measured, and whether it is met."""
    measured, at_most = (f"{goal[key]:.3g} {goal['unit']}" for key in ("measured", "at_most"))
    return goal["goal"], measured, at_most, "yes" if goal["measured"] <= goal["at_most"] else "no"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def duration(seconds: float) -> str:
    """Three digits, in a suitable unit."""
    return scaled(seconds, ((60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")))


def memory(count: float) -> str:
    """Three digits, in a suitable unit."""
    return scaled(count, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))


def scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    digits = max(0, 2 - len(str(int(value / size))) + 1)
    return f"{value / size:.{digits}f} {unit}"
