"""Parsers of command lines."""

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import strategies as st

import graph.config
import graph.evaluate
import image.config
import image.evaluate
import sentence.config
import sentence.evaluate
from core.training.cli import flag, parse, parse_config
from core.training.config import MAX_SEED
from core.training.runtime import choose_device
from core.training.settings import MAX_FLOAT
from shared_eval import compare, records, report, reproduce
from tests.faults.inputs import encoded

TRAINERS = {
    "graph": (graph.config.GraphConfig, graph.config.defaults_for),
    "image": (image.config.ImageConfig, image.config.defaults_for),
    "sentence": (sentence.config.SentenceConfig, sentence.config.defaults_for),
}
EVALUATORS = (
    graph.evaluate.EvaluateConfig,
    image.evaluate.EvaluateConfig,
    sentence.evaluate.EvaluateConfig,
)
# Run in an empty folder, where they have no records, or only plan.
COMMANDS = {
    records.RecordsConfig: records.main,
    compare.CompareConfig: compare.main,
    report.ReportConfig: report.main,
    reproduce.ReproduceConfig: reproduce.main,
}
WORDS = st.sampled_from(
    [
        *("0", "1", "-1", "0.5", "nan", "inf", "-inf", "1e999", "10" * 40, "", " ", "-", "--", "=", "@x"),
        *("hard", "debiased", "simclr", "gru", "MUTAG", "folder:x", "auto", "--help", "None", "True"),
        *("a\nb", "\udcff", "x" * 3000, "x[/bold]", "meta", "demo", "1e30", "1e300", "9" * 9, "1" + 30 * "0"),
    ]
)


def command_lines() -> st.SearchStrategy[tuple[str | type, list[str]]]:
    def flags_for(kind: str | type) -> st.SearchStrategy:
        settings = fields(TRAINERS[kind][0] if isinstance(kind, str) else kind)
        flags = st.sampled_from([flag(field.name) for field in settings])
        parts = st.one_of(
            st.tuples(flags, WORDS),
            st.tuples(flags),
            st.tuples(WORDS),
            st.builds(lambda name, word: (f"{name}={word}",), flags, WORDS),
            st.tuples(st.text(max_size=8).filter(lambda word: not {"\0", "/"} & set(word))),
        )
        return st.lists(parts, max_size=4).map(
            lambda parts: (kind, [word for part in parts for word in part])
        )

    return st.sampled_from([*TRAINERS, *EVALUATORS, *COMMANDS]).flatmap(flags_for)


def read_command_line(given: tuple[str | type, Sequence[str]], folder: Path) -> None:
    """Parse command lines of training and evaluation; run the other commands."""
    kind, argv = given
    try:
        if kind in COMMANDS:
            only = ["--dry-run"] if kind is reproduce.ReproduceConfig else []
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(encoded()):
                patch.chdir(folder)
                COMMANDS[kind].__wrapped__([*argv, *only])
        elif kind in EVALUATORS:
            choose_device(parse(kind, argv, "python -m command").device)
        else:
            config = parse_config(*TRAINERS[kind], argv, f"python -m {kind}.train")
            choose_device(config.device)
            for value in config.as_dict().values():
                most = MAX_FLOAT if isinstance(value, float) else MAX_SEED
                assert not isinstance(value, int | float) or 0 <= value <= most
    except SystemExit as exit_:
        if exit_.code:  # 0 after --help
            raise
