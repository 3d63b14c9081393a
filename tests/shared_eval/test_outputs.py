"""What commands print and write; no name, path or disk makes them fail with a traceback."""

import io
import sys

import pandas as pd
import pytest
from rich.table import Table

from core.io.errors import InputError
from core.io.files import readable
from shared_eval import compare, records, report
from shared_eval.outputs import show, writing
from tests.runs import failure_of
from tests.shared_eval.conftest import HARD, write_record

ODD_NAMES = ("x[/bold]", ":smile:", "x\udcff", "a$b$", r"$\foo$", "[link=x]", "é")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_is_shown_unchanged(tmp_path, monkeypatch, capsys, name):
    """In tables and figures; a lone surrogate, which no encoding has, is escaped."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    for folder, beta in (("a", 1.0), ("b", 2.0)):
        write_record(tmp_path / folder, dataset=name, objective=HARD | {"beta": beta})
        (tmp_path / folder / "config.json").write_text(f'{{"lr": {beta}, "[/x]": {beta}}}')
    records.main([".", "--csv", "new/all.csv", "--parquet", "all.parquet"])
    compare.main(["a", "b"])
    report.main([".", "--figures", "figures"])
    shown = capsys.readouterr().out
    assert shown.count(readable(name)) == 3
    assert "[/x]" in shown
    for exported in (pd.read_csv("new/all.csv"), pd.read_parquet("all.parquet")):
        assert set(exported["dataset"]) == {readable(name)}
    assert (tmp_path / "report.html").exists()
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_folder_with_an_invalid_name_is_skipped_with_a_warning(tmp_path, monkeypatch, capsys):
    write_record(tmp_path / "good")
    write_record(tmp_path / "odd\udcff")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, errors="backslashreplace"))  # Python's own
    records.main([str(tmp_path)])
    sys.stderr.flush()
    assert "1 records" in capsys.readouterr().out
    said = written.getvalue().decode()
    assert readable("odd\udcff") in said
    assert "the folder's name is not valid text; rename it" in said


def test_stdout_with_an_ascii_encoding_gets_escapes(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    table = Table("± é")
    table.add_row("x\udcff")
    show(table)
    show("± x\udcff")
    sys.stdout.flush()
    shown = written.getvalue().decode("ascii")
    assert r"\xb1 \xe9" in shown
    assert shown.count(r"x\udcff") == 2


@pytest.mark.parametrize(
    ("main", "flag", "suffix"),
    [
        (records.main, "--csv", ".csv"),
        (records.main, "--parquet", ".parquet"),
        (report.main, "--output", ".html"),
    ],
)
def test_file_of_another_kind_is_not_overwritten(tmp_path, capsys, main, flag, suffix):
    path = write_record(tmp_path / "run")
    before = path.read_bytes()
    [line] = failure_of(main, capsys, [str(tmp_path), flag, str(path)])
    assert f"{flag} is {path}; its suffix must be {suffix}" in line
    assert path.read_bytes() == before


@pytest.mark.parametrize("main", [records.main, report.main])
def test_folder_that_is_missing_is_an_error_beside_one_that_is_there(tmp_path, capsys, main):
    write_record(tmp_path / "run")
    [line] = failure_of(main, capsys, [str(tmp_path / "run"), str(tmp_path / "runn")])
    assert f"{tmp_path / 'runn'} is not a folder; name one with runs in it" in line


@pytest.mark.parametrize("flag", ["--csv", "--parquet", "--output", "--figures"])
def test_file_that_cannot_be_written_is_an_error(tmp_path, capsys, flag):
    for seed, beta in enumerate((1.0, 2.0)):
        write_record(tmp_path / "runs" / str(seed), objective=HARD | {"beta": beta})
    main = report.main if flag in ("--output", "--figures") else records.main
    there = tmp_path / "a file"
    there.write_text("mine")
    suffixes = {"--csv": ".csv", "--parquet": ".parquet", "--output": ".html"}
    target = there if flag == "--figures" else there / f"x{suffixes[flag]}"
    where = [] if flag == "--output" else ["--output", str(tmp_path / "page.html")]
    flags = [str(tmp_path / "runs"), *(where if main is report.main else []), flag, str(target)]
    [line] = failure_of(main, capsys, flags)
    assert "cannot be written: File exists; choose another path" in line
    assert there.read_text() == "mine"


def test_folder_in_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(InputError, match="folder cannot be written: Is a directory"),
        writing(tmp_path / "folder"),
    ):
        (tmp_path / "folder").write_text("")
