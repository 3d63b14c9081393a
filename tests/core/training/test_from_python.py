"""What ``train_on`` of all modalities have in common."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.io.errors import InputError
from core.training.from_python import python_config
from graph.config import GraphConfig
from graph.config import defaults_for as graph_defaults
from image.config import ImageConfig
from image.config import defaults_for as image_defaults


def test_settings_are_those_of_the_command_in_pythons_types(tmp_path):
    settings = {"dataset": "digits", "device": torch.device("cpu"), "init": tmp_path / "other", "seed": 3}
    settings |= {"epochs": np.int64(2), "temperature": np.float64(0.2)}
    with python_config(ImageConfig, image_defaults, tmp_path / "run-{seed}", settings) as config:
        assert (config.view_size, config.device, config.init) == (16, "cpu", tmp_path / "other")
        assert (config.epochs, config.temperature) == (2, 0.2)
        assert config.folder() == tmp_path / "run-3"


def test_folder_is_temporary_unless_one_is_given():
    with python_config(ImageConfig, image_defaults, None, {}) as config:
        folder = config.folder()
        folder.mkdir()
    assert not folder.exists()
    assert not Path(folder).parent.exists()


@pytest.mark.parametrize(
    ("config_type", "defaults_for", "instead"),
    [
        (ImageConfig, image_defaults, "for several, start python -m image.train by torchrun"),
        (GraphConfig, graph_defaults, "start it without torchrun"),
    ],
)
def test_several_processes_are_refused(monkeypatch, config_type, defaults_for, instead):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match=f"train_on runs in one process; {instead}"),
        python_config(config_type, defaults_for, None, {}),
    ):
        pass
