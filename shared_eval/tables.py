"""Result tables of records: objectives down, datasets across, mean ± standard deviation over seeds.

``table_formats`` writes them for terminals, in Markdown, CSV and LaTeX.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from shared_eval.planned import NO_COMPARISONS, NO_FIGURES, Baseline, Plan, Planned, Primary, Published
from shared_eval.result_table import Comparison, Point, ResultTable, Row, TableCell, at_version
from shared_eval.statistics import Difference, holm, paired_difference

UNTRAINED = "untrained encoder"
# The row of beta 0, tau_plus 0 where modalities, each with its own name for it, share a table.
PLAIN = "plain (beta 0, tau_plus 0)"
SCORES = ("_accuracy", "_f1", "_spearman", "_pearson")  # endings of metrics, of which more is better
# Metrics of runs without labels, shown as they are: of none of them more, or less, is always better.
DESCRIPTIONS = (
    "effective_rank",
    "alignment",
    "uniformity",
    "positive_similarity",
    "hardest_negative_similarity",
    "own_graph_accuracy",  # depends on the batch size
    "next_sentence_accuracy",
)
ORACLE = "best beta (oracle: chosen on the figures themselves)"
Key = tuple[int, str, Baseline]  # of a comparison: the number of its row, its column, its baseline
# Columns that tell one run from another; an export gives all its runs one path.
RUN = ("path", "dataset", "label", "settings", "epochs", "seed", "revision")
BEST_LENGTH = "each seed's best epochs (oracle: chosen on the figures themselves)"


def scores(records: pd.DataFrame) -> pd.DataFrame:
    """The rows whose metric scores a representation, or describes it in a record without any score."""
    is_score = records["metric"].str.endswith(SCORES) & ~records["metric"].isin(DESCRIPTIONS)
    run = [records[name].fillna("") for name in RUN]
    has_scores = is_score.groupby(run).transform("any")
    describes = records["metric"].isin(DESCRIPTIONS) & ~has_scores
    return records[(is_score & ~records["metric"].str.contains("top5")) | describes]


def summarise(
    records: pd.DataFrame,
    published: Published = NO_FIGURES,
    merge: bool = False,
    primary: Planned = NO_COMPARISONS,
) -> ResultTable:
    """Make a table: the untrained encoder first, then objectives by family, tau_plus and beta.

    Columns are ``dataset metric``. Records of different code or settings, or of an unclean work tree, get
    rows of their own (see ``label_versions``) unless ``merge``. Several records of one seed count as their
    mean; equal scores of an untrained encoder, which depend on the seed alone, count as one. Comparisons are
    exploratory unless they are ``primary``: then p is corrected for the number of their plan.
    """
    records = records.assign(column=dataset_names(records) + " " + records["metric"])
    names = dict(zip(records["column"], records["dataset"] + " " + records["metric"], strict=True))
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        plain = records["family"].map(lambda family: _join(PLAIN, family))
        records["label"] = records["label"].mask(is_plain, plain)
    records = label_versions(records, merge)
    modalities = dict(zip(records["column"], records["modality"], strict=True))
    columns = list(modalities)
    records = records.sort_values(["family", "tau_plus", "beta", "epochs", "version"], kind="stable")
    rows = _with_comparisons([*_untrained_rows(records), *_objective_rows(records)], primary, names)
    rows += [
        *_oracle_rows(rows, columns),
        *_best_length_rows(records),
        *_published_rows(names, published),
    ]
    return ResultTable(columns, rows, modalities, names)


def dataset_names(records: pd.DataFrame) -> pd.Series:
    """The dataset of each row, after the modality where two modalities share its name."""
    names = records["dataset"]
    is_shared = records.groupby(names)["modality"].transform("nunique") > 1
    return names.mask(is_shared, records["modality"] + " " + names)


def label_versions(records: pd.DataFrame, merge: bool = False) -> pd.DataFrame:
    """Add a ``version`` to records and to their labels: records of different versions are not averaged.

    A version names the revision if a dataset has records of several, or if the work tree was unclean, the
    settings' fingerprint and the epochs if a dataset has several; none of them if all are to ``merge``. It
    always names the rules of the evaluation if a dataset has records of several: such scores do not compare.
    ``version_at_any_length`` leaves the epochs out.
    """
    dataset = [records["modality"], records["dataset"]]

    def differs(name: str) -> pd.Series:
        return records[name].fillna("").groupby(dataset).transform("nunique") > 1

    revision = records["revision"].fillna("")
    rules = records["evaluation"].where(differs("evaluation"), "")
    code = revision.where(differs("revision") | revision.str.endswith("-dirty"), "")
    settings = records["settings"].where(differs("settings"), "")
    epochs = ("epochs " + records["epochs"].astype(str)).where(differs("epochs"), "")

    def joined(*parts: pd.Series) -> list[str]:
        return ["/".join(filter(None, names)) for names in zip(*parts, strict=True)]

    version = joined(rules) if merge else joined(code, settings, epochs, rules)
    at_any_length = joined(rules) if merge else joined(code, settings, rules)
    labels = [at_version(*pair) for pair in zip(records["label"], version, strict=True)]
    return records.assign(version=version, version_at_any_length=at_any_length, label=labels)


def _join(*parts: str) -> str:
    """The parts that are not empty, joined by commas."""
    return ", ".join(filter(None, parts))


def _untrained_rows(records: pd.DataFrame) -> list[Row]:
    """A row for each encoder and version, in the records' order."""
    untrained = records.dropna(subset="untrained")
    untrained = untrained.drop_duplicates(["column", "seed", "encoder", "version", "untrained"])
    rows = []
    for _, group in untrained.groupby(["encoder", "version"], sort=False):
        encoder, version = group[["encoder", "version"]].iloc[0]
        label = at_version(_join(UNTRAINED, encoder), version)
        rows.append(Row(label, _cells(group, "untrained"), "untrained", version=version))
    return rows


