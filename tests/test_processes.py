"""The helper that runs a test's body in several ranks."""

import os

import pytest
from torch.multiprocessing import ProcessExitedException

from tests.processes import in_processes

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (3, ProcessExitedException, r"process [01] terminated with exit code 3"),
        (0, RuntimeError, "the ranks have ended, one without an answer"),
    ],
)
def test_rank_that_ends_without_an_answer_is_an_error(code, error, message):
    with pytest.raises(error, match=message):
        in_processes(2, os._exit, code)
