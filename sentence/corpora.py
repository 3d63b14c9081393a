"""Running text by name, as the lines of books: built-in, the files of a folder, or public corpora."""

import codecs
import gzip
import io
import json
import pydoc_data.topics
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.io.cache import locked
from core.io.digests import digest_of, name_of
from core.io.downloads import announce
from core.io.errors import InputError, reason_of, unknown_name
from core.io.files import (
    check_regular,
    is_hidden,
    path_in,
    readable,
    user_cache,
    visible_files,
    write_atomically,
)
from core.training.progress import progress_bar
from sentence.config import KNOWN, Lines
from sentence.hub import only_errors

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
CARRIAGE_RETURN = "a carriage return inside a line; lines end with a line feed"
MAX_LINE_BYTES = 1 << 20  # longer lines are split, for files without line ends
# A gzipped book may unpack to the larger of the two. Prose shrinks to a third, bombs to a thousandth.
MAX_UNPACKED_BYTES = 1 << 24
MAX_COMPRESSION_RATIO = 100
MAX_REPORTED_FAULTS = 3
MIN_PARAGRAPHS = 4  # of a built-in topic


@dataclass(frozen=True)
class Corpus:
    """A corpus whose text is read one book at a time, from files or from memory."""

    name: str
    files: tuple[Path, ...] = ()  # of one book each
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)  # the lines of each book, by its title
    lines: Lines = "auto"  # how they are read
    other_files: int = 0  # in the folder, with other endings
    hidden: int = 0  # files and folders in the folder

    def fingerprint(self) -> list[Any]:
        """Of each file path, size and time, of texts a digest; they change when the text does."""
        if self.texts:
            return [digest_of([json.dumps(list(self.texts.items()))])]
        try:
            stats = [(path, path.stat()) for path in self.files]
        except OSError as error:
            raise InputError(f"the text cannot be read: {error}") from error
        return [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def books(self, faults: "Faults") -> Iterator[tuple[str, Iterable[str]]]:
        """The title and the lines of each book. Undecodable bytes are replaced and noted in ``faults``."""
        yield from self.texts.items()
        for path in self.files:
            yield str(path), read_lines(path, faults)


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
        return Corpus(name, texts={title: text.splitlines() for title, text in built_in_topics().items()})
    if name.startswith("folder:"):
        return books_in(path_in(name), name)
    if name.startswith("lines:"):
        return lines_in(path_in(name), name)
    if name not in KNOWN:
        raise unknown_name("`dataset`", name, KNOWN)
    folder = data_root / name
    if folder.is_dir():
        return books_in(folder, name)
    if name in HUB and download:
        return Corpus(name, (download_from_hub(name),))
    instead = "put one .txt or .txt.gz a book there"
    if name in HUB:
        instead = f"set `download` to fetch it from https://huggingface.co/datasets/{HUB[name][0]}"
    raise InputError(
        f"`dataset` is {name!r}, but {folder} is not a folder; {instead}, or set `data_root` (or $HCL_DATA)"
    )


def books_in(folder: Path, name: str) -> Corpus:
    """The .txt and .txt.gz files below ``folder``, in any case, sorted; hidden ones are left out.

    Links to folders are followed, each once. A folder named as a book counts as one, so that opening it
    fails. Raises InputError if there is no book.
    """
    if not folder.is_dir():
        hint = "; for a file with one sentence per line use lines:PATH" if folder.is_file() else ""
        raise InputError(
            f"{folder} is not a folder; folder:PATH needs one with a .txt or .txt.gz for each book{hint}"
        )
    try:
        paths, hidden = visible_files(folder)
        files = [Path(path) for path in paths]
        folders = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
    books = [path for path in (*files, *folders) if path.name.lower().endswith((".txt", ".txt.gz"))]
    if not books:
        raise InputError(f"{folder} contains no .txt or .txt.gz files")
    others = max(0, len(files) - len(books))
    return Corpus(name, tuple(sorted(books)), other_files=others, hidden=hidden)


def lines_in(path: Path, name: str) -> Corpus:
    """The file ``path`` with one sentence per line, plain or gzipped; of a folder its .txt and .txt.gz files.

    Raises InputError if there is no such file or folder.
    """
    if path.is_dir():
        return replace(books_in(path, name), lines="sentences")
    if not path.exists():
        raise InputError(
            f"{path} is not a file or a folder; lines:PATH needs a text file with one sentence per line, "
            "or a folder of such files"
        )
    return Corpus(name, (path,), lines="sentences")


def in_memory(books: Sequence[Sequence[str]]) -> Corpus:
    """The corpus of the sentences of books, named by its content."""
    texts = {f"text {i}": list(map(readable, book)) for i, book in enumerate(books, start=1)}
    name = name_of("texts", [json.dumps(list(texts.values()))])
    return Corpus(name, texts=texts, lines="sentences")


def read_lines(path: Path, faults: Faults) -> Iterator[str]:
    """The lines of a text file, plain or gzipped: UTF-8, or what its byte-order mark says.

    Raises InputError if it is binary or unreadable.
    """
    try:
        check_regular(path)
        max_bytes = max(MAX_UNPACKED_BYTES, MAX_COMPRESSION_RATIO * path.stat().st_size)
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            for line in decoded_lines(file, path, faults):
                if file.tell() > max_bytes:
                    raise InputError(f"{path} unpacks to more than {max_bytes:,} bytes, which no book does")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_stdin(faults: Faults) -> Iterator[str]:
    """The lines of standard input, as ``read_lines`` reads those of a file."""
    if sys.stdin is None:
        raise InputError("standard input is closed; send it lines of text, or name a file")
    try:
        yield from decoded_lines(sys.stdin.buffer, Path("standard input"), faults)
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror}") from error


