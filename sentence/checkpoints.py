"""What differs between pretrained transformers: padding tokens, tokenizers, the number of positions."""

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from core.io.errors import InputError


def make_usable(model: SentenceTransformer) -> None:
    """Give a tokenizer without a padding token, as GPT-2's, its end of text; truncate where positions end."""
    if isinstance(model[0], Transformer) and (positions := max_positions(model[0])) is not None:
        model.max_seq_length = min(model.max_seq_length or positions, positions)
    tokenizer = getattr(model[0], "tokenizer", None)
    if isinstance(tokenizer, PreTrainedTokenizerBase) and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise InputError("its tokenizer has no padding token, and none for the end of a text")


def fast_tokenizer(model: SentenceTransformer, name: str, longest: int) -> Tokenizer:
    """The tokenizer of a checkpoint to fine-tune, truncating at ``longest`` tokens, without padding.

    Raises InputError unless the checkpoint is a transformer with such a tokenizer and as many positions.
    """
    if not isinstance(model[0], Transformer):
        raise InputError(
            f"`model` is {name}, a {type(model[0]).__name__}; it must be a transformer to be tuned"
        )
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"`model` is {name}, whose {type(model.tokenizer).__name__} is not supported; its tokenizer must "
            "be one of the tokenizers library"
        )
    positions = max_positions(model[0])
    if positions is not None and longest > positions:
        raise InputError(f"`longest` is {longest}; {name} has positions for {positions} tokens at most")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def max_positions(transformer: Transformer) -> int | None:
    """Tokens that a transformer has positions for; None if they are relative and have no bound."""
    for name, module in transformer.named_modules():
        # RoBERTa and its kind count positions from the padding's index on.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.num_embeddings - module.padding_idx - 1
    positions = getattr(transformer.config, "max_position_embeddings", None)
    return positions if positions is not None and positions > 0 else None
