"""Code, comments, messages and documents use the field's terms and plain, modern English.

Each pattern has what to write instead. The list can be argued with: change it together with the text.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "image", "graph", "sentence", "shared_eval", "tests", "benchmarks", "docs", "examples")
INSTEAD = {
    # Terms that a newcomer searches for.
    r"\bastray\b|\b(gone|goes|go|went) wild\b": "diverged, non-finite, exploding",
    r"\btwins?\b": "reference implementation",
    r"\bbeside the first\b": "relative to the first",
    r"\bstands? by\b": "is compared with, agrees with",
    r"\b(go|goes|gone|went|going) on (with|from|where)\b": "resume, continue",
    r"\bcut short\b": "interrupted, truncated",
    r"\bwhole (run|record|checkpoint)s?\b": "finished, complete, intact",
    r"\bstrangers?\b": "untrusted",
    r"\btold apart\b|\btells? apart\b": "distinguished, labelled",
    r"(?-i:\b(LARGEST|SMALLEST|LEAST|MOST)_)": "MAX_, MIN_",
    # Plain, modern English.
    r"\banew\b": "again",
    r"\bstead\b": "instead",
    r"\b(cannot|can|could|to|may) be had\b": "is (not) supported, is (not) available",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b|less\b|such\b)\w+": "is not a ...",
    r"\b(must|should|may|can) stand\b": "is expected, is allowed",
    r"\bgives? way to\b": "falls back to",
    r"\bin vain\b": "without success",
    r"\bcomes? to be\b": "becomes, exists",
    r"\b(any|some|every)body\b": "anyone, another program",
    r"\b(there|where|here)(of|in|upon|with)\b|\bupon\b|\bunto\b": "of it, in it, on",
}
NAMES = {"of": "the thing itself: a run, a row, an objective"}


def files(pattern: str) -> list[Path]:
    """The project's files, without recorded results and this list."""
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)]
    skipped = ROOT / "benchmarks" / "results"
    return [
        path
        for path in sorted([*ROOT.glob(pattern), *below])
        if path != Path(__file__) and skipped not in path.parents
    ]


def test_text_has_no_listed_idioms():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write: {instead}"
        for path in [*files("*.py"), *files("*.md")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for pattern, instead in INSTEAD.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_variables_have_no_listed_names():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name!r}; write: {NAMES[name]}"
        for path in files("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in [getattr(node, "id", None) or getattr(node, "arg", None)]
        if name in NAMES and isinstance(node, ast.Name | ast.arg)
    ]
    assert not found, "\n".join(found)
