"""Transformers whose tokenizers or positions differ from BERT's are fine-tuned, or refused in one line."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing
from transformers import (
    ByT5Tokenizer,
    GPT2Config,
    GPT2Model,
    GPT2TokenizerFast,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from sentence.checkpoints import max_positions
from sentence.data import unknown_id_of
from sentence.evaluate import main as evaluate_main
from sentence.quick_thought import load_model
from sentence.train import main as train_main
from tests.runs import as_printed, failure_of, losses_of, printed_scores, result_of
from tests.sentence.conftest import write_senteval

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.Ġ"
SHAPE = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}


def save_gpt2(folder):
    """A GPT-2 with random weights, one token a letter and 40 positions; its tokenizer cannot pad."""
    vocabulary = {letter: i for i, letter in enumerate([*LETTERS, "<|endoftext|>"])}
    GPT2TokenizerFast(vocabulary, []).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2Model(
        GPT2Config(vocab_size=len(vocabulary), n_embd=8, n_layer=1, n_head=2, n_positions=40)
    ).save_pretrained(folder)
    return folder


def save_roberta(folder):
    """A RoBERTa with random weights. Its 42 positions begin behind the padding's index 1: 40 are left."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate([*special, *LETTERS])}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = dict(zip(["bos", "pad", "eos", "unk", "mask"], special, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **{f"{name}_token": token for name, token in names.items()},
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(special) + len(LETTERS), max_position_embeddings=42, intermediate_size=8, **SHAPE
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


def save_byte_t5(folder):
    """A T5 that reads bytes, by a tokenizer written in Python."""
    ByT5Tokenizer().save_pretrained(folder)
    T5EncoderModel(
        T5Config(vocab_size=384, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(folder)
    return folder


def save_static(folder):
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device="cpu").save(
        str(folder), create_model_card=False
    )
    return folder


def flags_for(model, books, tmp_path, *flags):
    write_senteval(tmp_path / "data")
    where = ["--dataset", f"folder:{books}", "--data-root", str(tmp_path / "data")]
    where += ["--output-dir", str(tmp_path / "run"), "--device", "cpu", "--tasks", "stsb"]
    where += ["--epochs", "3", "--batch-size", "20", "--lr", "0.01"]
    return [*where, "--encoder", "transformer", "--model", str(model), *flags]


@pytest.mark.parametrize("save", [save_gpt2, save_roberta])
def test_checkpoint_is_fine_tuned_with_all_its_positions(save, books, tmp_path, capsys):
    train_main(flags_for(save(tmp_path / "model"), books, tmp_path, "--longest", "40"))
    assert "0 of them (0.00%) are not in the vocabulary" in capsys.readouterr().err
    losses = losses_of(tmp_path / "run")
    assert losses[2] < losses[0]
    scores = printed_scores(
        evaluate_main,
        capsys,
        [str(tmp_path / "run"), "--data-root", str(tmp_path / "data"), "--device", "cpu"],
    )
    assert scores == as_printed(result_of(tmp_path / "run")["metrics"])
    model = SentenceTransformer(str(tmp_path / "run" / "encoder"), device="cpu")  # the padding is saved
    assert model.encode(["The river held.", "A stone."]).shape == (2, 8)


def test_padding_does_not_change_an_embedding(tmp_path):
    model = load_model(str(save_gpt2(tmp_path)), download=False, device=torch.device("cpu"))
    assert model.tokenizer.pad_token == "<|endoftext|>"
    together = model.encode(["A stone.", "The cold river held a stone."])
    alone = np.concatenate([model.encode([text]) for text in ("A stone.", "The cold river held a stone.")])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("save", [save_gpt2, save_roberta])
def test_evaluated_texts_are_truncated_where_positions_end(save, tmp_path):
    """RoBERTa's tokenizer would read two tokens more."""
    model = load_model(str(save(tmp_path)), download=False, device=torch.device("cpu"))
    assert model.max_seq_length == 40
    assert np.isfinite(model.encode(["The cold river held a stone. " * 10])).all()


@pytest.mark.parametrize(
    ("save", "longest", "message"),
    [
        (save_gpt2, 41, "--longest is 41; {model} has positions for 40 tokens at most"),
        (save_roberta, 41, "--longest is 41; {model} has positions for 40 tokens at most"),
        (save_byte_t5, 30, "whose ByT5Tokenizer is not supported; its tokenizer must be one of"),
        (save_static, 30, "--model is {model}, a StaticEmbedding; it must be a transformer"),
    ],
)
def test_checkpoint_that_does_not_fit_ends_in_one_line(save, longest, message, books, tmp_path, capsys):
    model = save(tmp_path / "model")
    flags = flags_for(model, books, tmp_path, "--longest", str(longest))
    assert message.format(model=model) in failure_of(train_main, capsys, flags)[-1]


def test_tokenizer_without_padding_or_end_of_text_ends_in_one_line(tmp_path, capsys):
    folder = save_gpt2(tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, []))).save_pretrained(folder)
    *_, line = failure_of(evaluate_main, capsys, [str(folder), "--tasks", "topic", "--device", "cpu"])
    assert line.endswith("its tokenizer has no padding token, and none for the end of a text")


def test_relative_positions_have_no_bound(tmp_path):
    model = load_model(str(save_byte_t5(tmp_path)), download=False, device=torch.device("cpu"))
    assert max_positions(model[0]) is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"), 1),
        (WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"), 1),
        (BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"), 1),
        (BPE({"a": 0}, []), None),
        (Unigram([("a", -1.0), ("<unk>", 0.0)], 1, False), 1),
    ],
)
def test_unknown_words_are_counted_by_the_tokenizer_s_own_token(model, expected):
    assert unknown_id_of(Tokenizer(model)) == expected
