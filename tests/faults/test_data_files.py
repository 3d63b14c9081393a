"""Commands on damaged data files: one line that names the file, exit code 2, bounded memory."""

import gzip
import os
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

import graph.train
import image.train
import sentence.train
from graph.tudataset import load_tu_dataset
from sentence.corpora import Faults, find_corpus
from sentence.tasks import load_task
from sentence.text import sentences_of
from shared_eval import compare, report, reproduce
from tests.faults.inputs import image_of
from tests.graph.conftest import write_tu_dataset
from tests.image.conftest import read_class_folders, write_class_folders
from tests.runs import failure_of
from tests.sentence.conftest import write_books, write_senteval

GRAPHS = "TUDataset/TINY/raw/TINY_"
TASKS = "SentEval/downstream/"


@pytest.fixture
def root(tmp_path) -> Path:
    """A data root with small data of every modality."""
    write_tu_dataset(tmp_path)
    write_senteval(tmp_path)
    write_books(tmp_path / "books")
    for part in ("train", "test"):
        write_class_folders(tmp_path / "cifar10" / part, per_class=4, size=32)
    return tmp_path


def flags_of(root: Path, dataset: str) -> list[str]:
    return [
        "--dataset",
        dataset,
        "--data-root",
        str(root),
        "--output-dir",
        str(root / "run"),
        "--device",
        "cpu",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("graph_labels.txt", b"1\n" * 10, "names 24 graphs and TINY_graph_labels.txt has 10 lines"),
        ("A.txt", b"1, 2\n", "has edge 1, 2 but not 2, 1 (1 such); TUDatasets are undirected"),
        ("A.txt", b"1; 2\n", "TINY_A.txt has 1 columns; each line must have 2 integers"),
        ("A.txt", b"1, 2\n2, " + b"9" * 40 + b"\n", "TINY_A.txt is damaged: Overflow"),
        ("A.txt", b",1" * 50_000, "TINY_A.txt has 32769 columns"),
        ("graph_indicator.txt", b"\0\0\0\0", "TINY_graph_indicator.txt is damaged"),
        ("graph_indicator.txt", b"\xff\xfe1\0", "TINY_graph_indicator.txt is damaged"),
        (
            "node_labels.txt",
            b"0\n" * 119 + b"9999999\n",
            "has labels from 0 to 9999999; coded one-hot they take",
        ),
        (
            "node_labels.txt",
            b"0\n" * 119 + b"-9223372036854775808\n",
            "coded one-hot they take too much memory",
        ),
        (
            "graph_labels.txt",
            "pipe",
            "TINY_graph_labels.txt cannot be read: [Errno 22] is not a regular file",
        ),
    ],
)
def test_damaged_graph_files_are_refused(root, capsys, file, content, message):
    path = root / f"{GRAPHS}{file}"
    if content == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    (root / f"{GRAPHS}edge_labels.txt").unlink()
    [line] = failure_of(graph.train.main, capsys, flags_of(root, "TINY"))
    assert message in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"\x89PNG\r\n\0", "x.txt is binary: byte 6 is 0; it must be plain text"),
        ("x.txt", "Text.\n".encode("utf-16-le"), "x.txt is binary: byte 1 is 0"),
        ("x.txt.gz", b"no gzip", "x.txt.gz cannot be read: Not a gzipped file"),
        (
            "x.txt.gz",
            gzip.compress(b"Some text. " * 500, mtime=0)[:30],
            "x.txt.gz cannot be read: Compressed file ended",
        ),
        ("x.txt.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 30, "x.txt.gz cannot be read: Error -3"),
        ("x.txt", "folder", "x.txt cannot be read: [Errno 22] is not a regular file"),
        ("x.txt", "pipe", "x.txt cannot be read: [Errno 22] is not a regular file"),
        ("x.txt", "loop", "the text cannot be read: [Errno 40] Too many levels of symbolic links"),
    ],
)
def test_unreadable_books_are_refused(root, capsys, name, content, message):
    path = root / "books" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[
            content
        ]()
    assert message in failure_of(sentence.train.main, capsys, flags_of(root, "books"))[-1]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("MR/rt-polarity.pos", None, "rt-polarity.pos cannot be read: [Errno 2] No such file"),
        (
            "SST/binary/sentiment-train",
            b"\xff\t1\n",
            "sentiment-train cannot be read: 'utf-8' codec can't decode",
        ),
        ("SST/binary/sentiment-train", b"good\n", "sentiment-train: line 1 has 1 columns; it must have 2"),
        ("SST/binary/sentiment-dev", b"good\t1\n\nbad\tno\n", "line 3 has 'no'; it must be 0 or 1"),
        ("SST/binary/sentiment-test", b"", "has no samples for testing: is one of its files truncated?"),
        (
            "STS/STSBenchmark/sts-test.csv",
            b"a\tb\tc\td\tinf\tx\ty\n",
            "line 1 has 'inf'; it must be a finite number",
        ),
        ("TREC/train_5500.label", b"NUM what\n", "train_5500.label: line 1 is not 'LABEL:detail question'"),
        (
            "TREC/train_5500.label",
            b"NUM:a what\nLOC:b where\n",
            "TREC has 2 classes for training, with 1 samples or more",
        ),
        (
            "MRPC/msr_paraphrase_train.txt",
            b"header\nh\n",
            "msr_paraphrase_train.txt: line 2 has 1 columns; it must have 5",
        ),
    ],
)
def test_damaged_task_files_are_refused(root, capsys, file, content, message):
    path = root / TASKS / file
    path.write_bytes(content) if content is not None else path.unlink()
    assert message in failure_of(sentence.train.main, capsys, flags_of(root, "books"))[-1]


