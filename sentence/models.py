"""Where a sentence model is: in a run's folder, in a folder of its own, or at the Hugging Face hub."""

from pathlib import Path

from core.io.errors import InputError
from core.io.files import read_json
from core.training.settings import read_settings
from sentence.hub import find_at_hub


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run, of any modality."""
    try:
        return "modality" in read_json(folder / "config.json")
    except (OSError, ValueError, TypeError):
        return False


def find_model(name: str, download: bool) -> Path:
    """The folder of a run's encoder, the folder ``name``, or that of a name at the hub in its cache.

    Raises InputError if there is no such folder, or if it is a run of another modality or an unfinished one.
    """
    folder = Path(name)
    if not folder.is_dir():
        return find_at_hub(name, download)
    if not is_run(folder):
        return folder
    read_settings(folder, modality="sentence")
    if not (folder / "encoder").exists():
        raise InputError(f"{folder / 'encoder'} is missing: the run is not finished; resume it with `resume`")
    return folder / "encoder"
