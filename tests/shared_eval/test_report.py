"""The report: its content, and the page in a real browser."""

import html
import json
import re

import numpy as np
import pytest
import safetensors.numpy

from shared_eval.planned import Primary, PublishedScore, planned_together
from shared_eval.records import find_records, read_records
from shared_eval.records import main as records_main
from shared_eval.report import main as report_main
from shared_eval.report_page import Study, neighbours_of, write_report
from shared_eval.tables import label_versions
from tests.shared_eval.conftest import HARD, MOTIFS, PLAIN, write_record
from tests.shared_eval.test_figures import a_sample

RANKS = "graph-mean-ranks"


@pytest.fixture
def runs(tmp_path):
    """Two datasets, two objectives, six seeds."""
    for dataset in ("MUTAG", "DD"):
        for seed in range(6):
            for objective, gain in ((None, 0.0), (HARD, 0.06)):
                folder = tmp_path / "runs" / dataset / ("hard" if objective else "plain") / f"seed-{seed}"
                changes = {"objective": objective} if objective else {}
                metrics = {"svm_accuracy": 0.8 + seed / 100 + gain * (1 + seed / 10)}
                write_record(folder, dataset=dataset, seed=seed, metrics=metrics, **changes)
                (folder / "config.json").write_text(
                    json.dumps({"hidden": 32, "note": "<script>alert(1)</script>"})
                )
                (folder / "metrics.jsonl").write_text(
                    '{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.5}\n'
                )
                safetensors.numpy.save_file(a_sample(), folder / "sample.safetensors")
    return tmp_path / "runs"


@pytest.fixture
def page(runs, tmp_path):
    published = {("paper: hard, beta 1", "MUTAG svm_accuracy"): PublishedScore(0.874)}
    named = (Primary(f"{name} svm_accuracy", 200, "", 0.1, 1.0, "plain") for name in ("MUTAG", "DD"))
    primary = planned_together("graphs", named)
    return write_page(runs, tmp_path / "report.html", published=published, primary=primary)


def write_page(runs, output, **options):
    records = read_records(find_records([runs]))
    return write_report([Study.of(records, **options)], output)


def test_page_has_every_number_and_its_records(page, runs):
    text = html.unescape(page.read_text())
    assert "24 records" in text
    for expected in (
        "82.5 ± 1.9 (6)",
        "90.0 ± 3.0 (6)",
        "paper: hard, beta 1",
        "87.4",
        "untrained encoder",
        "p 0.062",  # 0.031, of two comparisons, in both tables that show it
    ):
        assert expected in text
    assert "p 0.031" not in text.replace("(p 0.031)", "")  # those are exploratory
    for expected in ("Primary comparisons", "Over the datasets of a modality", "critical difference"):
        assert expected in text
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    ids = set(re.findall(r'<details id="([^"]+)"', text))
    assert len(ids) == 24
    assert anchors == ids
    assert text.count("data:image/svg+xml") == 2 * 4 + 2  # of each dataset, and gains and ranks over both
    assert '"hidden": 32' in text


