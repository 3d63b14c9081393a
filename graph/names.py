"""Names of graph datasets, and where a TUDataset is on the disk. This imports no torch."""

import re
from pathlib import Path
from typing import Literal

from core.io.errors import unknown_name

PAPER_DATASETS = (
    *("MUTAG", "PTC_MR", "ENZYMES", "PROTEINS", "DD"),
    *("REDDIT-BINARY", "IMDB-BINARY", "IMDB-MULTI"),
)
KNOWN = ("motifs", *PAPER_DATASETS)
NodeFeatures = Literal["auto", "labels", "attributes", "both", "degree"]


def tu_folder(name: str, data_root: Path) -> Path:
    """The folder of a TUDataset, which has the text files in ``raw``."""
    return data_root / "TUDataset" / name


def has_tu_dataset(name: str, data_root: Path) -> bool:
    """Whether the text files of a TUDataset are there."""
    return _is_file_name(name) and (tu_folder(name, data_root) / "raw" / f"{name}_A.txt").exists()


def check_name(name: str, data_root: Path, download: bool) -> None:
    """Raise InputError if a dataset is neither known nor there, and cannot be downloaded."""
    if name in KNOWN or has_tu_dataset(name, data_root) or (download and _is_file_name(name)):
        return
    more = f", any TUDataset below {data_root / 'TUDataset'}, or others with `download`"
    raise unknown_name("dataset", name, KNOWN, more)


def _is_file_name(name: str) -> bool:
    """Whether a name is that of one folder: it leads nowhere else on the disk."""
    return re.fullmatch(r"\w[\w.+-]*", name) is not None
