"""Parsers of data sets: graphs, texts, images and archives."""

import gzip
import os
from pathlib import Path

from hypothesis import strategies as st

from core.io.archives import unpack
from core.io.errors import InputError
from graph.tudataset import load_tu_dataset
from image.folders import split_folders
from image.skipped import Skipped
from sentence.corpora import Faults, find_corpus
from sentence.tasks import SENTEVAL, load_task
from sentence.text import sentences_of
from tests.core.io.test_archives import MEMBERS, tar_of, zip_of
from tests.faults.inputs import compressed, edited, image_of, write_files
from tests.image.conftest import read_class_folders


def read_graphs(files: dict[str, bytes | None], folder: Path) -> None:
    write_files(folder, files)
    load_tu_dataset("TINY", folder / "TUDataset" / "TINY" / "raw")


def read_tasks(files: dict[str, bytes | None], folder: Path) -> None:
    write_files(folder, files)
    for name in SENTEVAL:
        load_task(name, folder)


PROSE = "\n".join(["The river held. It was cold!", "", "“Where?” she said; nobody knew…", "  A new one."] * 8)


def read_books(given: tuple[dict[str, bytes], bool], folder: Path) -> None:
    files, strict = given
    write_files(folder, files)
    faults = Faults(strict)
    corpus = find_corpus(f"folder:{folder}", folder)
    corpus.fingerprint()
    for _, lines in corpus.books(faults):
        for sentence_ in sentences_of(lines):
            assert "\n" not in sentence_
    faults.report()


BOOKS = st.tuples(
    st.fixed_dictionaries(
        {"plain.txt": edited(PROSE.encode())},
        optional={
            "utf16.txt": edited(PROSE.encode("utf-16")),
            "latin.txt": edited("Déjà vu, said he. Là-bas!\n".encode("latin-1") * 9),
            "packed.txt.gz": compressed(PROSE.encode()),
        },
    ),
    st.booleans(),
)


def read_images(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    write_files(folder, {name: content, "b/0.png": image_of("PNG")})
    files = [(path, 0) for path in folder.rglob("*") if path.is_file()]
    images, _ = read_class_folders(files, 8)
    assert images.shape == (2, 3, 8, 8)


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "PCX")


def read_image_folders(given: list[tuple[str, str, str]], folder: Path) -> None:
    """Read folders with folders, links and pipes in them, under names that may end in .png."""
    (folder / "root").mkdir()
    for parent, name, kind in given:
        path = folder / "root" / parent / name
        if os.path.lexists(path):  # writing to a pipe would wait for a reader
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "image":
                path.write_bytes(image_of("PNG"))
            else:
                path.symlink_to({"loop": path, "up": folder / "root", "nowhere": "nowhere"}[kind])
        except OSError:  # the path exists already, as something else
            continue
    train, test, _ = split_folders(folder / "root", Skipped())
    for files in (train, test):
        read_class_folders(files, 8)


COMPLETE = [(parent, "good.png", "image") for parent in ("train/a", "train/b", "test/a", "test/b")]


TREES = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "train/a",
                "train/b",
                "test/a",
                "test/b",
                "a",
                "b",
                ".",
                "train",
                "val/a",
                "Testing/b",
                "a/.x",
                "b/c",
            )
        ),
        st.sampled_from(("0.png", "1.png", "x.png", ".hidden", "a", "\udcff", "new\nline")),
        st.sampled_from(("folder", "pipe", "image", "image", "image", "loop", "up", "nowhere")),
    ),
    max_size=6,
).flatmap(lambda tree: st.sampled_from((tree, COMPLETE + tree, COMPLETE[:3] + tree)))


def unpack_archive(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    (folder / name).write_bytes(content)
    try:
        unpack(folder / name, folder / "out")
    except OSError as error:  # as fetch_archive handles an error of the disk
        raise InputError(str(error)) from error


ARCHIVES = st.one_of(
    edited(zip_of(MEMBERS)).map(lambda content: ("a.zip", content)),
    edited(tar_of(MEMBERS)).map(lambda content: ("a.tar", content)),
    edited(gzip.compress(tar_of(MEMBERS))).map(lambda content: ("a.tar.gz", content)),
)