def decoded_lines(file: io.BufferedReader | gzip.GzipFile, path: Path, faults: Faults) -> Iterator[str]:
    """The lines of an open file; undecodable bytes are replaced and noted in ``faults``."""
    start = file.peek(4)[:4]
    for mark, encoding in BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return _wide_lines(encoding, file, path, faults)
    return _utf8_lines(file, path, faults)


def _utf8_lines(file: io.BufferedReader | gzip.GzipFile, path: Path, faults: Faults) -> Iterator[str]:
    position = 0
    for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
        if b"\0" in raw:
            raise InputError(
                f"{path} is binary: byte {position + raw.index(0)} is 0; it must be plain text, in UTF-8 or "
                "in UTF-16 with a byte-order mark"
            )
        if b"\r" in raw.rstrip(b"\r\n"):
            faults.note(f"{path}: byte {position + raw.index(13)} is {CARRIAGE_RETURN}")
        text = raw if position else raw.removeprefix(codecs.BOM_UTF8)
        try:
            yield text.decode()
        except UnicodeDecodeError as error:
            # A character split at MAX_LINE_BYTES is noted as a fault too; lines of a megabyte are rare.
            faults.note(f"{path}: byte {position + error.start} is not UTF-8 and is replaced")
            yield text.decode(errors="replace")
        position += len(raw)


def _wide_lines(
    encoding: str, file: io.BufferedReader | gzip.GzipFile, path: Path, faults: Faults
) -> Iterator[str]:
    """The lines of UTF-16 or UTF-32, whose line ends take several bytes."""
    text = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
    try:
        for number, line in enumerate(iter(lambda: text.readline(MAX_LINE_BYTES), ""), 1):
            if "\0" in line:
                raise InputError(
                    f"{path} is binary: line {number} has a zero character; it must be plain text"
                )
            if "\r" in line.rstrip("\r\n"):
                faults.note(f"{path}: line {number} has {CARRIAGE_RETURN}")
            if "\ufffd" in line:
                faults.note(f"{path}: line {number} is not {encoding.upper()} and is replaced in part")
            yield line
    finally:
        text.detach()  # the file is closed where it was opened


def built_in_topics(held_out: bool = False) -> dict[str, str]:
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
    """Download a public corpus with ``datasets``, unless it is in the user's cache already: one text file.

    Of several processes one does this, and the others wait for it.
    """
    path, configuration = HUB[name]
    url, target = f"https://huggingface.co/datasets/{path}", user_cache() / "corpora" / f"{name}.txt"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target, remove=True), only_errors():
            if not target.exists():
                lines = _downloaded_lines(path, configuration, url, target)
                write_atomically(target, lambda file: file.writelines(lines))
    except Exception as error:  # without a network the library raises errors of many types
        raise InputError(
            f"could not download {url}: {reason_of(error)}; connect to the network, or set `data_root` (or "
            "$HCL_DATA) to a folder that has the text"
        ) from error
    return target


def _downloaded_lines(path: str, configuration: str | None, url: str, target: Path) -> Iterator[bytes]:
    """The lines of a corpus at the hub, as they arrive."""
    import datasets  # slow to import, and needed only here

    info = datasets.load_dataset_builder(path, configuration).info
    announce(url, target, info.download_size)
    rows = datasets.load_dataset(path, configuration, split="train", streaming=True)
    with progress_bar() as progress:
        total = info.splits["train"].num_examples if info.splits else None
        for row in progress.track(rows, total=total, description="lines"):
            yield (row["text"].rstrip("\n") + "\n").encode()
