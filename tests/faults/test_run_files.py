"""Records and encoders that are damaged, from newer code, or in use: reported, and written again."""

import json
import shutil
import signal

import pytest

from core.io.errors import DamagedFileError, InputError
from core.training.records import check_files, read_record, record_text
from graph.evaluate import main as evaluate_graph
from image.evaluate import main as evaluate_image
from shared_eval.records import find_records, read_records
from tests.faults.tiny import (
    assert_same_run,
    damage,
    flip,
    has_started,
    newest_checkpoint,
    truncate,
    wait_for,
)
from tests.runs import failure_of


@pytest.mark.parametrize("how", [truncate, flip], ids=["truncated", "bit-flipped"])
def test_damaged_record_is_left_out_and_written_again(tiny_graph, finished_runs, tmp_path, capsys, how):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("graph"), folder)
    damage(folder / "result.json", how)
    assert read_records(find_records([tmp_path])).empty
    assert f"{folder / 'result.json'} is not a valid record" in capsys.readouterr().err
    process = tiny_graph.run(folder)
    assert process.wait() == 2
    assert "unfinished, 3 of 3 epochs done; add --resume" in process.output()
    process = tiny_graph.run(folder, "--resume")
    assert process.wait() == 0
    assert "result.json is damaged and is written again" in process.output()
    assert_same_run(finished_runs("graph"), tiny_graph, folder)


def test_changed_number_in_a_record_is_detected(finished_runs, tmp_path):
    record = read_record(finished_runs("graph") / "result.json")
    path = tmp_path / "result.json"
    path.write_text(record_text(record))
    assert read_record(path) == record
    path.write_text(json.dumps(record | {"metrics": {"svm_accuracy": 0.999}}))
    with pytest.raises(DamagedFileError, match="its checksum does not match"):
        read_record(path)
    del record["checksum"]
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match="its checksum does not match"):
        read_record(path)
    del record["files"]  # earlier code wrote neither of them
    path.write_text(json.dumps(record))
    assert read_record(path) == record


def test_record_of_newer_code_is_not_overwritten(tiny_graph, finished_runs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("graph"), folder)
    record = read_record(folder / "result.json") | {"schema": 2}
    (folder / "result.json").write_text(record_text(record))
    before = (folder / "result.json").read_bytes()
    process = tiny_graph.run(folder, "--resume")
    assert process.wait() == 2
    assert "its schema is 2, this code reads 1" in process.output()
    assert (folder / "result.json").read_bytes() == before
    assert read_records(find_records([tmp_path])).empty
    assert "its schema is 2, this code reads 1" in capsys.readouterr().err


@pytest.mark.parametrize("how", [truncate, flip], ids=["truncated", "bit-flipped"])
def test_damaged_graph_encoder_is_refused(tiny_data, finished_runs, tmp_path, capsys, how):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("graph"), folder)
    damage(folder / "encoder.safetensors", how)
    with pytest.raises(SystemExit) as exit_:
        evaluate_graph([str(folder), "--data-root", str(tiny_data), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "encoder.safetensors is damaged: its checksum" in capsys.readouterr().err


def test_damaged_sentence_encoder_is_refused(tiny_data, finished_runs, tmp_path, capsys):
    from sentence.evaluate import main as evaluate_sentence

    folder = tmp_path / "run"
    shutil.copytree(finished_runs("sentence"), folder)
    damage(folder / "encoder" / "model.safetensors", flip)
    with pytest.raises(SystemExit) as exit_:
        evaluate_sentence([str(folder), "--data-root", str(tiny_data), "--device", "cpu"])
    assert exit_.value.code == 2
    assert "model.safetensors is damaged: its checksum" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tokenizer.json", "quick_thought.json"])
def test_every_file_of_a_sentence_encoder_has_a_checksum(finished_runs, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("sentence"), folder)
    [path] = (folder / "encoder").rglob(name)
    damage(path, lambda content: content + b" ")
    with pytest.raises(InputError, match=f"{path} is damaged: its checksum"):
        check_files(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../../../../../../../../dev/zero": "1"}, "its files are not checksums by names inside"),
        ({"/dev/zero": "1"}, "its files are not checksums by names inside"),
        (["encoder.safetensors"], "its files are not checksums by names inside"),
        ({"checkpoint": "1"}, "named in result.json, cannot be read: .*is not a regular file"),
        ({"\0": "1"}, "named in result.json, cannot be read"),
        ({"encoder.safetensors": 5}, "its checksum is not the one in result.json"),
    ],
    ids=["path-leading-out", "absolute-path", "list", "folder", "null-byte", "number-for-a-checksum"],
)
def test_invalid_list_of_files_in_a_record_is_refused(finished_runs, tmp_path, files, message):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("graph"), folder)
    path = folder / "result.json"
    path.write_text(record_text(read_record(path) | {"files": files}))
    with pytest.raises(InputError, match=message):
        check_files(folder)


@pytest.mark.parametrize(
    ("modality", "evaluate", "name", "message"),
    [
        ("graph", evaluate_graph, "hidden", "hidden is 0; it must be at least 1"),
        ("graph", evaluate_graph, "layers", "layers is 0; it must be at least 1"),
        ("image", evaluate_image, "view_size", "view_size is 0; it must be at least 8"),
    ],
)
def test_encoder_size_of_zero_is_refused(
    tiny_data, finished_runs, tmp_path, capsys, modality, evaluate, name, message
):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs(modality), folder)
    settings = json.loads((folder / "config.json").read_text()) | {name: 0}
    (folder / "config.json").write_text(json.dumps(settings))
    flags = [str(folder), "--data-root", str(tiny_data), "--device", "cpu"]
    assert failure_of(evaluate, capsys, flags)[-1] == f"error: {folder / 'config.json'}: {message}"


@pytest.mark.parametrize(
    "change",
    [None, {"metrics": {"a": "x"}}, {"untrained_metrics": [1.0]}],
    ids=["nothing-but-a-schema", "text", "list"],
)
def test_record_without_valid_scores_is_written_again(tiny_graph, finished_runs, tmp_path, capsys, change):
    folder = tmp_path / "run"
    shutil.copytree(finished_runs("graph"), folder)
    path = folder / "result.json"
    path.write_text(record_text({"schema": 1} if change is None else read_record(path) | change))
    assert "unfinished, 3 of 3 epochs done" in failure_of(tiny_graph.main, capsys, [folder])[-1]
    tiny_graph.run_inline(folder, "--resume")
    assert_same_run(finished_runs("graph"), tiny_graph, folder)


@pytest.mark.faults
def test_second_run_in_a_folder_is_refused_while_the_first_lives(tiny, tmp_path):
    """Whatever flags the second has; a kill releases the folder."""
    folder = tmp_path / "run"
    first = tiny.start(folder, "--epochs", "500")
    wait_for(lambda: has_started(folder))
    for more in ((), ("--resume",)):
        second = tiny.start(tmp_path / "run", "--epochs", "500", *more)
        assert second.wait(60) == 2
        assert "is in use: another process trains this run" in second.output()
    wait_for(lambda: any((folder / "checkpoint").glob("*.pt")))
    first.signal(signal.SIGKILL)
    first.wait()
    before = newest_checkpoint(folder / "checkpoint").read_bytes()
    third = tiny.start(folder, "--epochs", "500", "--resume")
    wait_for(lambda: newest_checkpoint(folder / "checkpoint").read_bytes() != before)
    third.signal(signal.SIGTERM)
    assert third.wait(60) == 143
