"""Files of embeddings, read back by pandas, NumPy and safetensors."""

import errno
import json
import re
import resource
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import core.io.files
from core.io.errors import InputError
from shared_eval.embeddings import SUFFIXES, Rows, write_embeddings

IDS = ["a.png", "b, c.png", 'd "e"\n.png', "ä/日本.png", "bad-\udcff.png"]
READABLE = [*IDS[:4], "bad-\\udcff.png"]
LABELS = ["cat", None, "dog", "cat", "犬"]
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def batches(ids, labels, vectors=VECTORS, size=2):
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        yield Rows(ids[part], vectors[part], None if labels is None else labels[part])


def read(path):
    """The columns of a file, each read by the library of its format."""
    if path.suffix == ".parquet":
        columns = pd.read_parquet(path)
        found = {name: columns[name].tolist() for name in columns if name != "embedding"}
        return found | {"embedding": np.stack(columns["embedding"])}
    if path.suffix == ".csv":
        columns = pd.read_csv(path)
        vectors = columns.filter(like="embedding_").to_numpy(np.float32)
        found = {name: columns[name].tolist() for name in columns if not name.startswith("embedding_")}
        return found | {"embedding": vectors}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] if name == "embedding" else file[name].tolist() for name in file.files}
    tensors = load_file(path)
    return {
        name: json.loads(tensor.tobytes())
        if tensor.dtype == np.uint8
        else tensor
        if tensor.ndim > 1
        else tensor.tolist()
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_ids_and_labels_are_read_back(tmp_path, suffix):
    path = tmp_path / "new" / f"x{suffix}"
    assert write_embeddings(path, batches(IDS, LABELS)) == 5
    found = read(path)
    assert found["id"] == READABLE
    assert [label if isinstance(label, str) and label else None for label in found["label"]] == LABELS
    np.testing.assert_array_equal(found["embedding"], VECTORS)
    assert found["embedding"].dtype == np.float32
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_as_ids_and_labels_are_read_back(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_embeddings(path, batches([7, 5, 3, 1, 0], [1, 0, -1, 2, 1]))
    found = read(path)
    assert (found["id"], found["label"]) == ([7, 5, 3, 1, 0], [1, 0, -1, 2, 1])
    np.testing.assert_array_equal(found["embedding"], VECTORS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_labels_there_is_no_column_of_labels(tmp_path, suffix):
    path = tmp_path / f"x{suffix.upper()}"
    write_embeddings(path, batches(IDS, None))
    found = read(path.rename(tmp_path / f"x{suffix}"))
    assert found.keys() == {"id", "embedding"}


def test_parquet_has_lists_of_fixed_size(tmp_path):
    import pyarrow.parquet as pq

    write_embeddings(tmp_path / "x.parquet", batches(IDS, LABELS))
    assert str(pq.read_schema(tmp_path / "x.parquet").field("embedding").type).startswith("fixed_size_list<")


def test_tensors_and_doubles_are_written_as_float32(tmp_path):
    tensors = torch.from_numpy(VECTORS).double()
    write_embeddings(tmp_path / "x.npz", [Rows(IDS, tensors)])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["embedding"], VECTORS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    block = np.ones((500, 64), np.float32)

    def peak(count):
        rows = (Rows([f"{i}-{j}" for j in range(500)], block, ["x"] * 500) for i in range(count))
        tracemalloc.start()
        write_embeddings(tmp_path / f"{count}{suffix}", rows)
        return tracemalloc.get_traced_memory()[1], tracemalloc.stop()

    peak(1)  # imports
    (few, _), (many, _) = peak(4), peak(40)
    assert many < few + 2_000_000  # the vectors alone are 5 MB


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_file_stays_unless_it_is_to_be_overwritten(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"`output` .*x\.\w+ exists; set `overwrite` to replace it"):
        write_embeddings(path, batches(IDS, LABELS))
    assert path.read_text() == "mine"
    write_embeddings(path, batches(IDS, LABELS), overwrite=True)
    assert read(path)["id"] == READABLE


@contextmanager
def files_limited_to(size):
    """No file may grow beyond ``size`` bytes inside: writes fail as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_and_error_on_the_way_leave_what_was_there(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"x{suffix}"
    path.write_text("mine")

    def fails():
        yield from batches(IDS, LABELS)
        raise InputError("damaged.png cannot be read")

    with pytest.raises(InputError, match=r"damaged\.png cannot be read"):
        write_embeddings(path, fails(), overwrite=True)

    vectors = np.random.default_rng(0).normal(size=(500, 64))
    blocks = (Rows(list(range(500)), vectors) for _ in range(20))
    with files_limited_to(300_000), pytest.raises(InputError, match="cannot be written: File too large"):
        write_embeddings(path, blocks, overwrite=True)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(core.io.files.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
        write_embeddings(path, batches(IDS, LABELS), overwrite=True)
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_output_that_cannot_be_one_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"suffix must be one of \.parquet, \.npz, \.safetensors, \.csv"):
        write_embeddings(tmp_path / "x.txt", [])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is not a regular file"):
        write_embeddings(tmp_path / "folder.csv", [], overwrite=True)
    with pytest.raises(InputError, match="there is nothing to embed"):
        write_embeddings(tmp_path / "x.csv", [])
    assert not (tmp_path / "x.csv").exists()


def test_batch_whose_parts_differ_in_number_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"differ in number: \[4, 5\]"):
        write_embeddings(tmp_path / "x.npz", [Rows(IDS[:4], VECTORS)])


@pytest.mark.parametrize(("page", "query"), [("images", 0), ("graphs", 0), ("text", 100)])
def test_lines_for_faiss_in_the_documents_find_the_nearest(page, query):
    pytest.importorskip("faiss", reason="faiss is not installed")
    path = Path(__file__).parents[2] / "docs" / f"your-own-{page}.md"
    [code] = re.findall(r"```py\n(.*?)```", path.read_text(), flags=re.DOTALL)
    vectors = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = {"vectors": vectors, "unit": vectors}
    exec(code, names)
    similarity = vectors @ vectors[query]
    assert names["neighbours"][0].tolist() == np.argsort(-similarity)[:6].tolist()
    np.testing.assert_allclose(names["cosines"][0], np.sort(similarity)[::-1][:6], rtol=1e-5)
