"""Sentence encoders as models of sentence-transformers: saved and loaded.

A bag of words is saved as the library's own StaticEmbedding, and GRUs with the source of their module: both
load without the project.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import nn

from core.io.errors import InputError, reason_of
from core.io.files import read_json
from core.training.records import check_files
from core.training.settings import check_ranges, check_type
from sentence.checkpoints import make_usable
from sentence.encoder import TwoEncoders
from sentence.modeling_quick_thought import QuickThought
from sentence.models import find_model, is_run

# The arguments of a QuickThought except its tokenizer, which are saved in its folder.
SETTINGS: dict[str, Any] = {
    "kind": Literal["gru", "bow"],
    "embedding_dim": int,
    "hidden": int,
    "bidirectional": bool,
    "longest": int,
}
FOLDER = "0_QuickThought"  # that sentence-transformers saves the module in
BAG_SETTINGS = "quick_thought.json"  # beside the files of a StaticEmbedding, which are in the model's folder
# That saved models name, those of older versions last.
TYPES = ("modeling_quick_thought.QuickThought", "sentence.encoder.QuickThought")
STATIC_TYPE = f"{StaticEmbedding.__module__}.{StaticEmbedding.__name__}"


def checked_settings(saved: dict[str, Any], file: str = "config.json") -> dict[str, Any]:
    """The arguments of a QuickThought from its folder's config; raises InputError if one is out of range."""
    try:
        settings = {name: check_type(name, saved.get(name), hint) for name, hint in SETTINGS.items()}
        check_ranges(settings, dict.fromkeys(("embedding_dim", "hidden", "longest"), 1))
    except InputError as error:
        raise InputError(f"{file}: {str(error).replace('`', '')}") from None
    return settings


def as_sentence_transformer(encoders: TwoEncoders) -> SentenceTransformer:
    """A model with the weights of ``encoders`` on their device; those of GRUs are shared."""
    is_bag = encoders.kind == "bow"
    module = as_static_embedding(encoders) if is_bag else QuickThought.from_encoders(encoders)
    return SentenceTransformer(modules=[module], device=str(next(encoders.parameters()).device))


def as_static_embedding(encoders: TwoEncoders) -> StaticEmbedding:
    """The bags of words f and g as one: the mean of concatenated word embeddings is both means concatenated.

    It differs in one thing: a text without a token is the vector 0, not that of an unknown word.
    """
    tokenizer = Tokenizer.from_str(encoders.tokenizer.to_str())
    tokenizer.enable_truncation(encoders.longest)
    weights = [side.embedding.weight.detach() for side in (encoders.f, encoders.g)]
    return StaticEmbedding(tokenizer, embedding_weights=torch.cat(weights, dim=1))


def save_encoders(encoders: TwoEncoders, folder: Path) -> None:
    """Write ``encoders`` to a folder that ``SentenceTransformer`` loads without the project."""
    as_sentence_transformer(encoders).save(str(folder), create_model_card=False)
    if encoders.kind == "bow":  # what ``load_model`` needs to know that the embedding has two parts
        settings = {name: getattr(encoders, name) for name in SETTINGS}
        (folder / BAG_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def save_model(model: nn.Sequential, folder: Path) -> None:
    """Write ``TwoEncoders`` in a Sequential, or a SentenceTransformer, to a folder."""
    if isinstance(model[0], TwoEncoders):
        save_encoders(model[0], folder)
    else:
        model.save(str(folder), create_model_card=False)


def is_quick_thought(folder: Path) -> bool:
    """Whether a SentenceTransformer's folder holds our module alone: then none of its code is needed."""
    return _module_of(folder) in [(type_, FOLDER) for type_ in TYPES]


def is_bag_of_words(folder: Path) -> bool:
    """Whether a SentenceTransformer's folder holds a bag of words that ``save_encoders`` wrote."""
    return (folder / BAG_SETTINGS).exists() and _module_of(folder) == (STATIC_TYPE, "")


def _module_of(folder: Path) -> tuple[str, str] | None:
    """The type and the folder of a model's only module; None if there are more, or none can be read."""
    try:
        [module] = read_json(folder / "modules.json")
        return module["type"], module["path"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _load_ours(folder: Path) -> QuickThought | None:
    """The module of a folder that ``save_encoders`` wrote; None for other models."""
    if is_quick_thought(folder):
        checked_settings(read_json(folder / FOLDER / "config.json"))
        return QuickThought.load(str(folder), FOLDER)
    return _load_bag_of_words(folder) if is_bag_of_words(folder) else None


def _load_bag_of_words(folder: Path) -> QuickThought:
    settings = checked_settings(read_json(folder / BAG_SETTINGS), BAG_SETTINGS)
    static = StaticEmbedding.load(str(folder))
    static.tokenizer.no_truncation()
    with torch.device("meta"):
        module = QuickThought(static.tokenizer, **settings)
    f, g = (part.clone() for part in static.embedding.weight.detach().chunk(2, dim=1))
    module.load_state_dict({"f.embedding.weight": f, "g.embedding.weight": g}, assign=True)
    return module.requires_grad_()


def load_model(name: str, download: bool, device: torch.device) -> SentenceTransformer:
    """The model of a run's folder, of a SentenceTransformer's folder, or of a name at the hub.

    No code of the folder is run: pickled weights are refused, or read by an unpickler that knows tensors
    alone. A tokenizer without a padding token pads with its end of text; attention leaves padding out.
    Raises InputError if there is no such model.
    """
    folder = find_model(name, download)
    if is_run(Path(name)):
        check_files(Path(name))
    try:
        if module := _load_ours(folder):
            return SentenceTransformer(modules=[module], device=str(device))
        model = SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            # Set here because the folder's own settings may allow pickles.
            model_kwargs={"use_safetensors": True, "weights_only": True},
        )
        make_usable(model)
        return model
    except Exception as error:  # the library raises errors of many kinds for other folders
        raise InputError(f"{name} cannot be loaded as a SentenceTransformer: {reason_of(error)}") from error
