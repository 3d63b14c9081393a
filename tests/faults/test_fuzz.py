"""Every parser, given damaged input, returns a value or raises one clear error."""

import os

import pytest

from tests.faults.parsers import PARSERS, try_inputs

pytestmark = pytest.mark.faults
EXAMPLES = int(os.environ.get("HCL_FUZZ_EXAMPLES") or 50)


@pytest.mark.parametrize("parser", PARSERS, ids=[parser.name.replace(" ", "-") for parser in PARSERS])
def test_damaged_input_gives_a_value_or_one_clear_error(parser):
    counts = try_inputs(parser, EXAMPLES)
    assert counts["values"] > 0
    assert counts["errors"] > 0
