"""The recorded counts of the soak test, and the page made from them."""

import json
from pathlib import Path

from tests.faults.soak import INJECTED, make_page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_recorded_page_is_made_from_the_recorded_counts():
    record, fuzzed = (json.loads((RESULTS / name).read_text()) for name in ("reliability.json", "fuzz.json"))
    assert (RESULTS / "reliability.md").read_text() == make_page(record, fuzzed)
    assert record["injected"].keys() == INJECTED.keys()


def test_files_with_injected_faults_exist():
    assert not [path for path in INJECTED if not (ROOT / path).exists()]
