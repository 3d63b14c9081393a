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
import math
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

from core.io.errors import InputError
from core.io.files import readable
from shared_eval.outputs import check_output, show, write_output

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from shared_eval.gallery import Item

SUFFIXES = (".parquet", ".npz", ".safetensors", ".csv")
SAFETENSORS_TYPES = {"int64": "I64", "float32": "F32", "uint8": "U8"}

Writer = Callable[[BinaryIO, "pa.Schema", "Iterator[pa.RecordBatch]"], object]
Column = Callable[[], Iterator["np.ndarray"]]  # its arrays [n, ...], one for each batch


class Rows(NamedTuple):
    """A batch of rows. All batches of a file have the same D, the same types, and labels or none."""

    ids: Sequence[str] | Sequence[int]
    embeddings: Union["np.ndarray", "Tensor"]  # [n, D]
    labels: Sequence[str | None] | Sequence[int] | None = None
    item: Callable[[int], "Item"] | None = None  # what a gallery shows of row i of the batch; else its id


@dataclass(frozen=True, kw_only=True)
class EmbeddingFiles:
    """What the ``embed`` command of each modality writes."""

    output: Path
    """The file: .parquet, .npz, .safetensors or .csv."""
    gallery: Path | None = None
    """Also write a page that shows some of the items with their nearest neighbours, such as page.html."""
    overwrite: bool = False
    """Replace files that exist."""

    def check(self) -> None:
        """Raise InputError unless the files can be written; imports nothing heavy."""
        check_output(self.output, self.overwrite, SUFFIXES)
        if self.gallery is not None:
            check_output(self.gallery, self.overwrite, (".html",), "gallery")

    def write(self, batches: Iterable[Rows], title: str, total: int | None = None) -> int:
        """``write_embeddings``, then the gallery with this title if there is to be one."""
        if self.gallery is None:
            return write_embeddings(self.output, batches, self.overwrite, total)
        from shared_eval.gallery import Collector

        collector = Collector()
        count = write_embeddings(self.output, collector.rows(batches), self.overwrite, total)
        collector.write(self.gallery, title)
        return count

    def show(self, count: int, note: str = "") -> None:
        """Print what was written, with a ``note`` on what has a row."""
        show(f"{self.output}: {count:,} embeddings{note}")
        if self.gallery is not None:
            show(str(self.gallery))


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

    check_output(path, overwrite, SUFFIXES)
    writers: dict[str, Writer] = {
        ".parquet": _write_parquet,
        ".csv": _write_csv,
        ".npz": functools.partial(_write_spooled, path.parent, _write_npz, _unicode),
        ".safetensors": functools.partial(_write_spooled, path.parent, _write_safetensors, _json),
    }
    write = writers[path.suffix.lower()]
    written = 0
    with progress_bar() as progress:
        bar = progress.add_task("embedding", total=total)

        def counted() -> "Iterator[pa.RecordBatch]":
            nonlocal written
            for batch in map(_record_batch, batches):
                yield batch
                written += len(batch)
                progress.update(bar, completed=written)

        rows = counted()
        first = next(rows, None)  # before the file is made: what is wrong with the data is said first
        if first is None:
            raise InputError("there is nothing to embed")
        write_output(path, lambda file: write(file, first.schema, chain([first], rows)))
    return written


def _record_batch(batch: Rows) -> "pa.RecordBatch":
    """The rows in Arrow's types: float32 vectors, and integers or text that UTF-8 can hold."""
    import numpy as np
    import pyarrow as pa

    embeddings = np.ascontiguousarray(batch.embeddings, dtype=np.float32)
    columns = {"id": batch.ids} | ({} if batch.labels is None else {"label": batch.labels})
    counts = {len(embeddings), *map(len, columns.values())}
    if len(counts) > 1:
        raise ValueError(f"ids, embeddings and labels of a batch differ in number: {sorted(counts)}")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    arrays = {name: _array(values) for name, values in columns.items()}
    return pa.record_batch(arrays | {"embedding": vectors})


