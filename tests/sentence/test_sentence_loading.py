"""Trained encoders from Python, and given away: they load without the project."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers.pre_tokenizers import Whitespace

import sentence
from core.io.errors import InputError
from sentence.encoder import TwoEncoders
from sentence.loading import load_encoder
from sentence.modeling_quick_thought import SOURCES, QuickThought
from sentence.quick_thought import as_sentence_transformer, load_model, save_encoders
from sentence.train import main as train_main
from tests.sentence.conftest import write_tiny_bert
from tests.sentence.test_sentence_encoder import make_tokenizer

CPU = torch.device("cpu")
TEXTS = ["The cold river held a stone.", "A stone.", "unheard-of words", "river " * 50, "the"]


def make_encoders(kind, longest=5):
    torch.manual_seed(0)
    return TwoEncoders(make_tokenizer(), kind, 6, 5, True, longest)


def vectors(encoders, texts):
    """f and g of each text on its own, in float64."""
    with torch.no_grad():
        pairs = [encoders.embed_pair(*encoders.tokens_of([text])) for text in texts]
    return torch.stack([torch.cat(pair, dim=1)[0] for pair in pairs]).numpy()


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_saved_encoders_load_as_they_were(kind, tmp_path):
    encoders = make_encoders(kind)
    expected = vectors(encoders, TEXTS)
    save_encoders(encoders, tmp_path)
    for model in (load_model(str(tmp_path), False, CPU), load_encoder(tmp_path, "cpu")):
        np.testing.assert_allclose(model.encode(TEXTS), expected, rtol=1e-6, atol=1e-8)
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert isinstance(load_model(str(tmp_path), False, CPU)[0], TwoEncoders)
    assert not load_encoder(tmp_path, "cpu").training


def test_bag_of_words_is_the_library_s_mean_of_concatenated_word_embeddings(tmp_path):
    """By hand, from the saved file: truncated at ``longest`` words, unknown words included."""
    encoders = make_encoders("bow")
    save_encoders(encoders, tmp_path)
    [module] = json.loads((tmp_path / "modules.json").read_text())
    assert module["type"].startswith("sentence_transformers.")
    model = SentenceTransformer(str(tmp_path), device="cpu")  # without trust_remote_code
    assert type(model[0]) is StaticEmbedding
    table = torch.cat([encoders.f.embedding.weight, encoders.g.embedding.weight], dim=1).detach().numpy()
    vocabulary = encoders.tokenizer.get_vocab()
    for text, vector in zip(TEXTS, model.encode(TEXTS), strict=True):
        words = [word for word, _ in Whitespace().pre_tokenize_str(text.lower())][:5]
        ids = [vocabulary.get(word, vocabulary["[UNK]"]) for word in words]
        np.testing.assert_allclose(vector, table[ids].mean(axis=0), rtol=1e-5, atol=1e-7)
    assert not list(tmp_path.glob("*.py"))


def test_text_without_words_is_the_zero_vector_of_a_bag(tmp_path):
    save_encoders(make_encoders("bow"), tmp_path)
    assert (load_encoder(tmp_path, "cpu").encode(["", " \n"]) == 0).all()


def test_training_is_not_changed_by_saving(tmp_path):
    encoders = make_encoders("bow")
    before = (
        encoders.tokenizer.to_str(),
        {name: value.clone() for name, value in encoders.state_dict().items()},
    )
    save_encoders(encoders, tmp_path)
    assert encoders.tokenizer.to_str() == before[0]
    for name, value in encoders.state_dict().items():
        assert torch.equal(value, before[1][name])


def test_saved_again_it_is_still_without_the_project(tmp_path):
    for kind in ("gru", "bow"):
        save_encoders(make_encoders(kind), tmp_path / kind)
        load_encoder(tmp_path / kind, "cpu").save_pretrained(str(tmp_path / f"{kind}-again"))
        again = SentenceTransformer(str(tmp_path / f"{kind}-again"), device="cpu", trust_remote_code=True)
        np.testing.assert_array_equal(again.encode(TEXTS), load_encoder(tmp_path / kind, "cpu").encode(TEXTS))
        again.save_pretrained(str(tmp_path / f"{kind}-theirs"))
        theirs = SentenceTransformer(str(tmp_path / f"{kind}-theirs"), device="cpu", trust_remote_code=True)
        np.testing.assert_array_equal(theirs.encode(TEXTS), again.encode(TEXTS))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_is_copied_and_pickled(copied):
    model = as_sentence_transformer(make_encoders("gru"))
    other = copied(model)
    assert type(other[0]) is QuickThought
    assert other[0].f.embedding.weight is not model[0].f.embedding.weight
    np.testing.assert_array_equal(other.encode(TEXTS), model.encode(TEXTS))


OLDER = "sentence.encoder.QuickThought"


@pytest.mark.parametrize("kind", ["gru", "bow"])
def test_models_of_older_versions_load(kind, tmp_path):
    """They have no source, and name the class in the checkout."""
    encoders = make_encoders(kind)
    model = SentenceTransformer(modules=[QuickThought.from_encoders(encoders)], device="cpu")
    model.save(str(tmp_path), create_model_card=False)
    text = (tmp_path / "modules.json").read_text()
    assert '"modeling_quick_thought.QuickThought"' in text
    (tmp_path / "modules.json").write_text(text.replace("modeling_quick_thought.QuickThought", OLDER))
    for name in SOURCES:
        (tmp_path / name).unlink()
    theirs = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    for loaded in (load_model(str(tmp_path), False, CPU), load_encoder(tmp_path, "cpu"), theirs):
        np.testing.assert_allclose(loaded.encode(TEXTS), vectors(encoders, TEXTS), rtol=1e-6, atol=1e-8)


WITHOUT_PROJECT = """
import sys
from importlib.util import find_spec
sys.modules["hard_negatives"] = None
for name in ("core", "sentence", "shared_eval", "graph", "image"):
    assert find_spec(name) is None, name
