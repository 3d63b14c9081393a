"""Checkpoints that are damaged, from newer code, from another program, or from other data."""

import io
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from core.io.errors import DamagedFileError, InputError
from core.training import checkpoints
from core.training.checkpoints import Checkpoints
from tests.faults.tiny import (
    TinyCommand,
    assert_same_run,
    copy_unfinished,
    damage,
    flip,
    newest_checkpoint,
    truncate,
)
from tests.runs import failure_of


def flip_in_header(content: bytes) -> bytes:
    return content.replace(b'"generation": ', b'"generation": 1', 1)


def flip_schema(content: bytes) -> bytes:
    """One bit makes 6 of 4, as newer code might write it."""
    return content.replace(b'{"schema": 4', b'{"schema": 6', 1)


def with_schema(number: int, content: bytes) -> bytes:
    """The same with the checksum of its own header, and what only newer code may write there."""
    head, _, body = content.partition(b"\n")
    header = json.loads(head) | {"schema": number, "written_by": "other code"}
    del header["sha256"]
    header["sha256"] = checkpoints._checksum(header, body)
    return json.dumps(header).encode() + b"\n" + body


DAMAGES = {
    "truncated": (truncate, "its checksum is wrong: it is truncated or damaged"),
    "bit-flipped": (flip, "its checksum is wrong: it is truncated or damaged"),
    "header-changed": (flip_in_header, "its checksum is wrong: it is truncated or damaged"),
    "schema-flipped": (flip_schema, "its checksum is wrong: it is truncated or damaged"),
    "older-schema": (partial(with_schema, 1), "its schema is 1, this code reads 4"),
    "empty": (lambda content: b"", "it does not begin as a checkpoint does"),
    "no-checksum": (lambda content: b"{}\n" + content, "it does not begin as a checkpoint does"),
    "other-first-line": (lambda content: b"[]\n" + content, "it does not begin as a checkpoint does"),
}


@pytest.fixture
def two_generations(tmp_path):
    saved = Checkpoints(tmp_path / "checkpoint")
    saved.folder.mkdir()
    for number in range(5):
        saved.save({"number": torch.tensor(number)})
    return saved.folder


@pytest.mark.parametrize(("how", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_falls_back_to_the_previous_one(two_generations, capsys, how, message):
    path = newest_checkpoint(two_generations)
    damage(path, how)
    resumed = Checkpoints(two_generations)
    assert resumed.load()["number"] == 3
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path} cannot be used: {message}")
    assert warning.count("\n") == 1
    resumed.save({"number": torch.tensor(4)})  # overwrites the damaged one, not the good one
    numbers = {int(checkpoints.read_checkpoint(path)[2]["number"]) for path in two_generations.glob("*.pt")}
    assert numbers == {3, 4}


def test_checkpoint_of_newer_code_is_not_overwritten(two_generations):
    path = newest_checkpoint(two_generations)
    damage(path, partial(with_schema, 5))
    with pytest.raises(
        InputError, match=f"{path} cannot be read: its schema is 5, this code reads 4; choose"
    ):
        Checkpoints(two_generations).load()


def test_pipe_in_place_of_a_checkpoint_is_skipped(two_generations, capsys):
    path = newest_checkpoint(two_generations)
    path.unlink()
    os.mkfifo(path)
    assert Checkpoints(two_generations).load()["number"] == 3
    assert f"{path} cannot be used" in capsys.readouterr().err


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def serialised(state) -> bytes:
    body = io.BytesIO()
    torch.save(state, body)
    return body.getvalue()


def write_checkpoint(path, body, generation=9):
    """Write a checkpoint with a valid checksum around any body."""
    manifest = {"schema": checkpoints.SCHEMA, "generation": generation}
    header = manifest | {"sha256": checkpoints._checksum(manifest, body)}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)


@pytest.mark.parametrize("kind", ["bomb", "garbage", "nothing", "list"])
def test_body_that_is_not_a_state_is_refused(two_generations, tmp_path, kind):
    """With a valid checksum: no code in it runs, and it is not overwritten as damaged."""
    bomb = serialised({"model": Bomb(tmp_path / "bomb")})
    bodies = {"bomb": bomb, "garbage": b"garbage", "nothing": b"", "list": serialised([1, 2])}
    path = two_generations / "state-a.pt"
    write_checkpoint(path, bodies[kind])
    with pytest.raises(InputError, match=f"{path} cannot be read, although its checksum is right"):
        Checkpoints(two_generations).load()
    assert not (tmp_path / "bomb").exists()


