"""The documentation's pages in a real browser: nothing is missing, too wide, or fetched from elsewhere."""

import functools
import importlib.util
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT_BY = ("mkdocs", "material", "mkdocstrings", "latex2mathml")
SETTINGS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
# Widths of the page and of the window; images that are not drawn or not described; links to nowhere on the
# page; formulas that are still TeX.
FAULTS = """() => ({
    "too wide": document.documentElement.scrollWidth > window.innerWidth || window.innerWidth > screen.width,
    "images": [...document.images].filter(i => !i.alt || !i.naturalWidth).map(i => i.src),
    "anchors": [...document.querySelectorAll("article a[href^='#']")]
        .map(a => decodeURIComponent(a.hash.slice(1))).filter(id => id && !document.getElementById(id)),
    "formulas": [...document.querySelectorAll(".arithmatex")].map(e => e.textContent),
})"""
NO_FAULTS = {"too wide": False, "images": [], "anchors": [], "formulas": []}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, as ``make docs`` makes them, and the address at which they are served."""
    missing = [name for name in BUILT_BY if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make docs installs what builds the pages")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def watched(view, address, events):
    """Have whatever goes wrong in ``view`` appended to ``events``."""

    def on_console(message):
        if message.type in ("error", "warning"):
            events.append(f"console: {message.text}")

    def on_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            events.append(f"external: {request.url}")

    def on_response(response):
        if response.status >= 400:
            events.append(f"{response.status}: {response.url}")

    view.on("console", on_console)
    view.on("pageerror", lambda error: events.append(f"error: {error}"))
    view.on("request", on_request)
    view.on("requestfailed", lambda request: events.append(f"failed: {request.url}"))
    view.on("response", on_response)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_page_is_whole_and_fits(site, browser, setting):
    folder, address = site
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    assert {"index.html", "losses.html", "results/index.html"} <= set(paths)
    view, events = browser.new_context(**SETTINGS[setting]).new_page(), []
    watched(view, address, events)
    found = {}
    for path in paths:
        view.goto(address + path, wait_until="networkidle")
        faults = view.evaluate(FAULTS)
        if faults != NO_FAULTS or events:
            found[path] = faults, list(events)
        events.clear()
    assert not found


@pytest.mark.slow
@pytest.mark.browser
def test_subscripts_are_below_the_line(site, browser):
    """They are not where a browser has no font for formulas: the site brings one."""
    view = browser.new_page()
    view.goto(site[1] + "losses.html", wait_until="networkidle")
    script = "e => [...e.children].map(c => c.getBoundingClientRect().top)"
    base, subscript = view.locator("math msub").first.evaluate(script)
    assert subscript > base + 3  # pixels; about 1 without the font


@pytest.mark.slow
@pytest.mark.browser
def test_dark_pages_are_dark(site, browser):
    view = browser.new_context(**SETTINGS["dark"]).new_page()
    view.goto(site[1] + "index.html")
    script = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert sum(view.evaluate(script)) < 150
