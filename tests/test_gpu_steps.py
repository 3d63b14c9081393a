"""Training steps of every modality on a GPU that computes nothing: all tensors are there, and nothing waits.

See ``tests/gpu.py`` for what it is.
"""

from concurrent.futures import Future

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from core import InfoGraphLoss
from core.losses import gradient_cache, triton_tiles
from core.training.runtime import autocast, set_deterministic, to_device
from sentence.config import SentenceConfig
from tests.faults.tiny import TinyCommand, write_tiny_data
from tests.gpu import GPU, HostWaitsError, MixedDevicesError, fake_gpu
from tests.sentence.conftest import write_tiny_bert
from tests.steps import STEPS, TASKS, tiny_task, train

# PyTorch's GRU asks for the addresses of its weights.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
# A GRU's operators are called token by token.
GRU = ("--encoder", "gru", "--longest", "4", "--batch-size", "10")


class SameThread:
    """An executor that calls at once: threads have no FakeTensors."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make_task(data, tmp_path, monkeypatch):
    """Gives the task of a modality, on the GPU."""

    monkeypatch.setattr(triton_tiles, "is_usable", lambda embeddings: False)
    # The states of a GPU's generator, which are in the host's memory.
    monkeypatch.setattr(gradient_cache, "get_device_states", lambda *chunk: ([], []))

    def make(modality, *flags):
        return tiny_task(TinyCommand(modality, data), tmp_path, GPU, *flags)

    return make


@pytest.mark.parametrize(
    ("modality", "flags"),
    [
        ("image", ()),
        ("image", ("--optimizer", "sgd", "--anneal-beta", "down")),
        ("image", ("--optimizer", "lars", "--objective", "debiased")),
        ("image", ("--tile-size", "8")),
        ("image", ("--cache-chunk", "6", "--stop-gradient")),
        ("image", ("--positives", "label", "--objective", "simclr")),
        ("graph", ()),
        ("graph", ("--seeds", "0-2", "--betas", "0,1", "--prior-weight", "0.1")),
        ("graph", ("--seeds", "0,1", "--variant", "released")),
        ("graph", ("--stop-gradient",)),
        ("sentence", ()),
        ("sentence", ("--normalize", "--window", "2", "--denominator", "all")),
        ("sentence", ("--cache-chunk", "7", "--objective", "quickthought")),
        ("sentence", GRU),
        ("sentence", (*GRU, "--cache-chunk", "4")),
    ],
)
def test_steps_use_the_gpu_alone_and_never_wait_for_it(modality, flags, make_task):
    with fake_gpu() as gpu:
        task = make_task(modality, *flags)
        with gpu.without_waits():
            statistics = train(task)
    runs = len(statistics[0])
    assert [(each.device, each.shape) for each in statistics] == [(GPU, (runs, 3))] * STEPS
    parameters = list(task.model.parameters())
    assert {parameter.device for parameter in parameters} == {GPU}
    assert any(parameter.grad is not None for parameter in parameters)
    states = [value for state in task.optimizer.state.values() for value in state.values()]
    assert {state.device for state in states} == {GPU}
    assert gpu.operators >= {"mm" if modality == "sentence" else "bmm"}


@pytest.mark.parametrize("chunk", [None, 7])
def test_steps_of_a_transformer(chunk, make_task, tmp_path):
    """transformers reads the mask once a batch, where it can: not of FakeTensors, so that it is not seen."""
    model = write_tiny_bert(tmp_path / "tiny-bert")
    flags = ["--encoder", "transformer", "--model", str(model), "--longest", "12"]
    flags += ["--embedding-dim", str(SentenceConfig.embedding_dim)]  # the tiny command's is of the others
    with fake_gpu() as gpu:
        task = make_task("sentence", *flags, *(["--cache-chunk", str(chunk)] if chunk else []))
        with gpu.without_waits():
            assert train(task)[-1].device == GPU


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--negatives", "label", "--tau-plus", "0"),
        ("--positives", "label", "--negatives", "label", "--tau-plus", "0"),
    ],
)
def test_images_of_the_hosts_memory_are_moved_without_a_wait(flags, make_task, monkeypatch):
    """Only what a batch needs is copied, from pinned memory; the labels are on the GPU."""
    monkeypatch.setattr("image.data.fits", lambda size, device: False)
    monkeypatch.setattr("image.data.ThreadPoolExecutor", SameThread)
    with fake_gpu() as gpu:
        task = make_task("image", *flags)
        train_images = task.dataset.train
        assert (train_images.images.device.type, train_images.labels.device) == ("cpu", GPU)
        with gpu.without_waits():
            assert train(task)[0].device == GPU


def test_deterministic_graph_steps(make_task):
    """On a GPU the sums of ``embedding_bag`` are taken in order, those of the sparse product are not."""
    set_deterministic(True)
    try:
        with fake_gpu() as gpu:
            task = make_task("graph", "--seeds", "0,1")
            with gpu.without_waits():
                train(task)
    finally:
        set_deterministic(False)
    assert "_embedding_bag_forward_only" in gpu.operators


class TestFaultsAreFound:
    """Steps with a fault that a GPU, or the time it takes, would show."""

    def steps(self, make_task, modality, add, *flags):
        """Steps in which ``add`` is called with the losses and embeddings."""
        with fake_gpu() as gpu:
            task = make_task(modality, *flags)
            step = task.training_step

            def training_step(batch):
                losses, embeddings = step(batch)
                return losses + add(losses, embeddings), embeddings

            task.training_step = training_step
            with gpu.without_waits():
                train(task)

    @pytest.mark.parametrize(
        ("add", "error"),
        [
            (lambda losses, x: torch.zeros(1), MixedDevicesError),
            (lambda losses, x: x[0].mean() * torch.ones(len(losses)), MixedDevicesError),
            (lambda losses, x: torch.cat([x[0, :, 0], torch.zeros(2)]).sum(), MixedDevicesError),
            (lambda losses, x: x[0][torch.tensor([0, 1])].sum(), MixedDevicesError),
            (lambda losses, x: losses.cpu().to(GPU), HostWaitsError),
            (lambda losses, x: torch.zeros(1).to(GPU), HostWaitsError),
            (lambda losses, x: torch.zeros(1).to(GPU, non_blocking=True), HostWaitsError),  # is not pinned
            (lambda losses, x: torch.zeros(1).pin_memory().to(GPU), HostWaitsError),
            (lambda losses, x: torch.tensor([0.0], device=GPU), HostWaitsError),
            (lambda losses, x: torch.zeros_like(losses).copy_(torch.zeros(1)), HostWaitsError),
            (lambda losses, x: losses.sum().item(), DataDependentOutputException),
            (lambda losses, x: 0.0 if (losses > 0).all() else 1.0, DataDependentOutputException),
            (lambda losses, x: x[x > 0].sum(), DynamicOutputShapeException),
        ],
    )
    def test_in_a_step(self, add, error, make_task):
        with pytest.raises(error):
            self.steps(make_task, "sentence", add)

    @pytest.mark.parametrize("modality", TASKS)
    def test_in_a_step_of_each_modality(self, modality, make_task):
        with pytest.raises(MixedDevicesError):
            self.steps(make_task, modality, lambda losses, x: torch.zeros(1))

    @pytest.mark.parametrize("modality", TASKS)
    def test_what_is_no_fault(self, modality, make_task):
        def add(losses, x):
            return to_device(torch.zeros(1), GPU) + torch.zeros(1, device=GPU) + torch.zeros_like(losses)

        self.steps(make_task, modality, add)

    @pytest.mark.parametrize(
        ("modality", "flags", "where"),
        [
            ("image", (), "image.batches.to_device"),
            ("sentence", (), "sentence.data.to_device"),
            ("sentence", (), "sentence.encoder.to_device"),
            ("sentence", GRU, "sentence.encoder.to_device"),
        ],
    )
    def test_pageable_copies(self, modality, flags, where, make_task, monkeypatch):
        monkeypatch.setattr(where, lambda x, device: x.to(device, non_blocking=True))
        with fake_gpu() as gpu:
            task = make_task(modality, *flags)
            with gpu.without_waits(), pytest.raises(HostWaitsError, match="is copied from cpu to cuda:0"):
                train(task)

    def test_settings_of_the_objective_as_lists(self, make_task):
        with fake_gpu() as gpu:
            task = make_task("graph", "--seeds", "0,1")
            task.objective = InfoGraphLoss([1.0, 1.0], [0.1, 0.1])
            with gpu.without_waits(), pytest.raises(HostWaitsError):
                train(task)


class TestPrecisionOfTheGRU:
    """Under autocast cuDNN runs a GRU in float16, without loss scaling, whatever type is asked for."""

    def seen(self, make_task, monkeypatch):
        """Whether autocast was on where PyTorch's GRU was called, and the type of its input."""
        calls = []
        gru = torch._VF.gru

        def spy(data, *arguments):
            calls.append((torch.is_autocast_enabled("cuda"), data.dtype))
            return gru(data, *arguments)

        monkeypatch.setattr(torch._VF, "gru", spy)
        with fake_gpu():
            task = make_task("sentence", *GRU)
            with autocast(GPU, "bfloat16"):
                task.training_step(next(iter(task.batches(1))))
                assert torch.is_autocast_enabled("cuda")  # again, after the step
        return calls, task.record_fields

    def test_is_float32_and_recorded(self, make_task, monkeypatch):
        calls, fields = self.seen(make_task, monkeypatch)
        assert calls == [(False, torch.float32)] * 2  # f and g
        assert fields["gru_precision"] == "float32"

    def test_fault_is_found(self, make_task, monkeypatch):
        def forward(encoder, layout):
            packed, back = layout
            _, states = encoder.gru(packed._replace(data=encoder.embedding(packed.data)))
            return states.transpose(0, 1).flatten(1)[back]

        monkeypatch.setattr("sentence.encoder.GRUEncoder.forward", forward)
        calls, _ = self.seen(make_task, monkeypatch)
        assert calls == [(True, torch.float32)] * 2
