"""Names of graph datasets, and where a TUDataset is on the disk. This imports no torch."""

import re
from pathlib import Path
from typing import Literal

from core.io.errors import InputError, unknown_name

PAPER_DATASETS = (
    *("MUTAG", "PTC_MR", "ENZYMES", "PROTEINS", "DD"),
    *("REDDIT-BINARY", "IMDB-BINARY", "IMDB-MULTI"),
)
KNOWN = ("motifs", *PAPER_DATASETS)
FOLDER = "folder:"
NodeFeatures = Literal["auto", "labels", "attributes", "both", "degree"]


def tu_files(name: str, data_root: Path) -> tuple[Path, str]:
    """The folder of a TUDataset's text files, and what their names begin with.

    ``name`` is a dataset's, or ``folder:PATH``, with the files in PATH or in PATH/raw. Raises InputError if
    there is no such folder with the files of one dataset.
    """
    if not name.startswith(FOLDER):
        return data_root / "TUDataset" / name / "raw", name
    path = Path(name.removeprefix(FOLDER))
    for folder in (path, path / "raw"):
        prefixes = sorted(file.name.removesuffix("_A.txt") for file in folder.glob("*_A.txt"))
        if len(prefixes) > 1:
            raise InputError(f"{folder} has the files of several datasets: {', '.join(prefixes)[:200]}")
        if prefixes:
            return folder, prefixes[0]
    reason = "has no NAME_A.txt, the edges of a TUDataset" if path.is_dir() else "is not a folder"
    raise InputError(f"{path} {reason}")


def has_tu_dataset(name: str, data_root: Path) -> bool:
    """Whether the text files of a TUDataset are below the data root."""
    return _is_file_name(name) and (data_root / "TUDataset" / name / "raw" / f"{name}_A.txt").exists()


def check_name(name: str, data_root: Path, download: bool) -> None:
    """Raise InputError if a dataset is neither known nor there, and cannot be downloaded."""
    if name.startswith(FOLDER):
        tu_files(name, data_root)
        return
    if name in KNOWN or has_tu_dataset(name, data_root) or (download and _is_file_name(name)):
        return
    more = f", any TUDataset below {data_root / 'TUDataset'}, folder:PATH, or others with `download`"
    raise unknown_name("dataset", name, KNOWN, more)


def _is_file_name(name: str) -> bool:
    """Whether a name is that of one folder: it leads nowhere else on the disk."""
    return re.fullmatch(r"\w[\w.+-]*", name) is not None