def _objective_rows(records: pd.DataFrame) -> list[Row]:
    """A row for each point and label, in the records' order."""
    rows = []
    for _, group in records.groupby([*Point._fields, "label"], sort=False):
        first = group.iloc[0]
        point = Point(first["family"], first["tau_plus"], first["beta"], first["version"])
        cells = _cells(group, "value")
        for column, before in _cells(group.dropna(subset="untrained"), "untrained").items():
            cells[column] = replace(cells[column], untrained=before.scores)
        names = frozenset(group["objective"])
        label, plain_family = first["label"], first["plain_family"]
        rows.append(Row(label, cells, "objective", point, plain_family, names, point.version))
    return rows


def _cells(records: pd.DataFrame, name: str) -> dict[str, TableCell]:
    """The cells of a row by column, with the values in the records' column ``name``."""
    cells = {}
    for column, group in records.groupby("column", sort=False):
        seeds = group.groupby("seed")[name].mean()
        by_seed = dict(zip(seeds.index.tolist(), seeds.tolist(), strict=True))
        is_score = group["metric"].iloc[0] not in DESCRIPTIONS
        [first, *others] = group["epochs"].unique().tolist()
        epochs = None if others else first
        paths = tuple(group["path"].unique())
        cells[str(column)] = TableCell(by_seed, paths, is_score=is_score, epochs=epochs)
    return cells


def _with_comparisons(rows: list[Row], primary: Planned, names: Mapping[str, str]) -> list[Row]:
    """Add every objective's comparisons, p corrected over the primary ones of a plan.

    A planned comparison that was run at several versions is tested, and counts, once for each.
    """
    differences = _differences(rows)
    chosen = {
        (i, column, baseline): as_primary(rows[i], column, names[column], baseline)
        for i, column, baseline in differences
    }
    planned: dict[Plan, list[Key]] = {}
    for key, name in chosen.items():
        if name is not None and name in primary:
            planned.setdefault(primary[name], []).append(key)
    sizes: dict[Key, int] = {}
    corrected: dict[Key, float] = {}
    for plan, keys in planned.items():
        size = plan.size + len(keys) - len({chosen[key] for key in keys})
        sizes |= dict.fromkeys(keys, size)
        tested = [key for key in keys if differences[key].pairs > 1]
        p_values = holm([differences[key].p for key in tested], size)
        corrected |= zip(tested, p_values.tolist(), strict=True)
    comparisons: dict[tuple[int, str], list[Comparison]] = {}
    for key, difference in differences.items():
        i, column, baseline = key
        comparison = Comparison(baseline, difference, sizes.get(key, 0), corrected.get(key))
        comparisons.setdefault((i, column), []).append(comparison)
    return [
        replace(
            row,
            cells={
                column: replace(cell, comparisons=tuple(comparisons.get((i, column), ())))
                for column, cell in row.cells.items()
            },
        )
        for i, row in enumerate(rows)
    ]


