"""Files that are damaged, of a newer schema, or in use: named, and the last good one used."""

import json
import shutil
import signal

import pytest
import torch

from core import checkpoints
from core.checkpoints import Checkpoints
from core.errors import DamagedFileError, InputError
from core.records import read_record, record_text
from graph.evaluate import main as evaluate_graph
from shared_eval.records import find_records, read_records
from tests.faults.test_signals import has_begun, wait_for
from tests.faults.tiny import check_is_as


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    """One bit of the middle byte."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def flip_in_header(content: bytes) -> bytes:
    return content.replace(b'"generation": ', b'"generation": 1', 1)


def newer(content: bytes) -> bytes:
    return content.replace(b'{"schema": 2', b'{"schema": 3', 1)


DAMAGES = {
    truncate: "its checksum does not hold",
    flip: "its checksum does not hold",
    flip_in_header: "its checksum does not hold",
    newer: "its schema is 3, this code reads 2",
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


def damage(path, how):
    path.write_bytes(how(path.read_bytes()))


def newest(folder):
    return max(folder.glob("*.pt"), key=lambda path: checkpoints.read_checkpoint(path)[1])


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
    folder = tmp_path / "run"
    shutil.copytree(whole_runs(tiny.modality), folder)
    (folder / "result.json").unlink()
    damage(newest(folder / "checkpoint"), flip)
    trainer = tiny.run(folder, "--resume")
    assert trainer.wait() == 0
    assert "cannot be used: its checksum does not hold" in trainer.said()
    check_is_as(whole_runs(tiny.modality), tiny, folder)


@pytest.mark.parametrize("how", [truncate, flip])
def test_a_damaged_record_is_left_out_and_made_anew(tiny_graph, whole_runs, tmp_path, capsys, how):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    damage(folder / "result.json", how)
    assert read_records(find_records([tmp_path])).empty
    assert f"{folder / 'result.json'} is no whole record" in capsys.readouterr().err
    trainer = tiny_graph.run(folder)
    assert trainer.wait() == 2
    assert "unfinished, 3 of 3 epochs done; add --resume" in trainer.said()
    trainer = tiny_graph.run(folder, "--resume")
    assert trainer.wait() == 0
    assert "result.json is damaged and made anew" in trainer.said()
    check_is_as(whole_runs("graph"), tiny_graph, folder)


def test_a_changed_number_in_a_record_is_noticed(whole_runs, tmp_path):
    record = read_record(whole_runs("graph") / "result.json")
    path = tmp_path / "result.json"
    path.write_text(record_text(record))
    assert read_record(path) == record
    path.write_text(json.dumps(record | {"metrics": {"svm_accuracy": 0.999}}))
    with pytest.raises(DamagedFileError, match="its checksum does not hold"):
        read_record(path)
    del record["checksum"]
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match="its checksum does not hold"):
        read_record(path)
    del record["files"]  # earlier code wrote neither
    path.write_text(json.dumps(record))
    assert read_record(path) == record


def test_a_record_of_newer_code_is_not_overwritten(tiny_graph, whole_runs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    record = read_record(folder / "result.json") | {"schema": 2}
    (folder / "result.json").write_text(record_text(record))
    before = (folder / "result.json").read_bytes()
    trainer = tiny_graph.run(folder, "--resume")
    assert trainer.wait() == 2
    assert "its schema is 2, this code reads 1" in trainer.said()
    assert (folder / "result.json").read_bytes() == before
    assert read_records(find_records([tmp_path])).empty
    assert "its schema is 2, this code reads 1" in capsys.readouterr().err


@pytest.mark.parametrize("how", [truncate, flip])
def test_a_damaged_encoder_is_a_clear_error(tiny_data, whole_runs, tmp_path, capsys, how):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    damage(folder / "encoder.safetensors", how)
    with pytest.raises(SystemExit) as exit_:
        evaluate_graph([str(folder), "--data-root", str(tiny_data), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "encoder.safetensors is damaged: its checksum" in capsys.readouterr().err


def test_a_damaged_sentence_encoder_is_a_clear_error(tiny_data, whole_runs, tmp_path, capsys):
    from sentence.evaluate import main as evaluate_sentence

    folder = tmp_path / "run"
    shutil.copytree(whole_runs("sentence"), folder)
    damage(folder / "encoder" / "0_QuickThought" / "model.safetensors", flip)
    with pytest.raises(SystemExit) as exit_:
        evaluate_sentence([str(folder), "--data-root", str(tiny_data), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "model.safetensors is damaged: its checksum" in capsys.readouterr().err


def test_a_second_run_on_a_folder_refuses(tiny, tmp_path):
    """As long as the first lives, whatever flags the second has; a kill frees the folder."""
    folder = tmp_path / "run"
    first = tiny.start(folder, "--epochs", "500")
    wait_for(lambda: has_begun(folder))
    for more in ((), ("--resume",)):
        second = tiny.start(tmp_path / "run", "--epochs", "500", *more)
        assert second.wait(60) == 2
        assert "is in use: another process trains this run" in second.said()
    wait_for(lambda: any((folder / "checkpoint").glob("*.pt")))
    first.signal(signal.SIGKILL)
    first.wait()
    before = newest(folder / "checkpoint").read_bytes()
    third = tiny.start(folder, "--epochs", "500", "--resume")
    wait_for(lambda: newest(folder / "checkpoint").read_bytes() != before)
    third.signal(signal.SIGTERM)
    assert third.wait(60) == 143