def _array(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    if isinstance(values[0], int):
        return pa.array(values, pa.int64())
    return pa.array([value if value is None else readable(value) for value in values], pa.string())


def _numbers(array: "pa.Array") -> "np.ndarray":
    """Vectors as [n, D] float32, integers as [n] int64."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(-1, array.type.list_size)
    return array.to_numpy()


def _write_parquet(file: BinaryIO, schema: "pa.Schema", batches: "Iterator[pa.RecordBatch]") -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_csv(file: BinaryIO, schema: "pa.Schema", batches: "Iterator[pa.RecordBatch]") -> None:
    import pyarrow as pa
    import pyarrow.csv

    *scalars, vector = schema
    numbers = [pa.field(f"embedding_{i}", pa.float32()) for i in range(vector.type.list_size)]
    flat = pa.schema([*scalars, *numbers])
    with pyarrow.csv.CSVWriter(file, flat) as writer:
        for batch in batches:
            *columns, vectors = batch.columns
            writer.write_batch(pa.record_batch([*columns, *map(pa.array, _numbers(vectors).T)], schema=flat))


def _write_spooled(
    folder: Path,
    write: Callable[[BinaryIO, dict[str, Column]], object],
    text_as: Callable[["Iterator[pa.Array]"], Iterator["np.ndarray"]],
    file: BinaryIO,
    schema: "pa.Schema",
    batches: "Iterator[pa.RecordBatch]",
) -> None:
    """Collect the rows in a temporary file without a name, then ``write`` their columns.

    These formats begin with the number of rows, which is known at the end alone.
    """
    import pyarrow as pa

    with tempfile.TemporaryFile(dir=folder) as spool:
        with pa.ipc.new_stream(spool, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

        def arrays(field: "pa.Field") -> Iterator["np.ndarray"]:
            spool.seek(0)
            parts = (batch[field.name] for batch in pa.ipc.open_stream(spool))
            return text_as(parts) if pa.types.is_string(field.type) else map(_numbers, parts)

        write(file, {field.name: functools.partial(arrays, field) for field in schema})


def _unicode(parts: "Iterator[pa.Array]") -> Iterator["np.ndarray"]:
    """Text as NumPy has it; that of a missing label is empty."""
    import numpy as np

    for part in parts:
        yield np.array(part.fill_null("").to_pylist(), "U")


def _json(parts: "Iterator[pa.Array]") -> Iterator["np.ndarray"]:
    """Text as the bytes of one JSON list."""
    import numpy as np

    before = "["
    for part in parts:
        yield np.frombuffer((before + json.dumps(part.to_pylist())[1:-1]).encode(), np.uint8)
        before = ", "
    yield np.frombuffer(b"]", np.uint8)


def _dtype_and_shape(column: Column) -> "tuple[np.dtype, tuple[int, ...]]":
    """Of all arrays of a column together; the dtype of text is that of the longest."""
    dtypes, shapes = zip(*((array.dtype, array.shape) for array in column()), strict=True)
    return max(dtypes, key=lambda dtype: dtype.itemsize), (sum(rows for rows, *_ in shapes), *shapes[0][1:])


def _write_npz(file: BinaryIO, columns: dict[str, Column]) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, column in columns.items():
            dtype, shape = _dtype_and_shape(column)
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for array in column():
                    member.write(array.astype(dtype).tobytes())


def _write_safetensors(file: BinaryIO, columns: dict[str, Column]) -> None:
    """See https://github.com/huggingface/safetensors#format; its library writes what is in memory alone."""
    kinds = {name: _dtype_and_shape(column) for name, column in columns.items()}
    # Tensors of wide numbers first: each then starts at a multiple of its numbers' size.
    ordered = sorted(kinds, key=lambda name: -kinds[name][0].itemsize)
    header, start = {}, 0
    for name in ordered:
        dtype, shape = kinds[name]
        end = start + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": SAFETENSORS_TYPES[dtype.name], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in ordered:
        for array in columns[name]():
            file.write(array.tobytes())
