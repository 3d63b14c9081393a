"""Running text by name, as the lines of books: embedded, the files of a folder, or public corpora."""

import codecs
import gzip
import io
import json
import pydoc_data.topics
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from core.io.digests import digest_of
from core.io.errors import InputError, reason_of, unknown_name
from core.io.files import check_regular, is_hidden, readable, user_cache, visible_files, write_atomically
from sentence.config import KNOWN, Lines

# Name and configuration of public corpora at the Hugging Face hub. BookCorpus is no longer published by its
# authors; this copy needs no loading script.
HUB = {
    "bookcorpus": ("rojagtap/bookcorpus", None),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_LINE_BYTES = 1 << 20  # longer lines are split, for files without line ends
# A gzipped book may unpack to the larger of the two. Prose shrinks to a third, bombs to a thousandth.
MAX_UNPACKED_BYTES = 1 << 24
MAX_COMPRESSION_RATIO = 100
MAX_REPORTED_FAULTS = 3
MIN_PARAGRAPHS = 4  # of an embedded topic


@dataclass(frozen=True)
class Corpus:
    """A corpus whose text is read one book at a time."""

    name: str
    files: tuple[Path, ...]  # of one book each; none for the embedded corpus, and for texts
    lines: Lines = "auto"  # how they are read
    texts: tuple[tuple[str, ...], ...] = ()  # the sentences of each book, where they are in memory
    other_files: int = 0  # in the folder, with other endings
    hidden: int = 0  # files and folders in the folder

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """The title, size and time of each book; they change when the text does."""
        if self.texts:
            return [(digest_of([json.dumps(book)]), len(book), 0) for book in self.texts]
        if not self.files:
            return [(title, len(text), 0) for title, text in embedded_topics().items()]
        try:
            stats = [(path, path.stat()) for path in self.files]
        except OSError as error:
            raise InputError(f"the text cannot be read: {error}") from error
        return [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def books(self, faults: "Faults") -> Iterator[tuple[str, Iterator[str]]]:
        """The title and the lines of each book. Undecodable bytes are replaced and noted in ``faults``."""
        if self.texts:
            yield from ((f"text {i}", iter(book)) for i, book in enumerate(self.texts, 1))
            return
        if not self.files:
            for title, text in embedded_topics().items():
                yield title, iter(text.splitlines())
            return
        for path in self.files:
            yield path.name.split(".")[0], read_lines(path, faults)


@dataclass
class Faults:
    """What is wrong with a corpus: warnings, of which the first few are printed, or errors if ``strict``."""

    strict: bool = False
    count: int = 0
    reported: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        """Count a fault; raises InputError if ``strict``."""
        if self.strict:
            raise InputError(f"{message}; without `strict` this is a warning")
        self.count += 1
        if len(self.reported) < MAX_REPORTED_FAULTS:
            self.reported.append(message)

    def report(self) -> None:
        """Print the warnings on stderr."""
        for message in self.reported:
            print(f"warning: {message}", file=sys.stderr)
        if self.count > len(self.reported):
            print(f"warning: {self.count - len(self.reported)} more like these", file=sys.stderr)


def find_corpus(name: str, data_root: Path, download: bool = False) -> Corpus:
    """The corpus of that name; raises InputError if it is unknown, or missing and not to be downloaded."""
    if name == "pydoc":
        return Corpus(name, ())
    if name.startswith("folder:"):
        return books_in(Path(name.removeprefix("folder:")), name)
    if name.startswith("lines:"):
        return lines_in(name.removeprefix("lines:"), name)
    if name not in KNOWN:
        raise unknown_name("dataset", name, KNOWN)
    folder = data_root / name
    if folder.is_dir():
        return books_in(folder, name)
    if name not in HUB:
        raise InputError(
            f"`dataset` is {name!r}, but {folder} is not a folder; put one .txt or .txt.gz a book there, or "
            "set `data_root` (or $HCL_DATA)"
        )
    if not download:
        raise InputError(
            f"`dataset` is {name!r}, but {folder} is not a folder; set `download` to fetch it from "
            f"https://huggingface.co/datasets/{HUB[name][0]}, or set `data_root` (or $HCL_DATA)"
        )
    return Corpus(name, (download_from_hub(name),))


def books_in(folder: Path, name: str) -> Corpus:
    """The .txt and .txt.gz files below ``folder``, in any case, sorted; hidden ones are left out.

    Links to folders are followed, each once. A folder named as a book counts as one, so that opening it
    fails. Raises InputError if there is no book.
    """
    if not folder.is_dir():
        hint = "; for a file with a sentence a line use lines:PATH" if folder.is_file() else ""
        raise InputError(
            f"{folder} is not a folder; folder:PATH needs one with a .txt or .txt.gz a book{hint}"
        )
    try:
        paths, hidden = visible_files(folder)
        files = [Path(path) for path in paths]
        folders = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    books = [path for path in (*files, *folders) if path.name.lower().endswith((".txt", ".txt.gz"))]
    if not books:
        raise InputError(f"{folder} contains no .txt or .txt.gz files")
    others = max(0, len(files) - len(books))
    return Corpus(name, tuple(sorted(books)), other_files=others, hidden=hidden)


def lines_in(path: str, name: str) -> Corpus:
    """The file ``path`` with a sentence a line, plain or gzipped; of a folder its .txt and .txt.gz files.

    Raises InputError if there is no such file or folder.
    """
    if path and Path(path).is_dir():
        return replace(books_in(Path(path), name), lines="sentences")
    if not path or not Path(path).exists():
        raise InputError(
            f"{path or name} is not a file or a folder; lines:PATH needs a text file with a sentence a line, "
            "or a folder of such files"
        )
    return Corpus(name, (Path(path),), lines="sentences")


def in_memory(books: Sequence[Sequence[str]]) -> Corpus:
    """The corpus of the sentences of books, named by its content."""
    texts = tuple(tuple(map(readable, book)) for book in books)
    return Corpus(f"texts-{digest_of([json.dumps(texts)])[:8]}", (), lines="sentences", texts=texts)


def read_lines(path: Path, faults: Faults) -> Iterator[str]:
    """The lines of a text file, plain or gzipped: UTF-8, or what its byte-order mark says.

    Raises InputError if it is binary or unreadable.
    """
    try:
        check_regular(path)
        max_bytes = max(MAX_UNPACKED_BYTES, MAX_COMPRESSION_RATIO * path.stat().st_size)
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            encoding = encoding_of(file.read(4))
            file.seek(0)
            reader = _utf8_lines if encoding == "utf-8" else partial(_wide_lines, encoding)
            for line in reader(file, path, faults):
                if file.tell() > max_bytes:
                    raise InputError(f"{path} unpacks to more than {max_bytes:,} bytes, which no book does")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_stdin(faults: Faults) -> Iterator[str]:
    """The lines of standard input, as ``read_lines`` reads those of a file."""
    if sys.stdin is None:
        raise InputError("standard input is closed; send it lines of text, or name a file")
    file = sys.stdin.buffer
    try:
        encoding = encoding_of(file.peek(4)[:4])
        reader = _utf8_lines if encoding == "utf-8" else partial(_wide_lines, encoding)
        yield from reader(file, Path("standard input"), faults)
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror}") from error


def encoding_of(start: bytes) -> str:
    """The encoding that the byte-order mark in the first four bytes says; UTF-8 without one."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")


def _utf8_lines(file: IO[bytes] | gzip.GzipFile, path: Path, faults: Faults) -> Iterator[str]:
    """The lines of UTF-8."""
    position = 0
    for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
        if b"\0" in raw:
            raise InputError(
                f"{path} is binary: byte {position + raw.index(0)} is 0; it must be plain text, in UTF-8 or "
                "in UTF-16 with a byte-order mark"
            )
        yield decode(raw, path, position, faults)
        position += len(raw)


def _wide_lines(encoding: str, file: IO[bytes] | gzip.GzipFile, path: Path, faults: Faults) -> Iterator[str]:
    """The lines of UTF-16 or UTF-32, whose line ends take several bytes."""
    text = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
    try:
        for number, line in enumerate(iter(lambda: text.readline(MAX_LINE_BYTES), ""), 1):
            if "\0" in line:
                raise InputError(
                    f"{path} is binary: line {number} has a zero character; it must be plain text"
                )
            if "\ufffd" in line:
                faults.note(f"{path}: line {number} is not {encoding.upper()} and is replaced in part")
            yield line
    finally:
        text.detach()  # the file is closed where it was opened


def decode(raw: bytes, path: Path, position: int, faults: Faults) -> str:
    """``raw`` as text; undecodable bytes are replaced and noted in ``faults``."""
    if position == 0:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        # A character split at MAX_LINE_BYTES is noted as a fault too; lines of a megabyte are rare.
        faults.note(f"{path}: byte {position + error.start} is not UTF-8 and is replaced")
        return raw.decode(errors="replace")


def embedded_topics(held_out: bool = False) -> dict[str, str]:
    """Python's language reference, part of every Python installation (PSF licence): texts by title.

    Some 50 topics of running English, which depend on the version of Python. They contain no code, no grammar
    and no paragraph twice. Every fifth topic is ``held_out`` from training, for the tasks.
    """
    topics, seen = {}, set()
    for title, text in sorted(pydoc_data.topics.topics.items()):
        blocks = [block for block in re.split(r"\n\s*\n", text) if is_prose(block) and block not in seen]
        seen.update(blocks)
        if len(blocks) >= MIN_PARAGRAPHS:
            topics[title] = "\n\n".join(blocks)
    return {title: text for i, (title, text) in enumerate(topics.items()) if (i % 5 == 0) == held_out}


def is_prose(block: str) -> bool:
    """Whether a paragraph of the reference is running text: neither code nor grammar nor a ruled line."""
    if not block.strip() or block.lstrip("\n").startswith("    ") or "::=" in block or ">>>" in block:
        return False
    return sum(character.isalpha() or character.isspace() for character in block) > 0.85 * len(block)


def download_from_hub(name: str) -> Path:
    """Download a public corpus with ``datasets``, unless it is in the user's cache already: one text file."""
    import datasets  # slow to import, and needed only here

    path, configuration = HUB[name]
    target = user_cache() / "corpora" / f"{name}.txt"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = datasets.load_dataset(path, configuration, split="train", streaming=True)
        lines = (row["text"].rstrip("\n") + "\n" for row in rows)
        write_atomically(target, lambda file: file.writelines(line.encode() for line in lines))
    except Exception as error:  # without a network the library raises errors of many types
        raise InputError(
            f"could not download https://huggingface.co/datasets/{path}: {reason_of(error)}"
        ) from error
    return target
