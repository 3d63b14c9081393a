"""Embeddings in a file: one row an item, with its id, its label where there is one, and its vector.

The suffix says the format:

- ``.parquet``: columns ``id``, ``label``, ``embedding`` (a list of D float32).
- ``.csv``: columns ``id``, ``label``, ``embedding_0`` to ``embedding_{D-1}``.
- ``.npz``: arrays ``id`` [N], ``label`` [N], ``embedding`` [N, D].
- ``.safetensors``: tensors ``embedding`` [N, D], ``id`` and ``label``: int64 [N], or text as the UTF-8 bytes
  of a JSON list.

Rows are written as they come: memory does not grow with their number.

Shapes: N items · n items of a batch · D dim.
"""

import functools
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

from core.io.errors import InputError
from core.io.files import readable, write_atomically
from shared_eval.outputs import writing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from torch import Tensor

SUFFIXES = (".parquet", ".npz", ".safetensors", ".csv")
NPZ_CHUNK = 65_536  # rows of text that are encoded at a time


class Rows(NamedTuple):
    """A batch of rows. All batches of a file have the same D, the same types, and labels or none."""

    ids: Sequence[str] | Sequence[int]
    embeddings: Union["np.ndarray", "Tensor"]  # [n, D]
    labels: Sequence[str | None] | Sequence[int] | None = None