def as_primary(row: Row, column: str, name: str, baseline: Baseline) -> Primary | None:
    """A comparison as recipes have it, its column by ``name``; None of what no recipe can name."""
    epochs = row.cells[column].epochs
    if row.point is None or epochs is None:
        return None
    return Primary(name, epochs, row.point.family, row.point.tau_plus, row.point.beta, baseline)


def _differences(rows: list[Row]) -> dict[Key, Difference]:
    """By row, column and baseline: an objective's difference to the baseline, at the seeds that both have."""
    differences = {}
    for i, row in enumerate(rows):
        baselines = baselines_of(row, rows)
        for column, cell in row.cells.items():
            if row.point is None or not cell.is_score:
                continue
            trained = ((name, other) for name, other in baselines.items() if column in other.cells)
            others = {name: other.cells[column].scores for name, other in trained}
            for baseline, theirs in (*others.items(), ("untrained", cell.untrained)):
                if seeds := sorted(cell.scores.keys() & theirs.keys()):
                    pairs = [cell.scores[seed] for seed in seeds], [theirs[seed] for seed in seeds]
                    differences[i, column, baseline] = paired_difference(*pairs)
    return differences


def baselines_of(row: Row, rows: Iterable[Row]) -> dict[Baseline, Row]:
    """The trained objectives that ``row`` is compared with, of the same version.

    ``beta 0`` has the same family and tau_plus; ``plain`` has neither hardness nor tau_plus. Where these are
    one objective, it is the plain one.
    """
    if row.point is None or not (row.point.beta or row.point.tau_plus):
        return {}
    by_point = {other.point: other for other in rows if other.point is not None}
    counterpart, plain = row.point._replace(beta=0), Point(row.plain_family, 0, 0, row.point.version)
    points: dict[Baseline, Point] = {} if counterpart in (row.point, plain) else {"beta 0": counterpart}
    points["plain"] = plain
    return {baseline: by_point[point] for baseline, point in points.items() if point in by_point}


def _oracle_rows(rows: list[Row], columns: list[str]) -> list[Row]:
    """For each family, tau_plus and version, the best beta on each dataset that has several."""
    groups: dict[Point, list[Row]] = {}
    for row in rows:
        if row.point is not None and row.point.beta > 0:
            groups.setdefault(row.point._replace(beta=0), []).append(row)
    oracles = []
    for point, members in groups.items():
        cells = {}
        for column in columns:
            cells_of_column = [row.cells[column] for row in members if column in row.cells]
            candidates = [cell for cell in cells_of_column if cell.is_score]
            if len(candidates) > 1:
                best = max(candidates, key=lambda cell: cell.mean)
                cells[column] = TableCell(best.scores, best.records)
        label = at_version(_join(ORACLE, f"tau_plus {point.tau_plus:g}", point.family), point.version)
        if cells:
            oracles.append(Row(label, cells, "oracle"))
    return oracles


def _best_length_rows(records: pd.DataFrame) -> list[Row]:
    """Where an objective was trained on a dataset for several numbers of epochs: each seed's best of them.

    This is what choosing an epoch on the reported folds makes of a score.
    """
    records = records[~records["metric"].isin(DESCRIPTIONS)]
    rows = []
    keys = ["family", "tau_plus", "beta", "revision", "settings", "evaluation"]
    for _, group in records.groupby(keys, sort=False, dropna=False):
        group = group[group.groupby("column")["epochs"].transform("nunique") > 1]
        if len(group):
            best = group.loc[group.groupby(["column", "seed"])["value"].idxmax()]
            label, version = group.iloc[0][["label", "version_at_any_length"]]
            label = at_version(_join(label.partition(" @ ")[0], BEST_LENGTH), version)
            rows.append(Row(label, _cells(best, "value"), "oracle"))
    return rows


def _published_rows(names: Mapping[str, str], published: Published) -> list[Row]:
    """A row for each label of published figures that belong in one of the columns, by its name in recipes."""
    columns = {name: column for column, name in names.items()}
    rows: dict[str, dict[str, TableCell]] = {}
    for (label, name), score in published.items():
        if name in columns:
            rows.setdefault(label, {})[columns[name]] = TableCell(
                {0: score.value}, published_deviation=score.deviation
            )
    return [Row(label, cells, "published") for label, cells in rows.items()]
