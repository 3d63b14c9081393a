"""Training steps of every modality, as the loop takes them, outside of a run."""

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from core.training import divergence
from core.training.cli import parse_config
from core.training.loop import optimizer_step
from core.training.runtime import autocast
from core.training.task import Task
from graph import config as graph_config
from graph.task import GraphTask
from image import config as image_config
from image.task import ImageTask
from sentence import config as sentence_config
from sentence.task import SentenceTask
from tests.faults.tiny import TinyCommand

TASKS = {
    "image": (ImageTask, image_config.ImageConfig, image_config.defaults_for),
    "graph": (GraphTask, graph_config.GraphConfig, graph_config.defaults_for),
    "sentence": (SentenceTask, sentence_config.SentenceConfig, sentence_config.defaults_for),
}
STEPS = 2  # the optimizer makes its states in the first


def tiny_task(command: TinyCommand, folder: Path, device: torch.device, *flags: str) -> Task:
    """The task of a tiny command, in bfloat16, on a device."""
    task_type, config_type, defaults = TASKS[command.modality]
    argv = command.flags(folder, "--precision", "bfloat16", *flags)
    config = parse_config(config_type, defaults, argv, command.modality)
    return task_type(config.expand(), device)


def train(task: Task, epoch: int = 1) -> list[Tensor]:
    """Take the first steps of an epoch; return the statistics of each."""
    statistics = []
    task.start_epoch(epoch)
    task.model.train()
    for batch in islice(task.batches(epoch), STEPS):
        with autocast(task.device, "bfloat16"):
            losses, embeddings = task.training_step(batch)
        norms = optimizer_step(task, losses, lr=1e-3)
        statistics.append(divergence.step_statistics(losses, norms, embeddings))
    return statistics
