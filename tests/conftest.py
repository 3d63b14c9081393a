"""Settings of all tests: seeded examples, no data or cache of the user, markers by fixture."""

import functools
import http.server
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

# A shell's background jobs ignore Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Workers share the cores as processes; threads on top of that get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands that tests start in other folders import the packages of this checkout, which are not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REAL_DATA_ROOT = Path(os.environ.get("HCL_DATA") or Path(__file__).parents[1] / "data")


@pytest.fixture(autouse=True)
def no_user_data(monkeypatch, tmp_path_factory):
    """Tests see only the data and caches that they make; ``data_root`` gives the real ones."""
    monkeypatch.delenv("HCL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def seeded_draws():
    """A test's draws do not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The root of the real datasets; a test that needs one has the marker ``data``."""
    return REAL_DATA_ROOT


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the http address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` or ``data(path)`` without a CUDA device or without that dataset."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU")
    for marker in item.iter_markers("data"):
        for path in marker.args:
            if not (REAL_DATA_ROOT / path).exists():
                pytest.skip(f"{path} is not in {REAL_DATA_ROOT}")


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
