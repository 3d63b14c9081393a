"""Code hidden in files from untrusted sources never runs, wherever files are read."""

import gzip
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torchvision.datasets import CIFAR10, CIFAR100

import graph.evaluate
import graph.train
import image.config
import image.evaluate
import sentence.evaluate
import sentence.quick_thought
import sentence.train
import shared_eval.records
import shared_eval.report
from core.io.errors import InputError
from graph.data import load_dataset
from image.data import load_dataset as load_images
from sentence.encoder import QuickThought
from sentence.quick_thought import load_model
from tests.faults.record_parsers import SMALL
from tests.graph.conftest import write_tu_dataset
from tests.runs import failure_of
from tests.sentence.test_sentence_evaluate import real_model
from tests.shared_eval.conftest import write_record

CPU = torch.device("cpu")


class Bomb:
    """Unpickling it creates the file ``mark``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """A path that must not exist after the test; first the bomb is shown to work."""
    path = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


def plant_weights(path: Path, mark: Path) -> None:
    """Write weights in PyTorch's format, with the bomb among them."""
    torch.save({"weight": torch.zeros(2), "bomb": Bomb(mark)}, path)


def test_pickles_in_a_processed_tu_dataset_are_ignored(tmp_path, mark):
    """PyG would load the pickles of a ``processed`` folder."""
    raw = write_tu_dataset(tmp_path)
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(raw.iterdir())]
    earlier = hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
    for name in ("processed", f"processed-{earlier}"):
        processed = raw.parent / name
        processed.mkdir()
        for file in ("data.pt", "pre_transform.pt", "pre_filter.pt"):
            plant_weights(processed / file, mark)
    assert len(load_dataset("TINY", tmp_path).graphs) == 24


@pytest.mark.parametrize(("name", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_pickles_without_the_published_checksum_are_refused(tmp_path, mark, name, kind):
    """All files are checked before the first is opened."""
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    for file, _ in (*kind.train_list, *kind.test_list, (kind.meta["filename"], "")):
        (folder / file).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="the publisher's checksums do not match"):
        load_images(name, tmp_path)


def test_cifar_class_names_without_the_published_checksum_are_refused(tmp_path, mark, monkeypatch):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    content = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]})
    checksum = hashlib.md5(content).hexdigest()
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, [[name, checksum] for name in names])
        for name in names:
            (folder / name).write_bytes(content)
    (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(InputError, match="the publisher's checksums do not match"):
        load_images("cifar10", tmp_path)


def graph_run(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMALL | changes))
    return folder


def test_pickled_encoder_is_refused(tmp_path, mark, capsys):
    run = graph_run(tmp_path / "run")
    plant_weights(run / "encoder.safetensors", mark)
    [line] = failure_of(graph.evaluate.main, capsys, [str(run), "--device", "cpu"])
    assert "encoder.safetensors does not hold this encoder" in line


def test_pickled_checkpoint_is_refused(tmp_path, mark, capsys):
    flags = ["--epochs", "1", "--hidden", "8", "--device", "cpu", "--output-dir", str(tmp_path / "run")]
    graph.train.main([*flags])
    (tmp_path / "run" / "result.json").unlink()
    capsys.readouterr()
    for path in (tmp_path / "run" / "checkpoint").iterdir():
        plant_weights(path, mark)
    [line] = failure_of(graph.train.main, capsys, [*flags, "--resume"])
    assert "state-a.pt cannot be used: it does" in line
    assert f"delete {tmp_path / 'run' / 'checkpoint'} to start again from the beginning" in line


def test_pickled_sample_and_record_are_left_out(tmp_path, mark, capsys):
    path = write_record(tmp_path / "runs" / "a")
    plant_weights(path.parent / "sample.safetensors", mark)
    shared_eval.report.main([str(tmp_path / "runs"), "--output", str(tmp_path / "report.html")])
    shared_eval.records.main([str(tmp_path / "runs")])
    path.write_bytes(pickle.dumps(Bomb(mark)))
    shared_eval.records.main([str(tmp_path / "runs")])
    assert "is not a valid record" in capsys.readouterr().err


