"""Inputs for parsers: nearly valid, damaged, or random."""

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

# Bytes that break parsers: signs, numbers at and beyond their limits, other encodings, other line ends.
PIECES = (
    *(b"", b"\n", b"\r\n", b"\r", b"\0", b"\t", b",", b", ", b" ", b'"', b"'", b":", b"#", b"=", b"[", b"{"),
    *(
        b"0",
        b"-1",
        b"1",
        b"2.5",
        b"1e400",
        b"nan",
        b"inf",
        b"true",
        b"null",
        b"9" * 30,
        b"18446744073709551616",
    ),
    *(b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc3", b"\x1a", "\u0661\u2028\u0085".encode(), b"A. b! C? "),
    *(b"[" * 3000, b"x" * 70_000, b"1," * 5000, b"7\n" * 500),
)


def edited(valid: bytes) -> st.SearchStrategy[bytes]:
    """A file with up to four parts replaced, or truncated, or random bytes."""
    position = st.integers(0, len(valid))
    edit = st.tuples(
        position, st.sampled_from((0, 0, 1, 3, 100)), st.sampled_from(PIECES) | st.binary(max_size=8)
    )

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = valid
        for start, length, piece in edits:
            content = content[:start] + piece + content[start + length :]
        return content

    some = st.lists(edit, min_size=1, max_size=4).map(apply)
    return st.one_of(some, some, position.map(lambda end: valid[:end]), st.binary(max_size=200))


def with_one_edited(files: dict[str, bytes]) -> st.SearchStrategy[dict[str, bytes | None]]:
    """Files of which one is edited or missing (None)."""

    def change(name: str) -> st.SearchStrategy[dict[str, bytes | None]]:
        content = st.one_of(*[edited(files[name])] * 9, st.none())
        return content.map(lambda content: files | {name: content})

    return st.sampled_from(sorted(files)).flatmap(change)


def write_files(folder: Path, files: dict[str, bytes | None]) -> None:
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def files_below(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that ``write(folder)`` makes, by their paths below ``folder``."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def compressed(content: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from((b"", content, content * 3)).map(gzip.compress).flatmap(edited)


def encoded() -> io.TextIOWrapper:
    """A stdout that raises for text that UTF-8 cannot encode."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from((10**400, "a\nb", "\0", "[/b]", "\udcff", r"$\foo$")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed_json(valid: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """An object with a value replaced at one of two depths; or damaged text."""
    paths = [(key,) for key in valid]
    paths += [(key, inner) for key, value in valid.items() if isinstance(value, dict) for inner in value]

    def change(path: tuple[str, ...], value: Any) -> bytes:
        content = json.loads(json.dumps(valid))
        parent = content if len(path) == 1 else content[path[0]]
        parent[path[-1]] = value
        return json.dumps(content).encode()

    changed = st.builds(change, st.sampled_from(paths), JSON)
    unchanged = st.just(json.dumps(valid).encode())
    return st.one_of(
        changed,
        changed,
        unchanged,
        JSON.map(json.dumps).map(str.encode),
        edited(json.dumps(valid).encode()),
    )


def image_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
