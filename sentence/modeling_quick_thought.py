"""Two sentence encoders as a module of sentence-transformers, which saves itself with its source.

Saved models contain a copy of this file and of ``encoder.py``, as the Hugging Face hub's convention for
custom modules has it: ``SentenceTransformer(folder, trust_remote_code=True)`` needs nothing of the project.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from tokenizers import Tokenizer
from torch import Tensor

from .encoder import TwoEncoders, pad

SOURCES = ("modeling_quick_thought.py", "encoder.py")
HUB_OPTIONS = ("token", "cache_folder", "revision", "local_files_only")


class QuickThought(TwoEncoders, InputModule):
    """``TwoEncoders`` as a module of sentence-transformers, which loads the folder that ``save`` writes."""

    __module__ = "modeling_quick_thought"  # where saved models name it: the file in their folder
    save_in_root = False
    # The arguments except the tokenizer, which are saved in the module's folder.
    config_keys = ["kind", "embedding_dim", "hidden", "bidirectional", "longest"]  # noqa: RUF012

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _new, (), self.__dict__  # a pickle names this function, as it cannot import the class

    @classmethod
    def from_encoders(cls, encoders: TwoEncoders) -> "QuickThought":
        """The module with the weights of ``encoders``, which are shared."""
        with torch.device("meta"):
            module = cls(encoders.tokenizer, **{name: getattr(encoders, name) for name in cls.config_keys})
        module.f, module.g = encoders.f, encoders.g
        return module

    @property
    def max_seq_length(self) -> int:
        """Tokens of a sentence at most, as a SentenceTransformer's own setting; the prompt's count too."""
        return self.longest

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`max_seq_length` is {value}; it must be a whole number of at least 1")
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
        """Write the module to its folder inside a model's, and its source to the model's folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        (Path(output_path) / "tokenizer.json").write_text(self.tokenizer.to_str(pretty=True), "utf-8")
        for name in SOURCES:
            shutil.copyfile(Path(__file__).with_name(name), Path(output_path).parent / name)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> "QuickThought":
        """The module that ``save`` wrote to a folder, here or at the hub."""
        where = {name: options[name] for name in HUB_OPTIONS if name in options} | {"subfolder": subfolder}

        def path_of(name: str) -> Path:
            path = cls.load_file_path(model_name_or_path, filename=name, **where)
            if path is None:
                raise FileNotFoundError(f"{name} is missing")
            return Path(path)

        saved = json.loads(path_of(cls.config_file_name).read_text("utf-8"))
        settings = {name: saved[name] for name in cls.config_keys}
        tokenizer = Tokenizer.from_str(path_of("tokenizer.json").read_text("utf-8"))
        with torch.device("meta"):  # the settings may ask for more memory than the weights have
            module = cls(tokenizer, **settings)
        # Reads model.safetensors, or pytorch_model.bin with an unpickler that knows tensors alone.
        weights = cls.load_torch_weights(model_name_or_path, **where)
        module.load_state_dict(weights, assign=True)
        return module


def _new() -> QuickThought:
    return QuickThought.__new__(QuickThought)
