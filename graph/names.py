"""Names of graph datasets, and where a TUDataset is on the disk. This imports no torch."""

import re
from pathlib import Path
from typing import Literal

from core.io.errors import InputError, unknown_name
from core.io.files import is_hidden, path_in

PAPER_DATASETS = (
    *("MUTAG", "PTC_MR", "ENZYMES", "PROTEINS", "DD"),
    *("REDDIT-BINARY", "IMDB-BINARY", "IMDB-MULTI"),
)
KNOWN = ("motifs", *PAPER_DATASETS)
FOLDER = "folder:"
GIVEN = "graphs"  # kind of the graphs that train_on is given, in their name
NodeFeatures = Literal["auto", "labels", "attributes", "both", "degree"]
# All other names at https://chrsmrrs.github.io/datasets: they can be downloaded.
_MOLECULES = (
    "AIDS alchemy_full aspirin benzene BZR BZR_MD COX2 COX2_MD DHFR DHFR_MD ER_MD ethanol FRANKENSTEIN "
    "malonaldehyde MCF-7 MCF-7H MOLT-4 MOLT-4H Mutagenicity naphthalene NCI1 NCI109 NCI-H23 NCI-H23H OVCAR-8 "
    "OVCAR-8H P388 P388H PC-3 PC-3H PTC_FM PTC_FR PTC_MM QM9 salicylic_acid SF-295 SF-295H SN12C SN12CH "
    "SW-620 SW-620H toluene UACC257 UACC257H uracil Yeast YeastH ZINC_full ZINC_test ZINC_train ZINC_val"
)
_TOX21 = "AhR AR AR-LBD ARE aromatase ATAD5 ER ER-LBD HSE MMP p53 PPAR-gamma"
_OTHERS = (
    "KKI OHSU Peking_1 PROTEINS_full "
    "COIL-DEL COIL-RAG Cuneiform Fingerprint FIRSTMM_DB Letter-high Letter-low Letter-med MSRC_9 MSRC_21 "
    "MSRC_21C COLLAB dblp_ct1 dblp_ct2 DBLP_v1 deezer_ego_nets facebook_ct1 facebook_ct2 github_stargazers "
    "highschool_ct1 highschool_ct2 infectious_ct1 infectious_ct2 mit_ct1 mit_ct2 REDDIT-MULTI-5K "
    "REDDIT-MULTI-12K reddit_threads tumblr_ct1 tumblr_ct2 twitch_egos TWITTER-Real-Graph-Partial "
    "COLORS-3 SYNTHETIC SYNTHETICnew Synthie TRIANGLES"
)
OTHER_DATASETS = (
    *_MOLECULES.split(),
    *(f"Tox21_{name}_{part}" for name in _TOX21.split() for part in ("training", "testing", "evaluation")),
    *_OTHERS.split(),
)


def tu_files(name: str, data_root: Path) -> tuple[Path, str]:
    """The folder of a TUDataset's text files, and what their names begin with.

    ``name`` is a dataset's, or ``folder:PATH``, with the files in PATH or in PATH/raw. Raises InputError if
    there is no such folder with the files of one dataset.
    """
    if not name.startswith(FOLDER):
        return data_root / "TUDataset" / name / "raw", name
    path = path_in(name)
    for folder in (path, path / "raw"):
        prefixes = sorted(
            file.name.removesuffix("_A.txt") for file in folder.glob("*_A.txt") if not is_hidden(file.name)
        )
        if len(prefixes) > 1:
            raise InputError(f"{folder} has the files of several datasets: {', '.join(prefixes)[:200]}")
        if prefixes:
            return folder, prefixes[0]
    reason = "has no NAME_A.txt, the edges of a TUDataset" if path.is_dir() else "is not a folder"
    raise InputError(f"{path} {reason}")


def has_tu_dataset(name: str, data_root: Path) -> bool:
    """Whether the text files of a TUDataset are below the data root; a name leads nowhere else."""
    is_folder_name = re.fullmatch(r"\w[\w.+-]*", name) is not None
    return is_folder_name and (data_root / "TUDataset" / name / "raw" / f"{name}_A.txt").exists()


def check_name(argument: str, name: str, data_root: Path) -> None:
    """Raise InputError, which names the ``argument``, unless a dataset is built-in, published or there."""
    if name.startswith(FOLDER):
        tu_files(name, data_root)
    elif name not in (*KNOWN, *OTHER_DATASETS) and not has_tu_dataset(name, data_root):
        more = f", other TUDatasets, any below {data_root / 'TUDataset'}, and folder:PATH"
        raise unknown_name(argument, name, KNOWN, more)
