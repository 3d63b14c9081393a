"""Tables of records: objectives down, datasets across, mean ± standard deviation over seeds."""

import pandas as pd
from rich.table import Table

UNTRAINED = "untrained encoder"
# The row of beta 0, tau_plus 0 where modalities, each with a name of its own for it, stand side by side.
PLAIN = "plain (simclr, infograph, quickthought)"


def scores(records: pd.DataFrame) -> pd.DataFrame:
    """The records' rows that say how good a representation is; the rest describes it."""
    metrics = records["metric"]
    return records[metrics.str.endswith(("_accuracy", "_f1", "_spearman")) & ~metrics.str.contains("top5")]


def summarise(records: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of seeds: a row an objective, the untrained encoder first.

    Columns are ``dataset metric``, cells text in percent; an empty cell has no record. The untrained
    encoder's score depends on the seed alone, so each seed counts once there.
    """
    records = records.assign(column=records["dataset"] + " " + records["metric"])
    if records["modality"].nunique() > 1:
        is_plain = (records["beta"] == 0) & (records["tau_plus"] == 0)
        records["label"] = records["label"].mask(is_plain, PLAIN)
    untrained = records.dropna(subset="untrained").drop_duplicates(["column", "seed"])
    untrained = untrained.assign(label=UNTRAINED, value=untrained["untrained"], rank=0)
    trained = records.assign(rank=1)
    everything = pd.concat([untrained, trained])
    keys = ["rank", "variant", "beta", "tau_plus"]
    order = everything.fillna({"variant": ""}).sort_values(keys, kind="stable")["label"].drop_duplicates()
    cells = everything.groupby(["label", "column"])["value"].agg(format_mean).unstack(fill_value="")
    return cells.reindex(index=order.to_list(), columns=records["column"].drop_duplicates().to_list())


def format_mean(values: pd.Series) -> str:
    """Fractions as ``84.2 ± 1.3 (10)``: percent, and in brackets the number of seeds."""
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread} ({len(values)})"


def to_terminal(table: pd.DataFrame, title: str) -> Table:
    """The table for a terminal."""
    drawn = Table("objective", *table.columns, title=title, title_justify="left")
    for label, cells in table.iterrows():
        drawn.add_row(str(label), *cells)
    return drawn


def to_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    rows = [["objective", *table.columns], ["---"] * (1 + len(table.columns))]
    rows += [[str(label), *cells] for label, cells in table.iterrows()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