def test_published_figures_of_the_recipes_have_rows_of_their_own(runs, tmp_path, capsys):
    report_main([str(runs), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    assert "InfoGraph, by GraphMAE: infograph" in text
    assert "89.0" in text
    assert "liubin06/BCL" not in text


def test_comparisons_of_one_s_own_recipe_are_primary(runs, tmp_path):
    """Of the shipped recipes none plans beta 1 on these runs' DD against beta 0 alone."""
    own = tmp_path / "own.toml"
    text = MOTIFS.replace('["motifs"]', '["MUTAG", "mine"]').replace('"motifs"', '"MUTAG"')
    text = text.replace("epochs = 2", "epochs = 200").replace("betas = [0.0, 1.0]", "betas = [0.0, 1.0, 3.0]")
    planned = '[primary]\nmetric = "svm_accuracy"\nbeta = 3.0\ntau_plus = 0.1\nagainst = ["untrained"]\n'
    own.write_text(text + planned)
    write_record(tmp_path / "runs" / "harder", objective=HARD | {"beta": 3.0})
    page = tmp_path / "page.html"
    for flags, said in (([], False), (["--recipes", str(own)], True)):
        report_main([str(runs), "--output", str(page), *flags])
        assert ("MUTAG svm_accuracy: hard, beta 3, tau_plus 0.1" in page.read_text()) == said
        assert ("paper: hard, beta 1" in page.read_text()) == said


def test_page_says_what_its_differences_and_items_are(page):
    text = " ".join(page.read_text().split())
    assert "the difference to the objective at beta 0, or to the plain one, at the same seeds" in text
    assert "bootstrap" not in text


SHOWN = {
    "texts": {"shown_texts": np.frombuffer(json.dumps([f"<b>{i}" for i in range(6)]).encode(), np.uint8)},
    "images": {"shown_images": np.zeros((6, 3, 8, 8), np.uint8)},
    "graphs": {
        "shown_edges": np.array([[0, 1, 2, 3, 4, 6, 7], [1, 2, 0, 4, 5, 7, 8]]),
        "shown_nodes": np.repeat(np.arange(6), (3, 3, 3, 1, 1, 300)),
    },
}


@pytest.mark.parametrize("kind", SHOWN)
def test_page_shows_neighbours_before_and_after_training(runs, tmp_path, kind):
    for i, path in enumerate(sorted(runs.rglob("sample.safetensors"))):
        draw_ = np.random.default_rng(i)
        vectors = {f"shown_{name}": draw_.normal(size=(6, 4)) for name in ("before", "after")}
        safetensors.numpy.save_file(a_sample() | SHOWN[kind] | vectors, path)
    text = write_page(runs, tmp_path / "page.html").read_text()
    assert text.count(": nearest neighbours</h2>") == 2
    for name in ("before training", "infograph", "hard, beta 1, tau_plus 0.1"):
        assert text.count(f"<h3>{name}</h3>") == 2 * 4
    if kind == "texts":
        assert "&lt;b&gt;3" in text
    if kind == "graphs":
        assert "300 nodes" in text
        assert text.count("data:image/svg+xml") > 2 * 4 * 3 * 4


def test_neighbours_of_other_items_are_left_out(tmp_path):
    """Two runs of one dataset with other tasks have as many texts, but not the same."""
    for name, objective in (("plain", PLAIN), ("hard", HARD)):
        path = write_record(tmp_path / name, objective=objective)
        texts = json.dumps([f"{name} {i}" for i in range(6)]).encode()
        vectors = {f"shown_{when}": np.eye(6) for when in ("before", "after")}
        sample = a_sample() | vectors | {"shown_texts": np.frombuffer(texts, np.uint8)}
        safetensors.numpy.save_file(sample, path.with_name("sample.safetensors"))
    [rows] = neighbours_of(label_versions(read_records(find_records([tmp_path])))).values()
    for query, embeddings in rows:
        assert query.caption.startswith("plain")
        assert list(embeddings) == ["before training", "infograph"]


@pytest.mark.parametrize(
    "damage",
    [
        {"shown_texts": np.frombuffer(b"[1, ", np.uint8)},
        {"shown_images": np.zeros((2, 2))},
        {"shown_edges": np.array([[0, 9], [1, 0]]), "shown_nodes": np.arange(3)},
        {"shown_edges": np.arange(3)},
        {"shown_images": np.zeros((6, 3, 8, 8), np.uint8), "shown_before": np.ones((5, 2))},
    ],
)
def test_damaged_items_are_not_shown(runs, tmp_path, damage):
    for path in runs.rglob("sample.safetensors"):
        vectors = {f"shown_{name}": np.ones((6, 4)) for name in ("before", "after")}
        safetensors.numpy.save_file(a_sample() | vectors | damage, path)
    assert "nearest neighbours</h2>" not in write_page(runs, tmp_path / "page.html").read_text()


def test_values_in_a_record_are_escaped(page):
    assert "<script>alert" not in page.read_text()


def test_page_needs_no_network(page):
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page.read_text())


def test_command_writes_page_and_figures(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report_main([str(runs), "--output", "page.html", "--figures", "drawn"])
    assert capsys.readouterr().out == "page.html\n"
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    kinds = ("svm_accuracy-against-beta", "loss", "similarities", "map-of-the-embedding")
    assert drawn == {
        f"{name}.{e}"
        for name in (*(f"{n}-{k}" for n in ("MUTAG", "DD") for k in kinds), "gains-of-hard-negatives", RANKS)
        for e in ("png", "svg")
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as exit_:
        report_main(["empty"])
    assert exit_.value.code == 2
    assert "no result.json or records.csv below empty" in capsys.readouterr().err


def test_studies_in_one_file_have_tables_of_their_own(runs, tmp_path, capsys):
    """The same runs twice, as folders and in a file: neither counts in the other's table."""
    study = tmp_path / "runs" / "study"
    study.mkdir()
    records_main([str(runs), "--csv", str(study / "records.csv")])
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "records.csv").write_text("name\nmine\n")
    capsys.readouterr()
    page, drawn = tmp_path / "page.html", tmp_path / "drawn"
    report_main([str(runs), "--output", str(page), "--figures", str(drawn)])
    said = capsys.readouterr().err
    assert "other/records.csv is not what python -m shared_eval.records --csv writes" in said
    text = page.read_text()
    assert "48 records." in text
    assert f"<h1>{study / 'records.csv'}</h1>" in text
    for expected in ("82.5 ± 1.9 (6)", "90.0 ± 3.0 (6)"):
        assert text.count(expected) == 2 * 2 * 2  # of two datasets, in the table of both and in its own
    assert len(re.findall(r'<details id="run-', text)) == 24
    names = {path.name for path in drawn.iterdir()}
    against = {name for name in names if name.endswith("MUTAG-svm_accuracy-against-beta.svg")}
    assert against == {f"{study}MUTAG-svm_accuracy-against-beta.svg" for study in ("", "study-")}


def test_report_of_one_file_alone(runs, tmp_path, capsys):
    study = tmp_path / "study"
    study.mkdir()
    records_main([str(runs), "--csv", str(study / "records.csv")])
    page = tmp_path / "page.html"
    report_main([str(study), "--output", str(page)])
    assert "24 records." in page.read_text()
    assert "90.0 ± 3.0 (6)" in page.read_text()


def test_report_of_runs_without_labels_has_their_descriptions(tmp_path):
    metrics = {"alignment": 0.25, "uniformity": -1.5, "effective_rank": 41.5}
    for beta in (0.0, 1.0):
        write_record(tmp_path / str(beta), objective=HARD | {"beta": beta}, metrics=metrics)
    text = write_page(tmp_path, tmp_path / "report.html").read_text()
    for expected in ("41.50 (1)", "-1.50 (1)", "MUTAG effective_rank", "MUTAG: alignment and uniformity"):
        assert expected in text
    assert "against beta" not in text


def colours(view):
    """Background and text colour of the page, as sums of red, green and blue."""
    script = "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color] }"
    return [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in view.evaluate(script)]


@pytest.mark.browser
def test_page_works_in_a_browser(page, browser):
    faults, requests = [], []
    view = browser.new_page(color_scheme="light", viewport={"width": 1200, "height": 900})
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("request", lambda request: requests.append(request.url))
    view.goto(page.as_uri())
    assert not faults
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert view.evaluate("() => [...document.images].every(image => image.naturalWidth > 0)")

    table = view.locator("table:has(button)").first
    labels = lambda: table.locator("tbody th").all_inner_texts()  # noqa: E731
    head = table.locator("thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert labels()[0] == "hard, beta 1, tau_plus 0.1"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert labels()[0] == "untrained encoder"

    view.locator("table details summary").nth(1).click()
    link = view.locator("table details[open] a").first
    link.click()
    run = view.locator(f"details[id='{link.get_attribute('href')[1:]}']")
    assert run.get_attribute("open") is not None
    assert '"schema": 1' in run.inner_text()

    background, ink = colours(view)
    assert background > 700
    assert ink < 150
    view.emulate_media(color_scheme="dark")
    background, ink = colours(view)
    assert background < 150
    assert ink > 600


@pytest.mark.browser
def test_page_fits_a_phone(page, browser):
    """Only the boxes of tables scroll sideways, and the text is large enough to read."""
    view = browser.new_page(viewport={"width": 375, "height": 800}, is_mobile=True)
    view.goto(page.as_uri())
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 375
    assert view.evaluate("() => parseFloat(getComputedStyle(document.body).fontSize)") >= 16