@pytest.fixture
def transformer(tmp_path) -> Path:
    """A copy of a small pretrained SentenceTransformer."""
    return Path(shutil.copytree(real_model(), tmp_path / "model"))


def change_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


def test_transformer_with_pickled_weights_is_refused(transformer, mark):
    """Even if its settings ask for unpickling."""
    weights = next(transformer.rglob("model.safetensors"))
    weights.unlink()
    plant_weights(weights.with_name("pytorch_model.bin"), mark)
    unsafe = {"use_safetensors": False, "weights_only": False, "trust_remote_code": True}
    for settings in ({}, {"model_args": unsafe}, {"model_kwargs": unsafe}):
        change_json(weights.with_name("sentence_bert_config.json"), **settings)
        with pytest.raises(InputError, match="cannot be loaded as a SentenceTransformer"):
            load_model(str(transformer), False, CPU)


def test_dense_module_with_pickled_weights_is_refused(transformer, mark):
    modules = json.loads((transformer / "modules.json").read_text())
    kind = "sentence_transformers.models.Dense"
    modules.append({"idx": 9, "name": "9", "path": "9_Dense", "type": kind})
    (transformer / "modules.json").write_text(json.dumps(modules))
    (transformer / "9_Dense").mkdir()
    activation = "torch.nn.modules.linear.Identity"
    change_json(
        transformer / "9_Dense" / "config.json",
        in_features=384,
        out_features=2,
        bias=False,
        activation_function=activation,
    )
    plant_weights(transformer / "9_Dense" / "pytorch_model.bin", mark)
    with pytest.raises(InputError, match="cannot be loaded as a SentenceTransformer"):
        load_model(str(transformer), False, CPU)


CODE = """
from pathlib import Path
Path({mark!r}).touch()
class Unknown: pass
"""


