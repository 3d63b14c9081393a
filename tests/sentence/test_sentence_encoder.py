"""Encoders: packed equals padded, both outputs concatenated, and folders that SentenceTransformer loads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from core.io.errors import InputError
from sentence.encoder import BagOfWords, GRUEncoder, QuickThought, pack
from sentence.quick_thought import is_quick_thought, load_model
from sentence.scoring import TOKENS_AT_ONCE, embed, encoder_of

VOCABULARY = ["[PAD]", "[UNK]", "the", "cold", "river", "held", "a", "stone", "."]
SENTENCES = ["The cold river held a stone.", "A stone.", "", "River river river river unheard-of.", "the"]


def make_tokenizer():
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    return tokenizer


def make_module(kind="gru", bidirectional=True, longest=30):
    torch.manual_seed(0)
    return QuickThought(make_tokenizer(), kind, 6, 5, bidirectional, longest)


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=9))
def test_pack_equals_torch(lengths):
    ids = torch.arange(sum(lengths))
    lengths = torch.tensor(lengths)
    packed, back = pack(ids, lengths)
    padded = torch.nn.utils.rnn.pad_sequence(ids.split(lengths.tolist()))
    theirs = torch.nn.utils.rnn.pack_padded_sequence(padded, lengths, enforce_sorted=False)
    assert torch.equal(packed.batch_sizes, theirs.batch_sizes)
    assert sorted(packed.data.tolist()) == sorted(ids.tolist())
    first = packed.data[: len(lengths)][back]
    assert torch.equal(first, lengths.cumsum(0) - lengths)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_gru_in_a_batch_equals_the_gru_on_single_sentences(bidirectional):
    """Value and gradient, without packing or padding."""
    torch.manual_seed(0)
    encoder = GRUEncoder(20, 6, 5, bidirectional).double()
    lengths = torch.tensor([3, 1, 6, 3, 2])
    ids = torch.randint(20, (int(lengths.sum()),))
    together = encoder(encoder.layout(ids, lengths))
    together.square().sum().backward()
    grads = [parameter.grad.clone() for parameter in encoder.parameters()]
    encoder.zero_grad()
    alone = []
    for sentence in ids.split(lengths.tolist()):
        _, states = encoder.gru(encoder.embedding(sentence).unsqueeze(1))
        alone.append(states.squeeze(1).flatten())
    alone = torch.stack(alone)
    alone.square().sum().backward()
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    for grad, parameter in zip(grads, encoder.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-10, atol=1e-13)
    assert together.shape == (5, 10 if bidirectional else 5)


def test_initial_weights_are_uniform():
    for encoder in (GRUEncoder(500, 20, 10, True), BagOfWords(500, 20)):
        for parameter in encoder.parameters():
            assert parameter.abs().max() <= 0.1 + 1e-6
    assert encoder.embedding.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_bag_of_words_is_the_mean_of_the_embeddings():
    encoder = BagOfWords(20, 6)
    lengths = torch.tensor([3, 1, 4])
    ids = torch.randint(20, (8,))
    expected = torch.stack(
        [encoder.embedding.weight[part].mean(dim=0) for part in ids.split(lengths.tolist())]
    )
    torch.testing.assert_close(encoder(encoder.layout(ids, lengths)), expected)


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_embedding_is_both_outputs_concatenated(kind):
    module = make_module(kind)
    ids, lengths = module.tokens_of(SENTENCES)
    assert lengths.tolist() == [7, 3, 1, 8, 1]  # the empty sentence is one unknown word
    f, g = module.embed_pair(ids, lengths)
    embedding = module(module.preprocess(SENTENCES))["sentence_embedding"]
    torch.testing.assert_close(embedding, torch.cat([f, g], dim=1))
    assert embedding.shape == (5, module.get_embedding_dimension())
    assert not torch.allclose(f, g)


def test_sentences_are_truncated():
    module = make_module(longest=3)
    short, long = module.tokens_of(["the cold river"]), module.tokens_of(["the cold river held a stone"])
    assert torch.equal(short[0], long[0])


@pytest.mark.parametrize("kind", ["gru", "bow"])
@pytest.mark.parametrize("tokens_at_once", [1, 10, TOKENS_AT_ONCE])
def test_embed_in_batches_equals_embed_one_by_one(kind, tokens_at_once, monkeypatch):
    monkeypatch.setattr("sentence.scoring.TOKENS_AT_ONCE", tokens_at_once)
    module = make_module(kind)
    module.train()
    together = embed(module, SENTENCES, torch.device("cpu"), "float32")
    alone = torch.cat([module(module.preprocess([text]))["sentence_embedding"] for text in SENTENCES])
    torch.testing.assert_close(together, alone.detach())
    assert module.training


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_saved_model_gives_the_same_embeddings_when_loaded(kind, tmp_path):
    model = SentenceTransformer(modules=[make_module(kind)], device="cpu")
    expected = model.encode(SENTENCES)
    torch.testing.assert_close(encoder_of(model)(SENTENCES), torch.from_numpy(expected))
    model.save(str(tmp_path), create_model_card=False)
    assert is_quick_thought(tmp_path)
    # sentence-transformers imports classes of other packages only with trust_remote_code.
    theirs = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    ours = load_model(str(tmp_path), download=False, device=torch.device("cpu"))
    for loaded in (theirs, ours):
        np.testing.assert_array_equal(loaded.encode(SENTENCES), expected)
        assert loaded.get_embedding_dimension() == expected.shape[1]


def as_model(**options):
    return SentenceTransformer(modules=[make_module(**options)], device="cpu")


def test_prompt_is_text_before_each_sentence():
    model = as_model()
    expected = model.encode(["a stone the river", "a stone held"])
    for options in ({"prompt": "a stone "}, {"prompt_name": "query"}):
        model.prompts = {"query": "a stone "}
        np.testing.assert_array_equal(model.encode(["the river", "held"], **options), expected)
    assert not np.allclose(model.encode(["the river", "held"]), expected)
    np.testing.assert_array_equal(model.encode_query(["the river", "held"]), expected)


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_max_seq_length_truncates_and_is_saved(kind, tmp_path):
    model = as_model(kind=kind, longest=30)
    assert model.max_seq_length == 30
    expected = model.encode(["the cold", "a stone", "river"])
    model.max_seq_length = 2
    long = ["the cold river held", "a stone .", "river"]
    np.testing.assert_array_equal(model.encode(long), expected)
    np.testing.assert_array_equal(model.encode(["river held"], prompt="the cold "), expected[:1])
    model.save_pretrained(str(tmp_path), create_model_card=False)
    loaded = load_model(str(tmp_path), download=False, device=torch.device("cpu"))
    assert loaded.max_seq_length == 2
    np.testing.assert_array_equal(loaded.encode(long), expected)


@pytest.mark.parametrize("value", [0, -1, None, 2.5, True])
def test_impossible_max_seq_length_is_an_error(value):
    with pytest.raises(ValueError, match=f"`max_seq_length` is {value}; it must be a whole number of at"):
        as_model().max_seq_length = value


def test_model_saved_without_safetensors_is_loaded(tmp_path):
    model = as_model()
    model.save_pretrained(str(tmp_path), safe_serialization=False, create_model_card=False)
    assert (tmp_path / "0_QuickThought" / "pytorch_model.bin").exists()
    assert not list(tmp_path.rglob("*.safetensors"))
    for loaded in (
        SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True),
        load_model(str(tmp_path), download=False, device=torch.device("cpu")),
    ):
        np.testing.assert_array_equal(loaded.encode(SENTENCES), model.encode(SENTENCES))
        assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_missing_file_of_a_saved_model_is_named(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        as_model().save_pretrained(str(tmp_path), create_model_card=False)
        (tmp_path / "0_QuickThought" / name).unlink()
        with pytest.raises(InputError, match=f"cannot be loaded as a SentenceTransformer: .*{name}"):
            load_model(str(tmp_path), download=False, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["gru", "bow"])
@pytest.mark.parametrize("mini_batch", [2, 3, 8])
def test_cached_loss_of_the_library_equals_its_plain_loss(kind, mini_batch):
    """Value and gradient, with sentences of different lengths in every mini-batch."""
    model = as_model(kind=kind)
    columns = [SENTENCES, SENTENCES[::-1]]
    values, grads = [], []
    for loss in (
        MultipleNegativesRankingLoss(model),
        CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch),
    ):
        model.zero_grad()
        value = loss([model.preprocess(column) for column in columns], None)
        value.backward()
        values.append(value.item())
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert max(grad.abs().max() for grad in grads[0]) > 0.01
    for cached, plain in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-6)


def test_fine_tuning_with_the_cached_loss_learns_the_pairs():
    model = as_model(kind="bow")
    anchors, positives = ["the", "cold", "river", "stone"], ["held", "a", ".", "unheard-of"]
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss([model.preprocess(anchors), model.preprocess(positives)], None).backward()
        optimizer.step()
    similarities = model.similarity(model.encode(anchors), model.encode(positives))
    assert similarities.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_folder_with_other_modules_is_not_a_quick_thought(tmp_path):
    assert not is_quick_thought(tmp_path)
    for text in (
        "[]",
        "{}",
        "no json",
        '[{"type": "os.system", "path": ""}]',
        '[{"path": "0_QuickThought"}]',
    ):
        (tmp_path / "modules.json").write_text(text)
        assert not is_quick_thought(tmp_path)
