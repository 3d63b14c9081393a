"""Every parser, given damaged input: a value or one clear line, each time."""

import os

import pytest

from tests.faults.parsers import PARSERS, try_inputs

EXAMPLES = int(os.environ.get("HCL_FUZZ_EXAMPLES") or 50)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name.replace(" ", "-"))
def test_a_value_or_one_clear_error(parser):
    counts = try_inputs(parser, EXAMPLES)
    assert counts["values"] > 0
    assert counts["errors"] > 0
