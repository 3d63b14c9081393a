"""Settings of all tests: seeded examples, and what no test may leave behind."""

import os
from pathlib import Path

# Workers share the cores as processes; threads on top of that get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def no_data_root_of_the_user(monkeypatch, tmp_path_factory):
    """Tests find no data and no cache but what they make; ``data_root`` hands out the real one."""
    monkeypatch.delenv("HCL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real data sets lie; tests that need one skip where it is absent."""
    return REAL_DATA_ROOT


REAL_DATA_ROOT = Path(os.environ.get("HCL_DATA") or Path(__file__).parents[1] / "data")
