"""Encoders: packed equals padded, both outputs concatenated, and folders that SentenceTransformer loads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

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
    together = encoder(ids, lengths)
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
    torch.testing.assert_close(encoder(ids, lengths), expected)


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_embedding_is_both_outputs_concatenated(kind):
    module = make_module(kind)
    features = module.preprocess(SENTENCES)
    assert features["lengths"].tolist() == [7, 3, 1, 8, 1]  # the empty sentence is one unknown word
    f, g = module.embed_pair(features["ids"], features["lengths"])
    embedding = module(features)["sentence_embedding"]
    torch.testing.assert_close(embedding, torch.cat([f, g], dim=1))
    assert embedding.shape == (5, module.get_embedding_dimension())
    assert not torch.allclose(f, g)


def test_sentences_are_truncated():
    module = make_module(longest=3)
    short, long = module.preprocess(["the cold river"]), module.preprocess(["the cold river held a stone"])
    assert torch.equal(short["ids"], long["ids"])


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
