"""Records and encoders that are damaged, of a newer schema, or in use: named, and made anew."""

import json
import shutil
import signal

import pytest

from core.io.errors import DamagedFileError, InputError
from core.training.records import check_files, read_record, record_text
from graph.evaluate import main as evaluate_graph
from image.evaluate import main as evaluate_image
from shared_eval.records import find_records, read_records
from tests.faults.test_signals import has_begun, wait_for
from tests.faults.tiny import check_is_as, damage, flip, newest, truncate
from tests.runs import failure_of


@pytest.mark.parametrize("how", [truncate, flip])
def test_a_damaged_record_is_left_out_and_made_anew(tiny_graph, whole_runs, tmp_path, capsys, how):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    damage(folder / "result.json", how)
    assert read_records(find_records([tmp_path])).empty
    assert f"{folder / 'result.json'} is not a valid record" in capsys.readouterr().err
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
    with pytest.raises(DamagedFileError, match="its checksum does not match"):
        read_record(path)
    del record["checksum"]
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedFileError, match="its checksum does not match"):
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


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_every_file_of_a_sentence_encoder_is_checked(whole_runs, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("sentence"), folder)
    [path] = (folder / "encoder" / "0_QuickThought").rglob(name)
    damage(path, lambda content: content + b" ")
    with pytest.raises(InputError, match=f"{path} is damaged: its checksum"):
        check_files(folder)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../../../../../../../../dev/zero": "1"}, "its files are not checksums by names inside"),
        ({"/dev/zero": "1"}, "its files are not checksums by names inside"),
        (["encoder.safetensors"], "its files are not checksums by names inside"),
        ({"checkpoint": "1"}, "named in result.json, cannot be read: .*is not a regular file"),
        ({"\0": "1"}, "named in result.json, cannot be read"),
        ({"encoder.safetensors": 5}, "its checksum is not the one in result.json"),
    ],
)
def test_files_that_no_run_records(whole_runs, tmp_path, files, said):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    path = folder / "result.json"
    path.write_text(record_text(read_record(path) | {"files": files}))
    with pytest.raises(InputError, match=said):
        check_files(folder)


@pytest.mark.parametrize(
    ("modality", "evaluate", "name", "said"),
    [
        ("graph", evaluate_graph, "hidden", "config.json has hidden 0 and layers 3; both must be at least 1"),
        ("graph", evaluate_graph, "layers", "config.json has hidden 8 and layers 0; both must be at least 1"),
        ("image", evaluate_image, "view_size", "config.json has view_size 0; it must be at least 8"),
    ],
)
def test_a_size_of_nothing(tiny_data, whole_runs, tmp_path, capsys, modality, evaluate, name, said):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs(modality), folder)
    settings = json.loads((folder / "config.json").read_text()) | {name: 0}
    (folder / "config.json").write_text(json.dumps(settings))
    flags = [str(folder), "--data-root", str(tiny_data), "--device", "cpu"]
    assert failure_of(evaluate, capsys, flags)[-1] == f"error: {said}"


@pytest.mark.parametrize("change", [None, {"metrics": {"a": "x"}}, {"untrained_metrics": [1.0]}])
def test_a_record_without_scores_is_made_anew(tiny_graph, whole_runs, tmp_path, capsys, change):
    folder = tmp_path / "run"
    shutil.copytree(whole_runs("graph"), folder)
    path = folder / "result.json"
    path.write_text(record_text({"schema": 1} if change is None else read_record(path) | change))
    assert "unfinished, 3 of 3 epochs done" in failure_of(tiny_graph.main, capsys, [folder])[-1]
    tiny_graph.here(folder, "--resume")
    check_is_as(whole_runs("graph"), tiny_graph, folder)


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
