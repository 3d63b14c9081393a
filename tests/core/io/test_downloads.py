"""Downloads: complete files, rejected addresses, and connections that are cut."""

import contextlib
import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from core.io import transfer
from core.io.downloads import fetch_archive
from core.io.errors import InputError
from core.io.transfer import download, require_https
from tests.core.io.test_archives import zip_of

CONTENT = bytes(range(256)) * 1000
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Cutting(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT and cuts the first ``cuts`` connections after ``cut_after`` bytes.

    ``ranges`` is the answer to a range request: that part, all, another part, too little, or an error.
    """

    cuts, cut_after, ranges, etag, seconds = 0, 100_000, "part", '"1"', 0.0
    requested: list[str | None]

    def do_GET(self):
        kind, wanted = type(self), self.headers.get("Range")
        assert self.headers["Accept-Encoding"] == "identity"  # bytes as they are, so that a range fits
        time.sleep(kind.seconds)
        kind.requested.append(wanted)
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.org/set.zip")
            return self.end_headers()
        current = self.headers.get("If-Range") == kind.etag
        is_part = wanted is not None and kind.ranges != "all" and current
        if is_part and kind.ranges == "error":
            return self.send_error(416)
        start = int(wanted[6:-1]) if is_part and kind.ranges != "another" else 0
        end = start + 1000 if is_part and kind.ranges == "too little" else len(CONTENT)
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(end - start))
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(CONTENT)}")
        if kind.etag:
            self.send_header("ETag", kind.etag)
        self.end_headers()
        if kind.cuts:
            kind.cuts -= 1
            end = start + kind.cut_after
        with contextlib.suppress(BrokenPipeError):  # the client has left
            self.wfile.write(CONTENT[start:end])
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Cutting], str]]:
    handler = type("Handler", (Cutting,), {"requested": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize(("ranges", "etag"), [("part", '"1"'), ("all", '"1"'), ("part", None)])
def test_cut_download_is_resumed(server, tmp_path, ranges, etag, capsys):
    """At the cut, or from the start if the server does not serve ranges or has no ETag."""
    handler, address = server
    handler.cuts, handler.ranges, handler.etag = 2, ranges, etag
    path = download(f"{address}/set.bin", tmp_path / "set.bin", MD5)
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().err.count("downloading ") == 1
    assert len(handler.requested) == 3
    assert handler.requested[0] is None
    starts = [int(wanted[6:-1]) if wanted else 0 for wanted in handler.requested]
    assert (starts[2] > starts[1] > 0) == (ranges == "part" and etag is not None)
    assert (starts[1] > 0) == (etag is not None)


@pytest.mark.parametrize("ranges", ["another", "too little", "error"])
def test_wrong_range_is_not_appended(server, tmp_path, ranges):
    """Not even without a checksum; the whole file is requested again."""
    handler, address = server
    handler.cuts, handler.ranges = 1, ranges
    assert download(f"{address}/set.bin", tmp_path / "set.bin").read_bytes() == CONTENT
    assert [wanted is not None for wanted in handler.requested] == [False, True, False]


def test_server_that_does_not_answer_is_not_waited_for(server, tmp_path, monkeypatch):
    handler, address = server
    handler.seconds = 1.0
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    with pytest.raises(InputError, match="could not download"):
        download(f"{address}/set.bin", tmp_path / "set.bin")


def test_download_that_is_always_cut_leaves_nothing_and_a_second_call_completes(server, tmp_path):
    handler, address = server
    handler.cuts, handler.cut_after, handler.ranges = 10**6, 1000, "all"
    with pytest.raises(InputError, match=rf"could not download {address}/set.bin") as error:
        download(f"{address}/set.bin", tmp_path / "set.bin")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    handler.cuts = 0
    assert download(f"{address}/set.bin", tmp_path / "set.bin").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    _, address = server
    with pytest.raises(InputError, match="could not download"):
        download(f"{address}/set.bin", tmp_path / "set.bin", "md5:" + "0" * 32)
    assert not list(tmp_path.iterdir())


def test_file_above_the_size_limit_is_rejected(server, tmp_path, monkeypatch):
    _, address = server
    monkeypatch.setattr(transfer, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(InputError, match="is larger than the 1,000 bytes allowed"):
        download(f"{address}/set.bin", tmp_path / "set.bin")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/set.zip",
        "ftp://example.org/set.zip",
        "file:///etc/passwd",
        "http://127.0.0.1.example.org/set.zip",
        "http://127.0.0.1:80@example.org/set.zip",
        "set.zip",
    ],
)
def test_other_protocol_is_rejected(url, tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "send", lambda *arguments, **options: pytest.fail("sent"))
    with pytest.raises(InputError, match="only https"):
        download(url, tmp_path / "set.zip")


def test_redirect_to_http_is_rejected(server, tmp_path):
    handler, address = server
    with pytest.raises(InputError, match=r"http://example.org/set.zip is not downloaded: only https"):
        download(f"{address}/elsewhere", tmp_path / "set.zip")
    assert len(handler.requested) == 1
    assert not list(tmp_path.iterdir())


def test_missing_network_is_said_in_plain_words(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.zip"
        with pytest.raises(InputError) as error:
            fetch_archive(url, tmp_path / "data" / "set")
    assert str(error.value) == (
        f"could not download {url}: 127.0.0.1 cannot be reached; connect to the network, or set `data_root` "
        "(or $HCL_DATA) to a folder that has the files"
    )
    assert not list((tmp_path / "data").iterdir())


def test_what_a_killed_download_has_left_is_removed(served, tmp_path):
    folder, address = served
    (folder / "set.zip").write_bytes(zip_of({"set/a.txt": b"a"}))
    left = tmp_path / "data" / f".download-set-{socket.gethostname()}"
    left.mkdir(parents=True)
    (left / "set.zip").write_bytes(b"half")
    fetch_archive(f"{address}/set.zip", tmp_path / "data" / "set", inside="set")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


def test_download_of_another_host_is_left_alone(served, tmp_path, monkeypatch):
    """Where a lock holds on one host alone."""
    folder, address = served
    (folder / "set.zip").write_bytes(zip_of({"set/a.txt": b"a"}))
    monkeypatch.setattr("fcntl.flock", lambda *arguments: None)

    def meanwhile(unpacked):
        monkeypatch.setattr(socket, "gethostname", lambda: "another/host")
        fetch_archive(f"{address}/set.zip", tmp_path / "data" / "set", inside="set")
        assert (unpacked / "a.txt").exists()

    fetch_archive(f"{address}/set.zip", tmp_path / "data" / "set", inside="set", check=meanwhile)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


def test_one_of_several_processes_downloads(served, tmp_path, capsys):
    folder, address = served
    (folder / "set.zip").write_bytes(zip_of({"set/a.txt": b"a"}))
    began, may_end = threading.Event(), threading.Event()

    def slow(unpacked):
        began.set()
        assert may_end.wait(10)

    def fetch():
        fetch_archive(f"{address}/set.zip", tmp_path / "data" / "set", inside="set", check=slow)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert capsys.readouterr().err.count("downloading ") == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


def test_publishers_addresses_are_https():
    from graph.tudataset import TU_URL
    from image.published import SOURCES
    from sentence.tasks import SENTEVAL_URL

    for url in (TU_URL, SENTEVAL_URL, *(source.url for source in SOURCES.values())):
        assert url.startswith("https://")
        require_https(url)


def test_archive_downloaded_by_another_process_meanwhile_is_kept(served, tmp_path):
    folder, address = served
    (folder / "set.zip").write_bytes(zip_of({"set/a.txt": b"a"}))
    target = tmp_path / "set"

    def meanwhile(unpacked):
        target.mkdir()
        (target / "a.txt").write_bytes(b"theirs")

    fetch_archive(f"{address}/set.zip", target, inside="set", check=meanwhile)
    assert (target / "a.txt").read_bytes() == b"theirs"
    assert list(tmp_path.glob(".download-*")) == []


@pytest.mark.parametrize("members", [{"../out": b""}, {"other/a.txt": b""}])
def test_archive_with_other_members_is_rejected(served, tmp_path, members):
    folder, address = served
    (folder / "set.zip").write_bytes(zip_of(members))
    with pytest.raises(InputError) as error:
        fetch_archive(f"{address}/set.zip", tmp_path / "data" / "set", inside="set")
    assert f"{address}/set.zip" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data").iterdir())