def test_code_in_a_model_folder_is_not_imported(transformer, mark, monkeypatch):
    """Neither modules that modules.json names nor those of the transformer's ``auto_map``."""
    (transformer / "unknown_module.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(transformer)  # even where Python would find it
    modules = (transformer / "modules.json").read_text()
    change = json.loads(modules)
    change[0]["type"] = "unknown_module.Unknown"
    (transformer / "modules.json").write_text(json.dumps(change))
    with pytest.raises(InputError, match="cannot be loaded as a SentenceTransformer"):
        load_model(str(transformer), False, CPU)
    (transformer / "modules.json").write_text(modules)
    config = next(path for path in transformer.rglob("config.json") if "model_type" in path.read_text())
    (config.parent / "unknown_module.py").write_text(CODE.format(mark=str(mark)))
    names = ("AutoConfig", "AutoModel", "AutoTokenizer")
    change_json(
        config,
        model_type="unknown",
        auto_map=dict.fromkeys(names, "unknown_module.Unknown"),
    )
    with pytest.raises(InputError, match="cannot be loaded as a SentenceTransformer"):
        load_model(str(transformer), False, CPU)


def quick_thought(folder: Path) -> Path:
    module = QuickThought(Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, "[UNK]")), "bow", 4, 4, False, 10)
    folder.mkdir()
    (folder / sentence.quick_thought.FOLDER).mkdir()
    module.save(str(folder / sentence.quick_thought.FOLDER))
    kind = f"{QuickThought.__module__}.{QuickThought.__qualname__}"
    modules = [{"idx": 0, "name": "0", "path": sentence.quick_thought.FOLDER, "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_damaged_quick_thought_folder_is_refused(tmp_path, mark):
    """Pickled weights, and settings that ask for far more memory than the weights need."""
    folder = quick_thought(tmp_path / "encoder")
    inner = folder / sentence.quick_thought.FOLDER
    assert load_model(str(folder), False, CPU).encode(["a b"]).shape == (1, 8)
    weights = (inner / "model.safetensors").read_bytes()
    plant_weights(inner / "model.safetensors", mark)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(folder), False, CPU)
    (inner / "model.safetensors").rename(inner / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(folder), False, CPU)
    (inner / "model.safetensors").write_bytes(weights)
    change_json(inner / "config.json", embedding_dim=10**15)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(folder), False, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 10**6}, "does not hold this encoder"),
        ({"hidden": 10**12}, "config.json: hidden is 1000000000000; it must be at most 2147483647"),
        ({"layers": "two"}, 'config.json: layers is "two"; it must be int'),
        ({"dataset": ["motifs"]}, 'config.json: dataset is ["motifs"]; it must be str'),
        ({"dataset": None}, "config.json: dataset is null"),
        ({"modality": "image"}, "holds a run of modality image"),
    ],
)
def test_invalid_settings_of_a_graph_run_are_refused(tmp_path, capsys, change, message):
    run = graph_run(tmp_path / "run", **change)
    save_file({"weight": torch.zeros(1)}, run / "encoder.safetensors")
    assert message in failure_of(graph.evaluate.main, capsys, [str(run), "--device", "cpu"])[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "does not hold this encoder"),
        ({"width": 10**5}, "does not hold this encoder"),
        ({"arch": "resnet99"}, "config.json: arch is 'resnet99', which is unknown"),
        ({"crop_scale": 7.0}, "config.json: crop_scale is 7.0; it must be above 0 and at most 1"),
        ({"view_size": 10**5}, "config.json: view_size is 100000; it must be at most 1024"),
    ],
)
def test_invalid_settings_of_an_image_run_are_refused(tmp_path, capsys, change, message):
    small = {"dataset": "digits", "arch": "resnet10", "width": 8, "view_size": 16, "precision": "float32"}
    settings = {"modality": "image"} | image.config.defaults_for().as_dict() | small
    (tmp_path / "config.json").write_text(json.dumps(settings | change))
    save_file({"weight": torch.zeros(1)}, tmp_path / "encoder.safetensors")
    assert message in failure_of(image.evaluate.main, capsys, [str(tmp_path), "--device", "cpu"])[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"longest": "x"}, 'config.json: longest is "x"; it must be int'),
        ({"longest": 0}, "config.json: longest is 0; it must be at least 1"),
        ({"longest": None}, "config.json: longest is null"),
        ({"longest": -1}, "config.json: longest is -1; it must be at least 1"),
        ({"embedding_dim": 0}, "config.json: embedding_dim is 0; it must be at least 1"),
        ({"hidden": True}, "config.json: hidden is true"),
        ({"bidirectional": "yes"}, 'config.json: bidirectional is "yes"; it must be bool'),
        ({"kind": "lstm"}, 'config.json: kind is "lstm"'),
    ],
)
def test_invalid_settings_of_a_quick_thought_are_refused(tmp_path, capsys, change, message):
    folder = quick_thought(tmp_path / "encoder")
    change_json(folder / sentence.quick_thought.FOLDER / "config.json", **change)
    flags = [str(folder), "--tasks", "neighbours", "--device", "cpu"]
    [line] = failure_of(sentence.evaluate.main, capsys, flags)
    assert line.startswith(f"error: {folder} cannot be loaded as a SentenceTransformer: {message}")


def test_settings_nested_too_deeply_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert "is not a run folder" in failure_of(graph.evaluate.main, capsys, [str(tmp_path)])[-1]
    assert "cannot be loaded" in failure_of(sentence.evaluate.main, capsys, [str(tmp_path)])[-1]


def test_a_gzipped_book_that_unpacks_to_a_disk_s_size(tmp_path, capsys):
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(b"Some words of a book. " * (1 << 20)))
    flags = ["--dataset", f"folder:{tmp_path}", "--tasks", "topic", "--output-dir", str(tmp_path / "run")]
    said = failure_of(sentence.train.main, capsys, flags)[-1]
    assert "unpacks to more than 16,777,216 bytes, which no book does" in said
