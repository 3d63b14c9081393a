"""Checkpoints that are damaged, of newer code, of anybody's making, or of other data."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from core.io.errors import DamagedFileError, InputError
from core.training import checkpoints
from core.training.checkpoints import Checkpoints
from tests.faults.tiny import Tiny, check_is_as, damage, flip, newest, truncate, unfinished
from tests.runs import failure_of


def flip_in_header(content: bytes) -> bytes:
    return content.replace(b'"generation": ', b'"generation": 1', 1)


def newer(content: bytes) -> bytes:
    return content.replace(b'{"schema": 2', b'{"schema": 3', 1)


DAMAGES = {
    truncate: "its checksum does not hold",
    flip: "its checksum does not hold",
    flip_in_header: "its checksum does not hold",
    lambda content: content.replace(
        b'{"schema": 2', b'{"schema": 1', 1
    ): "its schema is 1, this code reads 2",
    lambda content: b"": "it does not begin as a checkpoint does",
    lambda content: b"[]\n" + content: "it does not begin as a checkpoint does",
}


@pytest.fixture
def two_generations(tmp_path):
    saved = Checkpoints(tmp_path / "checkpoint")
    saved.folder.mkdir()
    for number in range(5):
        saved.save({"number": torch.tensor(number)})
    return saved.folder


@pytest.mark.parametrize(("how", "said"), DAMAGES.items())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(two_generations, capsys, how, said):
    path = newest(two_generations)
    damage(path, how)
    resumed = Checkpoints(two_generations)
    assert resumed.load()["number"] == 3
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path} cannot be used: {said}")
    assert warning.count("\n") == 1
    resumed.save({"number": torch.tensor(4)})  # takes the damaged one's place, not the good one's
    assert {int(checkpoints.read_checkpoint(of)[2]["number"]) for of in two_generations.glob("*.pt")} == {
        3,
        4,
    }


def test_a_checkpoint_of_newer_code_is_not_overwritten(two_generations):
    path = newest(two_generations)
    damage(path, newer)
    with pytest.raises(
        InputError, match=f"{path} cannot be read: its schema is 3, this code reads 2; choose"
    ):
        Checkpoints(two_generations).load()


def test_a_pipe_is_no_checkpoint(two_generations, capsys):
    path = newest(two_generations)
    path.unlink()
    os.mkfifo(path)
    assert Checkpoints(two_generations).load()["number"] == 3
    assert f"{path} cannot be used" in capsys.readouterr().err


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(state) -> bytes:
    body = io.BytesIO()
    torch.save(state, body)
    return body.getvalue()


def write_checkpoint(path, body, generation=9):
    """A checkpoint whose checksum holds, whatever is in it."""
    facts = {"schema": checkpoints.SCHEMA, "generation": generation}
    header = facts | {"sha256": checkpoints._digest(facts, body)}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)


@pytest.mark.parametrize("kind", ["bomb", "garbage", "nothing", "list"])
def test_a_body_that_is_no_state_is_a_clear_error(two_generations, tmp_path, kind):
    """The checksum holds; no code in it is run, and it is not taken for damaged and overwritten."""
    bodies = {"garbage": b"garbage", "nothing": b"", "list": saved([1, 2])}
    path = two_generations / "state-a.pt"
    write_checkpoint(path, bodies.get(kind) or saved({"model": Bomb(tmp_path / "bomb")}))
    with pytest.raises(InputError, match=f"{path} cannot be read, though its checksum holds"):
        Checkpoints(two_generations).load()
    assert not (tmp_path / "bomb").exists()


def test_a_generation_that_is_no_number(two_generations, capsys):
    write_checkpoint(newest(two_generations), saved({"number": torch.tensor(9)}), generation="x")
    assert Checkpoints(two_generations).load()["number"] == 3
    assert "its generation is 'x', no whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("optimizer"), "it lacks 'optimizer'"),
        (lambda state: state["place"].update(measures=3), "expected Tensor"),
        (lambda state: state["model"].popitem(), "Missing key"),
        (lambda state: state.update(data="x"), "no attribute"),
    ],
)
def test_a_state_of_something_else_is_a_clear_error(tiny_graph, whole_runs, tmp_path, capsys, change, said):
    folder = unfinished(whole_runs("graph"), tmp_path)
    path = newest(folder / "checkpoint")
    state = checkpoints.read_checkpoint(path)[2]
    change(state)
    write_checkpoint(path, saved(state))
    error = failure_of(tiny_graph.main, capsys, [folder, "--resume"])[-1]
    assert f"{folder / 'checkpoint'} does not hold a state of this run" in error
    assert said in error


def relabel(data):
    path = data / "TUDataset" / "TINY" / "raw" / "TINY_node_labels.txt"
    path.write_text(path.read_text().replace("2", "7"))


def swap_labels(data):
    path = data / "TUDataset" / "TINY" / "raw" / "TINY_node_labels.txt"
    path.write_text(path.read_text().translate(str.maketrans("01", "10")))


def remove_class(data):
    for part in ("train", "test"):
        shutil.rmtree(min((data / "images" / part).iterdir()))


def add_book(data):
    (data / "books" / "new.txt").write_text("Words of which none was there before. They go on.\n" * 5)


@pytest.mark.parametrize(
    ("modality", "change", "said"),
    [
        ("graph", relabel, "features 3 there, 8 now"),
        ("graph", swap_labels, "nodes "),
        ("image", remove_class, "classes "),
        ("sentence", add_book, "books 3 there, 4 now"),
    ],
)
def test_other_data_than_a_run_began_with(tiny_data, whole_runs, tmp_path, capsys, modality, change, said):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    change(data)
    folder = unfinished(whole_runs(modality), tmp_path)
    settings = (folder / "config.json").read_text()  # a folder's name is part of what is run
    (folder / "config.json").write_text(settings.replace(str(tiny_data), str(data)))
    before = newest(folder / "checkpoint").read_bytes()
    error = failure_of(Tiny(modality, data).main, capsys, [folder, "--resume"])[-1]
    assert f"the data are not those that the run in {folder} began with (" in error
    assert said in error
    assert newest(folder / "checkpoint").read_bytes() == before


def test_a_checkpoint_of_code_that_kept_no_fingerprint(tiny_graph, whole_runs, tmp_path):
    folder = unfinished(whole_runs("graph"), tmp_path)
    for path in (folder / "checkpoint").glob("*.pt"):
        _, generation, state = checkpoints.read_checkpoint(path)
        del state["data"]
        write_checkpoint(path, saved(state), generation)
    tiny_graph.here(folder, "--resume")
    check_is_as(whole_runs("graph"), tiny_graph, folder)


def test_no_checkpoint_that_is_whole(two_generations):
    for path in two_generations.glob("*.pt"):
        damage(path, flip)
    with pytest.raises(
        InputError, match=r"state-a.pt cannot be used.*state-b.pt cannot.*delete .*checkpoint"
    ):
        Checkpoints(two_generations).load()


def test_any_flipped_bit_of_a_checkpoint_is_noticed(two_generations):
    path = newest(two_generations)
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            checkpoints.read_checkpoint(path)


def test_a_run_goes_on_from_the_last_good_checkpoint(tiny, whole_runs, tmp_path):
    folder = unfinished(whole_runs(tiny.modality), tmp_path)
    damage(newest(folder / "checkpoint"), flip)
    trainer = tiny.run(folder, "--resume")
    assert trainer.wait() == 0
    assert "cannot be used: its checksum does not hold" in trainer.said()
    check_is_as(whole_runs(tiny.modality), tiny, folder)