def check_output(path: Path, overwrite: bool = False, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise InputError unless a file of these suffixes can be written to ``path``; imports nothing heavy."""
    if path.suffix.lower() not in suffixes:
        allowed = f"one of {', '.join(suffixes)}" if len(suffixes) > 1 else suffixes[0]
        raise InputError(f"`output` is {path}; its suffix must be {allowed}")
    if path.exists() and not path.is_file():
        raise InputError(f"`output` is {path}, which is not a regular file; choose another path")
    if path.exists() and not overwrite:
        raise InputError(f"`output` {path} exists; set `overwrite` to replace it, or choose another path")


def write_embeddings(
    path: Path, batches: Iterable[Rows], overwrite: bool = False, total: int | None = None
) -> int:
    """Write batches of rows to ``path``, whole or not at all; return the number of rows.

    Args:
        path: Ends in .parquet, .npz, .safetensors or .csv.
        overwrite: Replace a file that exists.
        total: The number of rows, for the progress bar.

    Raises InputError if there are no rows, if ``path`` exists, or if it cannot be written.
    """
    from core.training.progress import progress_bar

    check_output(path, overwrite)
    writers: dict[str, Callable[[BinaryIO, Rows, Iterator[Rows]], object]] = {
        ".parquet": _write_parquet,
        ".csv": _write_csv,
        ".npz": functools.partial(_write_spooled, path.parent, _write_npz),
        ".safetensors": functools.partial(_write_spooled, path.parent, _write_safetensors),
    }
    write = writers[path.suffix.lower()]
    written = 0
    with progress_bar() as progress:
        bar = progress.add_task("embedding", total=total)

        def counted() -> Iterator[Rows]:
            nonlocal written
            for batch in map(_checked, batches):
                yield batch
                written += len(batch.ids)
                progress.update(bar, completed=written)

        rows = counted()
        first = next(rows, None)  # before the file is made: what is wrong with the data is said first
        if first is None:
            raise InputError("there is nothing to embed")
        with writing(path):
            write_atomically(path, lambda file: write(file, first, chain([first], rows)))
    return written


def _checked(batch: Rows) -> Rows:
    """The batch with float32 vectors and with text that UTF-8 can hold."""
    import numpy as np

    ids, embeddings, labels = batch
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    counts = {len(ids), len(embeddings), len(embeddings if labels is None else labels)}
    if len(counts) > 1:
        raise ValueError(f"ids, embeddings and labels of a batch differ in number: {sorted(counts)}")
    return Rows(_readable(ids), embeddings, None if labels is None else _readable(labels))


def _readable(values: Sequence[Any]) -> list[Any]:
    return [readable(value) if isinstance(value, str) else value for value in values]


def _columns(batch: Rows) -> dict[str, list[Any]]:
    """The columns beside the vectors."""
    columns = {"id": list(batch.ids)}
    return columns if batch.labels is None else columns | {"label": list(batch.labels)}


def _is_text(values: Sequence[Any]) -> bool:
    return not isinstance(values[0], int)


def _scalar_fields(first: Rows) -> "list[pyarrow.Field]":
    import pyarrow as pa

    return [
        pa.field(name, pa.string() if _is_text(values) else pa.int64())
        for name, values in _columns(first).items()
    ]


def _write_parquet(file: BinaryIO, first: Rows, batches: Iterator[Rows]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vector = pa.list_(pa.float32(), first.embeddings.shape[1])
    schema = pa.schema([*_scalar_fields(first), pa.field("embedding", vector)])
    with pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.ravel()), type=vector)
            columns = _columns(batch)
            arrays = [pa.array(columns[field.name], field.type) for field in list(schema)[:-1]]
            writer.write_batch(pa.record_batch([*arrays, vectors], schema=schema))


def _write_csv(file: BinaryIO, first: Rows, batches: Iterator[Rows]) -> None:
    import pyarrow as pa
    import pyarrow.csv

    numbers = [pa.field(f"embedding_{i}", pa.float32()) for i in range(first.embeddings.shape[1])]
    schema = pa.schema([*_scalar_fields(first), *numbers])
    with pyarrow.csv.CSVWriter(file, schema) as writer:
        for batch in batches:
            columns = [*_columns(batch).values(), *batch.embeddings.T]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


class _Spool:
    """A column in a temporary file without a name, as its number of rows is known at the end alone.

    Vectors and integers are their bytes; text is a JSON list with a value a line.
    """

    def __init__(self, folder: Path, dtype: str, is_text: bool = False, width: tuple[int, ...] = ()) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- as long as the spool
        self.dtype, self.is_text, self.width = dtype, is_text, width
        self.rows = self.longest = 0

    def append(self, values: Any) -> None:
        import numpy as np

        if self.is_text:
            for i, value in enumerate(values, self.rows):
                self.file.write(("," if i else "[").encode() + json.dumps(value).encode() + b"\n")
                self.longest = max(self.longest, len(value or ""))
        else:
            self.file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.rows += len(values)

    def close_list(self) -> None:
        if self.is_text:
            self.file.write(b"]")
        self.file.seek(0)

    @property
    def size(self) -> int:
        return self.file.seek(0, 2)

    def copy_to(self, file: IO[bytes]) -> None:
        self.file.seek(0)
        shutil.copyfileobj(self.file, file, 1 << 20)

    def texts(self) -> Iterator[str]:
        """The text of each row; that of a missing label is empty."""
        self.file.seek(0)
        for line in islice(self.file, self.rows):
            yield json.loads(line[1:]) or ""


def _write_spooled(
    folder: Path,
    write: Callable[[BinaryIO, dict[str, _Spool]], object],
    file: BinaryIO,
    first: Rows,
    batches: Iterator[Rows],
) -> None:
    """Collect the columns in spools, then ``write`` them, integers first, to the file."""
    spools = {name: _Spool(folder, "<i8", _is_text(values)) for name, values in _columns(first).items()}
    spools["embedding"] = _Spool(folder, "<f4", width=first.embeddings.shape[1:])
    for batch in batches:
        for name, values in _columns(batch).items():
            spools[name].append(values)
        spools["embedding"].append(batch.embeddings)
    for spool in spools.values():
        spool.close_list()
    write(file, spools)


def _write_npz(file: BinaryIO, spools: dict[str, _Spool]) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, spool in spools.items():
            dtype = f"<U{max(spool.longest, 1)}" if spool.is_text else spool.dtype
            header = {"descr": dtype, "fortran_order": False, "shape": (spool.rows, *spool.width)}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                if not spool.is_text:
                    spool.copy_to(member)
                    continue
                texts = spool.texts()
                while chunk := list(islice(texts, NPZ_CHUNK)):
                    member.write(np.array(chunk, dtype).tobytes())


def _write_safetensors(file: BinaryIO, spools: dict[str, _Spool]) -> None:
    """See https://github.com/huggingface/safetensors#format; its library writes what is in memory alone."""
    header, start = {}, 0
    # Tensors of wide numbers first: each then starts at a multiple of its numbers' size.
    ordered = sorted(spools.items(), key=lambda item: (item[1].is_text, item[1].dtype != "<i8"))
    for name, spool in ordered:
        end = start + spool.size
        kind = "U8" if spool.is_text else {"<i8": "I64", "<f4": "F32"}[spool.dtype]
        shape = [spool.size] if spool.is_text else [spool.rows, *spool.width]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, spool in ordered:
        spool.copy_to(file)