def png_of(width: int, height: int) -> bytes:
    """A small PNG whose header claims ``width`` x ``height`` pixels."""
    content = bytearray(image_of("PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png cannot be read as an image"),
        (b"no image", "x.png cannot be read as an image"),
        (image_of("PNG")[:-60], "x.png cannot be read as an image"),
        (image_of("JPEG")[:200], "x.png cannot be read as an image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "x.png cannot be read as an image",
        ),
        (png_of(20_000, 20_000), "x.png cannot be read as an image"),
        (png_of(9_000, 9_000), "it has 9000 x 9000 pixels; 67,108,864 are allowed"),
        (png_of(2**31 - 1, 2**31 - 1), "x.png cannot be read as an image"),
        ("loop", "x.png cannot be read: [Errno 40] Too many levels of symbolic links"),
        ("nowhere", "x.png cannot be read: [Errno 2] No such file or directory"),
        ("pipe", "x.png is not a regular file; class folders contain images"),
        ("folder", None),
    ],
)
def test_unreadable_images_are_refused(root, capsys, content, message):
    path = root / "cifar10" / "train" / "bars" / "x.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
        (path / "0.png").write_bytes(b"")
        message = "0.png cannot be read as an image"
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path}.get(content, content))
    lines = failure_of(image.train.main, capsys, flags_of(root, "cifar10"))
    assert len(lines) == 1
    assert message in lines[0]


def test_long_thin_image_is_resized_in_little_memory(tmp_path):
    """It is cropped before it is resized: whole, it would grow 64-fold in both directions."""
    Image.new("RGB", (1, 60_000), "red").save(tmp_path / "strip.png")
    tracemalloc.start()
    images, _ = read_class_folders([(tmp_path / "strip.png", 0)], 64)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    assert images[0, 0].eq(255).all()


def test_bad_recipes_records_and_command_lines_are_refused(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    Path("odd.toml").write_text('title = "x"\nmodality = "os"\n')
    for main, flags, message in (
        (reproduce.main, ["odd.toml"], "odd.toml is not a recipe: the recipe has no source"),
        (reproduce.main, ["nothing"], "nothing is not a table"),
        (reproduce.main, ["demo", "--jobs", "0"], "--jobs is 0"),
        (report.main, ["books"], "no result.json or records.csv below books"),
        (compare.main, ["books", "cifar10"], "no result.json at or below books"),
        (graph.train.main, ["--beta", "inf"], "--beta is inf; it must be at least 0 and finite"),
        (image.train.main, ["--dataset"], "see python -m image.train --help"),
        (sentence.train.main, ["--dataset", "folder:new\nline"], "folder:new line"),
    ):
        assert message.removeprefix("folder:") in failure_of(main, capsys, flags)[-1]


def peak_over_size(size: int, read) -> float:
    tracemalloc.start()
    read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / size


LINE = "a film that is as good as any other of its kind , and a good deal longer too .\n"


def test_memory_of_tasks_is_bounded(root):
    for name in ("rt-polarity.neg", "rt-polarity.pos"):
        (root / TASKS / "MR" / name).write_text(LINE * 10_000)
    assert peak_over_size(20_000 * len(LINE), lambda: load_task("mr", root)) < 6
    rows = [f"main\tset\t2012\t{i}\t{i % 5}.0\t{LINE[:-1]}\t{LINE}" for i in range(5_000)]
    size = (root / TASKS / "STS/STSBenchmark/sts-test.csv").write_text("".join(rows))
    assert peak_over_size(size, lambda: load_task("stsb", root)) < 6


@pytest.mark.parametrize(
    "content",
    [LINE * 25_000, LINE.replace("\n", " ") * 25_000, LINE.replace(" .", "") * 25_000, "a\n" * 50_000],
    ids=["lines", "one-line", "no-ends", "short-lines"],
)
def test_memory_of_books_is_bounded(tmp_path, content):
    """Whatever the lines are like. So is the time: "no-ends" once took quadratic time."""
    (tmp_path / "book.txt").write_text(content)

    def read():
        corpus = find_corpus(f"folder:{tmp_path}", tmp_path)
        for _, lines in corpus.books(Faults()):
            for _ in sentences_of(lines):
                pass

    assert peak_over_size(max(len(content), 1_000_000), read) < 3


def test_memory_of_graphs_is_bounded(tmp_path):
    """Without node labels, whose one-hot codes are larger than the files, it is the numbers as int64."""
    raw = write_tu_dataset(tmp_path, graphs=2_000, node_labels=False)
    size = sum(path.stat().st_size for path in raw.iterdir())
    load_tu_dataset("TINY", raw)  # what it imports is not counted
    assert peak_over_size(size, lambda: load_tu_dataset("TINY", raw)) < 9
