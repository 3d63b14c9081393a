"""Where a sentence model is: in a run's folder, in a folder of its own, or at the Hugging Face hub."""

from pathlib import Path

from core.io.errors import InputError
from core.io.files import read_json
from core.training.settings import read_settings


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run, of any modality."""
    try:
        return "modality" in read_json(folder / "config.json")
    except (OSError, ValueError, TypeError):
        return False


def find_encoder(run: Path) -> Path:
    """The folder of a run's encoder, or the folder of a SentenceTransformer itself.

    Raises InputError if there is no such folder, or if it is a run of another modality or an unfinished one.
    """
    if not run.is_dir():
        raise InputError(f"{run} is not a folder; name that of a run, or of a SentenceTransformer")
    return find_model(str(run), download=False)


def find_model(name: str, download: bool) -> Path:
    """The folder of a run's encoder, the folder ``name``, or with ``download`` a name at the hub.

    Raises InputError if there is no such folder.
    """
    folder = Path(name)
    if is_run(folder):
        read_settings(folder, modality="sentence")
        folder = folder / "encoder"
        if not folder.exists():
            raise InputError(f"{folder} is missing: the run is not finished; resume it with `resume`")
    elif not folder.exists() and not download:
        raise InputError(f"{name} is not a folder; set `download` to look for it at the Hugging Face hub")
    return folder