import json
from sentence_transformers import SentenceTransformer
folders, texts = json.load(sys.stdin)
vectors = {}
for folder, options in folders.items():
    vectors[folder] = SentenceTransformer(folder, device="cpu", **options).encode(texts).tolist()
print(json.dumps(vectors))
"""


@pytest.mark.slow
def test_given_away_it_encodes_without_the_project(tmp_path):
    """In a process that sees neither the checkout nor the installed losses: the same vectors."""
    expected, folders = {}, {}
    for kind, options in (("gru", {"trust_remote_code": True}), ("bow", {})):
        folder = tmp_path / kind
        save_encoders(make_encoders(kind), folder)
        expected[str(folder)] = vectors(make_encoders(kind), TEXTS)
        folders[str(folder)] = options
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_PROJECT],
        input=json.dumps([folders, TEXTS]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    encoded = json.loads(ended.stdout)
    assert encoded.keys() == expected.keys()
    for folder, values in encoded.items():
        np.testing.assert_allclose(values, expected[folder], rtol=1e-6, atol=1e-8)


def test_source_that_models_carry_imports_nothing_of_the_project():
    for name in SOURCES:
        lines = (Path(sentence.__file__).parent / name).read_text().splitlines()
        imports = [line.split()[1] for line in lines if line.lstrip().startswith(("from ", "import "))]
        assert imports
        assert not {name.split(".")[0] for name in imports} & {"core", "sentence", "shared_eval"}


FAST = ["--epochs", "1", "--batch-size", "20", "--embedding-dim", "8", "--hidden", "6", "--device", "cpu"]
FAST += ["--precision", "float32", "--tasks", "none"]


def test_encoder_of_a_run(books, tmp_path):
    run = tmp_path / "run"
    train_main([*FAST, "--encoder", "gru", "--dataset", f"folder:{books}", "--output-dir", str(run)])
    model = sentence.load_encoder(run)
    assert model.encode(TEXTS).shape == (5, 24)
    theirs = SentenceTransformer(str(run / "encoder"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(model.encode(TEXTS), theirs.encode(TEXTS))


def test_encoder_of_a_transformer_s_folder(tmp_path):
    write_tiny_bert(tmp_path / "tiny-bert")
    assert load_encoder(tmp_path / "tiny-bert").encode(["The river held."]).shape == (1, 16)


def test_folders_without_a_finished_sentence_run_are_refused_in_one_line(tmp_path):
    for name, text in (("graph", '{"modality": "graph"}'), ("unfinished", '{"modality": "sentence"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "thesis").mkdir()
    for name, message in (
        ("nowhere", "nowhere is not a folder; name that of a run, or of a SentenceTransformer"),
        ("graph", "holds a run of modality graph; a run of sentence is needed"),
        ("unfinished", "encoder is missing: the run is not finished; resume it with `resume`"),
        ("thesis", "thesis cannot be loaded as a SentenceTransformer"),
    ):
        with pytest.raises(InputError, match=message):
            load_encoder(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lstm"}, 'quick_thought.json: kind is "lstm"'),
        ({"kind": "gru"}, "cannot be loaded"),
        ({"embedding_dim": 10**6}, "cannot be loaded"),
        ({"longest": 0}, "quick_thought.json: longest is 0; it must be at least 1"),
    ],
)
def test_damaged_bag_of_words_is_refused(tmp_path, changes, message):
    save_encoders(make_encoders("bow"), tmp_path)
    path = tmp_path / "quick_thought.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path), False, CPU)


def test_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sentence' has no attribute 'load_encodr'"):
        _ = sentence.load_encodr
