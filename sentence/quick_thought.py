"""Sentence encoders as models of sentence-transformers: saved and loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from tokenizers import Tokenizer
from torch import Tensor

from core.io.errors import InputError, reason_of
from core.io.files import read_json
from core.training.records import check_files
from core.training.settings import check_ranges, check_type
from sentence.checkpoints import make_usable
from sentence.encoder import TwoEncoders, pad
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
HUB_OPTIONS = ("token", "cache_folder", "revision", "local_files_only")
TYPE = "sentence.encoder.QuickThought"  # that saved models name


class QuickThought(TwoEncoders, InputModule):
    """``TwoEncoders`` as a module of sentence-transformers, which loads the folder that ``save`` writes."""

    __module__ = "sentence.encoder"  # where saved models name it
    save_in_root = False
    config_keys = list(SETTINGS)  # noqa: RUF012

    @classmethod
    def from_encoders(cls, encoders: TwoEncoders) -> "QuickThought":
        """The module with the weights of ``encoders``, which are shared."""
        with torch.device("meta"):
            module = cls(encoders.tokenizer, **{name: getattr(encoders, name) for name in SETTINGS})
        module.f, module.g = encoders.f, encoders.g
        return module

    @property
    def max_seq_length(self) -> int:
        """Tokens of a sentence at most, as a SentenceTransformer's own setting; the prompt's count too."""
        return self.longest

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"`max_seq_length` is {value}; it must be a whole number of at least 1")
        self.longest = value

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Token ids and mask [B, longest of the batch] of texts, each after the ``prompt``.

        They are padded although the encoders take them concatenated: the library's losses and its trainer
        split a batch along the first dimension of every tensor, and know these two names.
        """
        return pad(*self.tokens_of([prompt + text for text in inputs] if prompt else inputs))

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        mask = features["attention_mask"].bool()
        pair = self.embed_pair(features["input_ids"][mask], mask.sum(dim=1).cpu())
        return features | {"sentence_embedding": torch.cat(pair, dim=1)}

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        (Path(output_path) / "tokenizer.json").write_text(self.tokenizer.to_str(pretty=True), "utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> "QuickThought":
        """The module that ``save`` wrote to a folder, here or at the hub."""
        where = {name: options[name] for name in HUB_OPTIONS if name in options} | {"subfolder": subfolder}

        def path_of(name: str) -> Path:
            path = cls.load_file_path(model_name_or_path, filename=name, **where)
            if path is None:
                raise InputError(f"{name} is missing")
            return Path(path)

        settings = checked_settings(read_json(path_of(cls.config_file_name)))
        tokenizer = Tokenizer.from_str(path_of("tokenizer.json").read_text("utf-8"))
        with torch.device("meta"):  # the settings may ask for more memory than the weights have
            module = cls(tokenizer, **settings)
        # Reads model.safetensors, or pytorch_model.bin with an unpickler that knows tensors alone.
        weights = cls.load_torch_weights(model_name_or_path, **where)
        module.load_state_dict(weights, assign=True)
        return module


def checked_settings(saved: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a QuickThought from its folder's config; raises InputError if one is out of range."""
    try:
        settings = {name: check_type(name, saved.get(name), hint) for name, hint in SETTINGS.items()}
        check_ranges(settings, dict.fromkeys(("embedding_dim", "hidden", "longest"), 1))
    except InputError as error:
        raise InputError(f"config.json: {str(error).replace('`', '')}") from None
    return settings


def as_sentence_transformer(encoders: TwoEncoders) -> SentenceTransformer:
    """A model with the weights of ``encoders``, which are shared, on their device."""
    device = next(encoders.parameters()).device
    return SentenceTransformer(modules=[QuickThought.from_encoders(encoders)], device=str(device))


def is_quick_thought(folder: Path) -> bool:
    """Whether a SentenceTransformer's folder holds our module alone: then none of its code is needed."""
    try:
        modules = read_json(folder / "modules.json")
        return [(module["type"], module["path"]) for module in modules] == [(TYPE, FOLDER)]
    except (OSError, ValueError, LookupError, TypeError):
        return False


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
        if is_quick_thought(folder):
            module = QuickThought.load(str(folder), FOLDER)
            return SentenceTransformer(modules=[module], device=str(device))
        source = str(folder) if folder.exists() else name
        model = SentenceTransformer(
            source,
            device=str(device),
            local_files_only=not download,
            trust_remote_code=False,
            # Set here because the folder's own settings may allow pickles.
            model_kwargs={"use_safetensors": True, "weights_only": True},
        )
        make_usable(model)
        return model
    except Exception as error:  # the library raises errors of many kinds for other folders
        raise InputError(f"{name} cannot be loaded as a SentenceTransformer: {reason_of(error)}") from error