def test_generation_that_is_not_a_number_is_skipped(two_generations, capsys):
    write_checkpoint(
        newest_checkpoint(two_generations), serialised({"number": torch.tensor(9)}), generation="x"
    )
    assert Checkpoints(two_generations).load()["number"] == 3
    assert "its generation is 'x', which is not an integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("optimizer"), "it lacks 'optimizer'"),
        (lambda state: state["progress"].update(step_statistics=3), "object of type 'int' has no len()"),
        (lambda state: state["model"].popitem(), "Missing key"),
        (lambda state: state.update(data="x"), "no attribute"),
    ],
    ids=["no-optimizer", "number-for-a-tensor", "parameter-missing", "text-for-a-fingerprint"],
)
def test_state_of_another_program_is_refused(tiny_graph, finished_runs, tmp_path, capsys, change, message):
    folder = copy_unfinished(finished_runs("graph"), tmp_path)
    path = newest_checkpoint(folder / "checkpoint")
    state = checkpoints.read_checkpoint(path)[2]
    change(state)
    write_checkpoint(path, serialised(state))
    error = failure_of(tiny_graph.main, capsys, [folder, "--resume"])[-1]
    assert f"{folder / 'checkpoint'} does not hold a state of this run" in error
    assert message in error


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
    (data / "books" / "new.txt").write_text("New words. More of them.\n" * 5)


@pytest.mark.parametrize(
    ("modality", "change", "message"),
    [
        ("graph", relabel, "features 3 there, 8 now"),
        ("graph", swap_labels, "nodes "),
        ("image", remove_class, "classes "),
        ("sentence", add_book, "books 3 there, 4 now"),
    ],
)
def test_run_does_not_resume_on_other_data(
    tiny_data, finished_runs, tmp_path, capsys, modality, change, message
):
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    change(data)
    folder = copy_unfinished(finished_runs(modality), tmp_path)
    settings = (folder / "config.json").read_text()  # the path of a dataset is one of the settings
    (folder / "config.json").write_text(settings.replace(str(tiny_data), str(data)))
    before = newest_checkpoint(folder / "checkpoint").read_bytes()
    error = failure_of(TinyCommand(modality, data).main, capsys, [folder, "--resume"])[-1]
    assert f"the data are not those that the run in {folder} began with (" in error
    assert message in error
    assert newest_checkpoint(folder / "checkpoint").read_bytes() == before


def test_old_checkpoint_without_a_data_fingerprint_resumes(tiny_graph, finished_runs, tmp_path):
    folder = copy_unfinished(finished_runs("graph"), tmp_path)
    for path in (folder / "checkpoint").glob("*.pt"):
        _, generation, state = checkpoints.read_checkpoint(path)
        del state["data"]
        write_checkpoint(path, serialised(state), generation)
    tiny_graph.run_inline(folder, "--resume")
    assert_same_run(finished_runs("graph"), tiny_graph, folder)


def test_no_intact_checkpoint_is_an_error(two_generations):
    for path in two_generations.glob("*.pt"):
        damage(path, flip)
    with pytest.raises(
        InputError, match=r"state-a.pt cannot be used.*state-b.pt cannot.*delete .*checkpoint"
    ):
        Checkpoints(two_generations).load()


def test_any_flipped_bit_is_detected(two_generations):
    path = newest_checkpoint(two_generations)
    content = path.read_bytes()
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            checkpoints.read_checkpoint(path)


@pytest.mark.faults
def test_run_resumes_from_the_last_intact_checkpoint(tiny, finished_runs, tmp_path):
    folder = copy_unfinished(finished_runs(tiny.modality), tmp_path)
    damage(newest_checkpoint(folder / "checkpoint"), flip)
    process = tiny.finish(folder, "--resume")
    assert "cannot be used: its checksum is wrong" in process.output()
    assert_same_run(finished_runs(tiny.modality), tiny, folder)
