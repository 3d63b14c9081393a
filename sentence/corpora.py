"""Running text by name, as books of lines: embedded, a folder's files, or public corpora."""

import difflib
import gzip
import pydoc_data.topics
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.io.errors import InputError
from core.io.files import check_regular, user_cache, write_atomically

KNOWN = ("pydoc", "books", "bookcorpus", "wikitext-103", "folder:PATH")
# Name and configuration of the public corpora at the Hugging Face hub. BookCorpus has no official place any
# more; this is the copy there that needs no loading script.
HUB = {
    "bookcorpus": ("rojagtap/bookcorpus", None),
    "wikitext-103": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
MAX_LINE_BYTES = 1 << 20  # bytes taken as one line at most, so that a file without line ends passes too
# A gzipped book may unpack to so much, or to so many times its size: prose is packed to a third, and only
# what is made to fill disks to a thousandth.
MAX_UNPACKED_BYTES = 1 << 24
MAX_COMPRESSION_RATIO = 100
REPORTED_FAULTS = 3
MIN_PARAGRAPHS = 4  # of an embedded topic


@dataclass(frozen=True)
class Corpus:
    """Where the text of a corpus lies; reading it gives one book after the other."""

    name: str
    files: tuple[Path, ...]

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """What changes when the text does."""
        if not self.files:
            return [(title, len(text), 0) for title, text in embedded_topics().items()]
        try:
            stats = [(path, path.stat()) for path in self.files]
        except OSError as error:
            raise InputError(f"the text cannot be read: {error}") from error
        return [(str(path.absolute()), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def books(self, faults: "Faults") -> Iterator[tuple[str, Iterator[str]]]:
        """Titles, and the lines of each book. Undecodable bytes are counted in ``faults`` and replaced."""
        if not self.files:
            for title, text in embedded_topics().items():
                yield title, iter(text.splitlines())
            return
        for path in self.files:
            yield path.name.split(".")[0], read_lines(path, faults)


@dataclass
class Faults:
    """What is wrong with a corpus but does not stop it: the first few are reported, all are counted."""

    strict: bool = False
    count: int = 0
    reported: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Count a fault; raises InputError where the corpus must have none."""
        if self.strict:
            raise InputError(f"{what}; leave out --strict to go on all the same")
        self.count += 1
        if len(self.reported) < REPORTED_FAULTS:
            self.reported.append(what)

    def report(self) -> None:
        """Say on stderr what was found."""
        for what in self.reported:
            print(f"warning: {what}", file=sys.stderr)
        if self.count > len(self.reported):
            print(f"warning: {self.count - len(self.reported)} more like these", file=sys.stderr)


def find_corpus(name: str, data_root: Path, download: bool = False) -> Corpus:
    """The corpus of that name; raises InputError where it is unknown, or missing and not to be downloaded."""
    if name == "pydoc":
        return Corpus(name, ())
    if name.startswith("folder:"):
        return Corpus(name, text_files(Path(name.removeprefix("folder:"))))
    if name not in KNOWN:
        close = difflib.get_close_matches(name.lower(), KNOWN, n=1)
        hint = f" (did you mean {close[0]}?);" if close else ";"
        raise InputError(f"--dataset {name} is unknown{hint} known: {', '.join(KNOWN)}")
    folder = data_root / name
    if folder.is_dir():
        return Corpus(name, text_files(folder))
    if name not in HUB:
        raise InputError(
            f"--dataset {name}: {folder} is no folder; put one .txt or .txt.gz a book there, or set "
            "--data-root (or $HCL_DATA) to where it is"
        )
    if not download:
        raise InputError(
            f"--dataset {name}: {folder} is no folder; add --download to fetch it from "
            f"https://huggingface.co/datasets/{HUB[name][0]}, or set --data-root (or $HCL_DATA)"
        )
    return Corpus(name, (fetch_from_hub(name),))


def text_files(folder: Path) -> tuple[Path, ...]:
    """The .txt and .txt.gz files below ``folder``, sorted; raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; folder:PATH takes one with a .txt or .txt.gz a book")
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".txt", ".txt.gz")))
    if not files:
        raise InputError(f"{folder} holds no .txt or .txt.gz files")
    return tuple(files)


def read_lines(path: Path, faults: Faults) -> Iterator[str]:
    """The lines of a text file, plain or gzipped; raises InputError if it is binary or unreadable."""
    position = 0
    try:
        check_regular(path)
        largest = max(MAX_UNPACKED_BYTES, MAX_COMPRESSION_RATIO * path.stat().st_size)
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for raw in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if position > largest:
                    raise InputError(f"{path} unpacks to more than {largest:,} bytes, which no book does")
                if b"\0" in raw:
                    raise InputError(
                        f"{path} is binary: byte {position + raw.index(0)} is 0; it takes plain text"
                    )
                yield decode(raw, path, position, faults)
                position += len(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def decode(raw: bytes, path: Path, position: int, faults: Faults) -> str:
    """``raw`` as text, its undecodable bytes replaced and counted."""
    if position == 0:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        # A character cut in two by the longest read is put down as a fault; lines of a megabyte are rare.
        faults.note(f"{path}: byte {position + error.start} is no UTF-8 and is replaced")
        return raw.decode(errors="replace")


def embedded_topics(held_out: bool = False) -> dict[str, str]:
    """Python's language reference, as ``help()`` shows it: it comes with every Python (PSF licence).

    Some 50 topics of running English, those of the Python in use. Code and grammar are left out, and so is
    a paragraph that an earlier topic has already. Every fifth topic is ``held_out`` from training, for tasks.
    """
    topics, seen = {}, set()
    for title, text in sorted(pydoc_data.topics.topics.items()):
        blocks = [block for block in re.split(r"\n\s*\n", text) if is_prose(block) and block not in seen]
        seen.update(blocks)
        if len(blocks) >= MIN_PARAGRAPHS:
            topics[title] = "\n\n".join(blocks)
    return {title: text for i, (title, text) in enumerate(topics.items()) if (i % 5 == 0) == held_out}


def is_prose(block: str) -> bool:
    """Whether a block of a reference page is running text, not code, a rule or grammar."""
    if not block.strip() or block.lstrip("\n").startswith("    ") or "::=" in block or ">>>" in block:
        return False
    return sum(character.isalpha() or character.isspace() for character in block) > 0.85 * len(block)


def fetch_from_hub(name: str) -> Path:
    """A public corpus as one text file in the user's cache, fetched through ``datasets``."""
    import datasets  # takes seconds to import, and only downloads need it

    path, configuration = HUB[name]
    target = user_cache() / "corpora" / f"{name}.txt"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = datasets.load_dataset(path, configuration, split="train", streaming=True)
        lines = (row["text"].rstrip("\n") + "\n" for row in rows)
        write_atomically(target, lambda file: file.writelines(line.encode() for line in lines))
    except Exception as error:  # the library raises errors of many kinds for a network that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"could not download https://huggingface.co/datasets/{path}: {reason}") from error
    return target
