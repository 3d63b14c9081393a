"""Settings of all tests: seeded examples, and what no test may leave behind."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
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


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder, served over http in a publisher's stead, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


REAL_DATA_ROOT = Path(os.environ.get("HCL_DATA") or Path(__file__).parents[1] / "data")
