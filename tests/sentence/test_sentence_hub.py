"""Models and corpora at the Hugging Face hub: found in its cache, downloaded, or one clear line."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from core.io.errors import InputError
from sentence.evaluate import main as evaluate_main
from sentence.hub import find_at_hub
from sentence.quick_thought import load_model
from tests.runs import failure_of
from tests.sentence.conftest import write_tiny_bert


class Hub:
    """Stands for the hub with one model: what is asked of it, and its cache."""

    def __init__(self, repository: str, model: Path, cache: Path) -> None:
        self.repository, self.model, self.cache = repository, model, cache
        self.is_reachable = True
        self.downloads = 0

    def model_info(self, name, files_metadata):
        assert files_metadata
        if not self.is_reachable:
            raise ConnectionError("no route\nto the host")
        if name != self.repository:
            raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        sizes = {"config.json": 500, "model.safetensors": 1_500_000, "onnx/config.json": 9, "model.bin": 9}
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
        )

    def snapshot_download(self, name, local_files_only=False, **_):
        folder = self.cache / name
        if local_files_only and not folder.exists():
            raise LocalEntryNotFoundError("not there")
        if not local_files_only:
            shutil.copytree(self.model, folder)
            self.downloads += 1
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub("owner/tiny", write_tiny_bert(tmp_path / "bert"), tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.cache))
    return hub


def test_model_is_downloaded_once_and_its_files_are_counted(hub, capsys):
    for _ in range(2):
        model = load_model("owner/tiny", download=True, device=torch.device("cpu"))
        assert model.encode(["The river held."]).shape == (1, 16)
    said = capsys.readouterr().err
    assert said.count("downloading ") == hub.downloads == 1
    assert f"downloading https://huggingface.co/owner/tiny to {hub.cache} (1.5 MB)" in said
    hub.is_reachable = False
    load_model("owner/tiny", download=False, device=torch.device("cpu"))
    assert not list(hub.cache.glob("*.lock"))


def test_name_without_an_owner_is_one_of_the_library_s(hub):
    hub.repository = "sentence-transformers/tiny"
    assert find_at_hub("tiny", download=True) == hub.cache / "sentence-transformers" / "tiny"
    assert find_at_hub("tiny", download=False) == hub.cache / "sentence-transformers" / "tiny"
    hub.repository = "old-name"
    assert find_at_hub("old-name", download=True) == hub.cache / "old-name"


def test_missing_model_is_one_clear_line(hub, capsys):
    for name, download, message in (
        ("owner/other", True, "owner/other is neither a folder nor a model at the Hugging Face hub"),
        ("owner/tiny", False, "owner/tiny is not a folder; .* set `download` to look for it at the"),
        ("./tiny", True, r"\./tiny is not a folder; name that of a run, or of a SentenceTransformer$"),
        ("a/b/c", True, "a/b/c is not a folder"),
    ):
        with pytest.raises(InputError, match=message):
            find_at_hub(name, download)
    hub.is_reachable = False
    [line] = failure_of(evaluate_main, capsys, ["owner/tiny", "--tasks", "topic", "--device", "cpu"])
    assert line == (
        "error: could not download https://huggingface.co/owner/tiny: no route to the host; connect to the "
        "network, or name a folder"
    )
    assert hub.downloads == 0


@pytest.mark.parametrize("name", ["runs--x", "foo..bar", "seed-", "my.git"])
def test_name_that_no_model_can_have_is_one_line(name):
    with pytest.raises(InputError, match="is not a folder; name that of a run"):
        find_at_hub(name, download=False)
