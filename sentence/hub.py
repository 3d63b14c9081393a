"""Models at the Hugging Face hub, downloaded to its cache."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.io.cache import locked
from core.io.downloads import announce
from core.io.errors import InputError, reason_of

NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# Not the same weights again in other formats; pickled ones are not read.
FILES: dict[str, Any] = {
    "allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"],
    "ignore_patterns": ["onnx/*", "openvino/*"],
}


def find_at_hub(name: str, download: bool) -> Path:
    """The folder of a model in the hub's cache; with ``download`` it is fetched if it is missing.

    A name without an owner is one of sentence-transformers' own, as the library has it, or an old name.
    Raises InputError if there is no such model, or if it cannot be downloaded.
    """
    missing = f"{name} is not a folder; name that of a run, or of a SentenceTransformer"
    if not NAME.fullmatch(name):
        raise InputError(missing)
    repositories = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    for repository in repositories:
        if folder := cached(repository):
            return folder
    if not download:
        raise InputError(f"{missing}, or set `download` to look for it at the Hugging Face hub")
    from huggingface_hub.errors import RepositoryNotFoundError

    for repository in repositories:
        try:
            return fetch(repository)
        except RepositoryNotFoundError:
            continue
        except Exception as error:  # without a network the library raises errors of many types
            raise InputError(
                f"could not download https://huggingface.co/{repository}: {reason_of(error)}; connect to the "
                "network, or name a folder"
            ) from error
    raise InputError(f"{name} is neither a folder nor a model at the Hugging Face hub")


def cached(repository: str) -> Path | None:
    """The folder of a model in the hub's cache, if it is there."""
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True, **FILES))
    except (LocalEntryNotFoundError, HFValidationError):  # the latter: no model can have this name
        return None


@contextmanager
def only_errors() -> Iterator[None]:
    """The hub's library logs no warnings inside: without a network it has two for each of its tries."""
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def fetch(repository: str) -> Path:
    """Download a model to the hub's cache; of several processes one does, and the others wait for it."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.utils import filter_repo_objects

    siblings = HfApi().model_info(repository, files_metadata=True).siblings
    files = filter_repo_objects(siblings, key=lambda file: file.rfilename, **FILES)
    size = sum(file.size or 0 for file in files)
    target = Path(HF_HUB_CACHE)
    target.mkdir(parents=True, exist_ok=True)
    with locked(target / f".{repository.replace('/', '--')}", remove=True):
        if folder := cached(repository):
            return folder
        announce(f"https://huggingface.co/{repository}", target, size)
        return Path(snapshot_download(repository, **FILES))
